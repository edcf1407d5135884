"""The words of a pipeline file for class maps."""

from typing import Literal

from pydantic import Field, model_validator

from cubekit.pipeline.sections import Cube, Grid, Labels, Pipeline, Predict, Section, Source, Split

Baseline = Literal["majority", "random_forest"]


class Series(Section):
    """A table of labelled series in place of labels on the grid."""

    source: str
    label: str = "label"
    date: str = "date"
    id: str = "sample_id"
    bands: list[str] | None = None
    colours: dict[str, str] | None = None
    group: str | None = None
    steps: Literal["equal", "common"] = "equal"


class ClassifyPipeline(Pipeline):
    """From scenes and labels to a class map."""

    task: Literal["classify"] = "classify"
    source: Source
    grid: Grid | None = None
    cube: Cube = Cube()
    labels: Labels | None = None
    series: Series | None = None
    split: Split = Split()
    baselines: list[Baseline] = Field(default=["majority", "random_forest"])
    predict: Predict = Predict()
    reference: Labels | None = None

    @model_validator(mode="after")
    def _labels_or_series(self) -> "ClassifyPipeline":
        if (self.labels is None) == (self.series is None):
            msg = "a pipeline needs either labels (on the grid) or series (a table), not both"
            raise ValueError(msg)
        return self
