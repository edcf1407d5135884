"""The words of a pipeline file for class maps."""

from typing import Any, Literal

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


class Patches(Section):
    """How networks that see patches are fed; what is not said is as in ``train``."""

    size: int = Field(default=32, gt=1)
    stride: int | None = Field(default=None, gt=0)
    flips: bool = True
    batch: int = Field(default=16, gt=1)
    epochs: int | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "cosine", "plateau", "step"] | list[int] | None = None
    patience: int | None = Field(default=None, gt=0)


class Compare(Section):
    """Networks that ``cubekit compare`` trains on the split of the file."""

    networks: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    arguments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    patches: Patches = Patches()


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
    compare: Compare | None = None

    @model_validator(mode="after")
    def _labels_or_series(self) -> "ClassifyPipeline":
        if (self.labels is None) == (self.series is None):
            msg = "a pipeline needs either labels (on the grid) or series (a table), not both"
            raise ValueError(msg)
        return self
