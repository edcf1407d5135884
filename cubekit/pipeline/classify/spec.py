"""The words of a pipeline file for class maps."""

from typing import Any, Literal

from pydantic import Field, model_validator

from cubekit.pipeline.sections import Cube, Grid, Labels, Pipeline, Predict, Section, Source, Split

Baseline = Literal["majority", "random_forest"]


class Series(Section):
    """A table of labelled series in place of labels on the grid."""

    source: str
    form: Literal["plain", "earth-engine"] = "plain"
    """How the table is read: :func:`cubekit.read_series`, or :func:`cubekit.read_pixel_months`."""
    label: str | None = None
    date: str | None = None
    bands: list[str] | None = None
    colours: dict[str, str] | None = None
    group: str | None = None
    near: float | None = Field(default=None, ge=0)
    months: tuple[str, str] | None = None
    id: str | None = None
    steps: Literal["equal", "common", "months"] | None = None
    missing: list[float] | None = None
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _suits_the_form(self) -> "Series":
        foreign = {"plain": ("scale",), "earth-engine": ("id", "steps", "missing")}[self.form]
        given = [name for name in foreign if getattr(self, name) is not None]
        if given:
            msg = f"{', '.join(given)} does not apply to tables of form {self.form!r}"
            raise ValueError(msg)
        return self


class Unlabelled(Section):
    """A table of pixel-months to predict: a CSV of classes, and a map where the pixels lie on a grid."""

    source: str
    date: str = "image_date"
    scale: float = Field(default=1e-4, gt=0)


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
    patches: Patches | None = None
    """As in a run, where nothing is said."""


class ClassifyPipeline(Pipeline):
    """From scenes and labels, or from tables of series, to a class map."""

    task: Literal["classify"] = "classify"
    source: Source | None = None
    grid: Grid | None = None
    cube: Cube = Cube()
    labels: Labels | None = None
    series: Series | None = None
    unlabelled: Unlabelled | None = None
    split: Split = Split()
    also_random_split: bool = False
    """Whether to train once more on a random split, to show how much that flatters."""
    baselines: list[Baseline] = Field(default=["majority", "random_forest"])
    patches: Patches = Patches()
    """For networks that see patches."""
    predict: Predict = Predict()
    reference: Labels | None = None
    compare: Compare | None = None

    @model_validator(mode="after")
    def _labels_or_series(self) -> "ClassifyPipeline":
        if (self.labels is None) == (self.series is None):
            msg = "a pipeline needs either labels (on the grid) or series (a table), not both"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _scenes_or_tables(self) -> "ClassifyPipeline":
        if self.source is None and (self.labels is not None or self.reference is not None):
            msg = "labels and reference lie on the grid of scenes: say in source where scenes come from"
            raise ValueError(msg)
        return self
