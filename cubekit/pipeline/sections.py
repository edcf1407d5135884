"""Sections that pipeline files of several tasks share, checked at the border."""

from math import isclose
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A part of the file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Search(Section):
    """Scenes from a STAC API."""

    collection: str
    provider: str = "earth-search"
    url: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    datetime: str | None = None
    max_items: int | None = None


class Archive(Section):
    """Scenes from files in a folder."""

    root: str
    pattern: str | list[str]
    collection: str | None = None
    bands: list[str] | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    dates: str | list[str] | None = None
    every: str | None = None
    on_unmatched: Literal["raise", "skip"] = "raise"


class Source(Section):
    """Where scenes come from: exactly one of the three."""

    search: Search | None = None
    archive: Archive | None = None
    items: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "Source":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            msg = f"source needs exactly one of search, archive, items; found {given or 'none'}"
            raise ValueError(msg)
        return self


class Grid(Section):
    """Target grid; without it, the grid of the scenes themselves."""

    crs: str | None = None
    resolution: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    bounds: tuple[float, float, float, float] | None = None
    tiles: list[str] | None = None


class Composite(Section):
    """One image a period."""

    every: str | list[str] = "1MS"
    how: Literal[
        "median", "mean", "min", "max", "first", "geomedian",
        "earliest", "latest", "least_cloudy", "max_index", "medoid",
    ] = "median"  # fmt: skip
    index: str = "NDVI"
    start: str | None = None
    end: str | None = None
    pool_years: bool = False
    layers: list[Literal["source", "age_days"]] = Field(default_factory=list)
    reference: Literal["start", "middle", "end"] = "middle"
    fallback: Literal["none", "unmasked"] = "none"


class Cube(Section):
    """What to build from the scenes, and how to store it."""

    bands: list[str] | None = None
    mask: str | None = None
    dilate: int | str = 0
    opening: int | str = 0
    resampling: Literal["nearest", "bilinear", "cubic", "average", "mode", "min", "max"] = "nearest"
    composite: Composite | None = None
    fill: Literal["linear", "nearest", "whittaker", "harmonic"] | None = None
    fill_limit: float | None = Field(default=None, ge=0)
    indices: list[str] = Field(default_factory=list)
    dtype: Literal["float32"] | None = None
    """For bands of different coding in one cube, such as reflectance and AOT: physical values."""
    layout: Literal["series", "patches", "maps"] = "series"


class Labels(Section):
    """Labels on the grid of the cube, from polygons, points or a raster of codes."""

    source: str
    column: str = "class"
    inward: float = Field(default=0.0, ge=0)
    all_touched: bool = False
    classes: dict[int, str] | None = None
    colours: dict[str, str] | None = None
    ignore: list[int | str] = Field(default_factory=list)
    limit_per_class: int | None = Field(default=None, gt=0)


class Split(Section):
    """How training, validation and test samples are kept apart."""

    by: Literal["blocks", "groups", "random", "time"] = "blocks"
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    buffer: float = Field(default=0.0, ge=0)
    block: float | None = Field(default=None, gt=0)
    whole_groups: bool = False
    gap: float | str = 0.0
    cuts: tuple[str, str] | None = None
    seed: int = 0

    @field_validator("fractions")
    @classmethod
    def _make_a_whole(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or not isclose(sum(shares), 1, abs_tol=1e-6):
            msg = "training, validation and test must add up to 1"
            raise ValueError(msg)
        return shares


class Train(Section):
    """Which network, and how it learns."""

    network: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(default=20, gt=0)
    batch: int = Field(default=256, gt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int | None = Field(default=None, gt=0)
    class_weights: Literal["balanced"] | None = None
    normalise: Literal["percentile", "standard", "percentile_by_step", "standard_by_step"] = "percentile"
    schedule: Literal["constant", "cosine", "plateau", "step"] | list[int] = "constant"
    keep: Literal["loss", "accuracy", "macro_f1", "weighted_f1"] = "loss"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["32", "bf16", "16"] = "32"
    seed: int = 0


class Predict(Section):
    """Which layers the map holds."""

    outputs: list[Literal["class", "probability", "entropy", "margin"]] = ["class", "probability"]
    tile: int | None = Field(default=None, gt=0)
    passes: int = Field(default=0, ge=0)
    turning: Literal["none", "flips", "rotations"] = "none"
    csv: bool = False
    """Whether to write the class of every pixel as a table too."""
    sieve: int = Field(default=0, ge=0)


class Pipeline(Section):
    """What every job says of itself; each task adds its own sections."""

    title: str
    description: str = ""
    task: Literal["classify", "fractions", "forecast", "fuse"] = "classify"
    demo: str | None = None
    """Sample data (see :mod:`cubekit.demo`) that ``cubekit run --demo`` makes and runs this file on."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    train: Train
