"""The words of a pipeline file for forecast maps."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cubekit.pipeline.sections import Cube, Grid, Pipeline, Section, Source, Train


class Years(Section):
    """A folder with one single-band GeoTIFF a year; see :func:`cubekit.open_yearly`."""

    root: str
    zone: str | None = None
    pattern: str | list[str] | None = None
    outside: float | None = None
    nodata: float | None = None
    scale: float | None = None
    missing: Literal["raise", "nan"] = "raise"


class Npz(Section):
    """A file of maps as published, and a raster or store that tells where its pixels lie."""

    path: str
    like: str
    missing: Literal["raise", "nan"] = "raise"


class Reflectance(Section):
    """Scenes from which one image a year, and the index of it, is computed."""

    source: Source
    grid: Grid | None = None
    cube: Cube
    sensor: Literal["tm", "etm", "oli"] = "oli"
    heat: str = "lst"
    soil: float | None = None
    vegetation: float | None = None


class Maps(Section):
    """Where the yearly maps come from: exactly one of the four."""

    years: Years | None = None
    npz: Npz | None = None
    store: str | None = None
    scenes: Reflectance | None = None
    fill: Literal["nearest"] | None = None
    """Gaps inside the zone from the nearest pixel of the same year; without it, in time inside the model."""

    @model_validator(mode="after")
    def _one_of(self) -> "Maps":
        sources = ("years", "npz", "store", "scenes")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            msg = f"maps needs exactly one of {', '.join(sources)}; found {given or 'none'}"
            raise ValueError(msg)
        return self


class Sampling(Section):
    """Windows of years and patches: what trains, validates and tests."""

    window: int = Field(default=8, gt=0)
    patch: int = Field(default=64, ge=4)
    hold_out: int = Field(default=1, gt=0)
    by: Literal["blocks", "years"] = "blocks"
    valid: float = Field(default=0.2, gt=0, lt=1)
    valid_years: int = Field(default=1, gt=0)
    block: int | None = Field(default=None, gt=0)
    masked: float = Field(default=0.3, ge=0, lt=1)
    train_samples: int = Field(default=20_000, gt=0)
    valid_samples: int = Field(default=4_000, gt=0)
    workers: int = Field(default=2, gt=0)
    augment: bool = True
    seed: int = 0

    @field_validator("patch")
    @classmethod
    def _divides(cls, patch: int) -> int:
        if patch % 4:
            msg = "the network pools twice: patches are multiples of 4"
            raise ValueError(msg)
        return patch


class ForecastTrain(Train):
    """Which network, and how it learns; the published settings where nothing is said."""

    network: str = "convlstm_unet"
    epochs: int = Field(default=100, gt=0)
    batch: int = Field(default=128, gt=1)
    patience: int | None = Field(default=10, gt=0)
    normalise: Literal["percentile", "standard", "none"] = "standard"  # type: ignore[assignment]  # one more word
    schedule: Literal["constant", "cosine", "plateau", "step"] = "plateau"

    @model_validator(mode="after")
    def _no_classes(self) -> "ForecastTrain":
        if self.class_weights is not None or self.label_smoothing:
            msg = "class_weights and label_smoothing are for classes; a forecast has none"
            raise ValueError(msg)
        return self


class Ahead(Section):
    """Which years to forecast beyond the last map, and how."""

    steps: int = Field(default=1, gt=0)
    passes: int = Field(default=0, ge=0)
    turning: Literal["none", "flips", "rotations"] = "none"
    tile: int | None = Field(default=None, gt=0)
    blend: int | None = Field(default=None, ge=4)
    """Pixels a side of overlapping windows to average; without it, exact margins."""


class ForecastPipeline(Pipeline):
    """From yearly maps to the maps of the coming years."""

    task: Literal["forecast"] = "forecast"
    index: str
    """Name of the band; of the six vegetation and ecology indices where `maps` starts from reflectance."""
    maps: Maps
    zones: dict[str, str] = Field(default_factory=dict)
    """Name to a raster whose pixels are exactly 0, or nodata, outside; or to a published mask (.pkl)."""
    within: str | None = None
    """Zone that is trained on and forecast; without it, all pixels with data."""
    sampling: Sampling = Sampling()
    train: ForecastTrain = ForecastTrain()
    predict: Ahead = Ahead()

    @model_validator(mode="after")
    def _known_zone(self) -> "ForecastPipeline":
        if self.within is not None and self.within not in self.zones and self.maps.store is None:
            msg = f"within: {self.within!r} is not among the zones {list(self.zones)}"
            raise ValueError(msg)
        return self
