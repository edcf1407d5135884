"""The words of a pipeline file for fusion."""

from typing import Any, Literal

from pydantic import Field, model_validator

from cubekit.evaluation.fusion_baselines import Baseline
from cubekit.pipeline.sections import Cube, Grid, Pipeline, Section, Source, Train


class Scenes(Section):
    """Scenes that are made into a cube first."""

    source: Source
    grid: Grid | None = None
    cube: Cube = Cube()


class Data(Section):
    """A published set by its key and folder, or any pair of cubes."""

    name: str = "pairs"
    set: str | None = None
    root: str | None = None
    fine: str | Scenes | None = None
    coarse: str | Scenes | None = None
    bands: list[str] | dict[str, str] | None = None
    tolerance: float = Field(default=0.0, ge=0)
    steps: Literal["consecutive", "all"] = "consecutive"
    resampling: Literal["cubic", "bilinear", "nearest"] = "cubic"
    scale: float = Field(default=1.0, gt=0)
    coarse_scale: float | None = Field(default=None, gt=0)
    harmonise: bool = False
    ratio: float = Field(default=16.0, gt=0)

    @model_validator(mode="after")
    def _one_of(self) -> "Data":
        published = self.set is not None and self.root is not None
        cubes = self.fine is not None and self.coarse is not None
        if published == cubes:
            msg = "data needs either set and root (a published set), or fine and coarse (two cubes)"
            raise ValueError(msg)
        return self


class Protocol(Section):
    """Which dates train, and how scores are taken."""

    name: Literal["scene", "survey"] = "scene"
    train: int | None = Field(default=None, gt=1)
    valid: int | float = Field(default=0.15, ge=0)
    test: int | float = Field(default=0.2, gt=0)


class FuseTrain(Train):
    """Which networks, and how they learn; what is left out is as published for each network."""

    network: str = "edcstfn"
    networks: list[str] = Field(default_factory=list)
    arguments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    patch: int = Field(default=512, ge=16)
    stride: int | None = Field(default=None, gt=0)
    epochs: int = Field(default=500, gt=0)
    epochs_of: dict[str, int] = Field(default_factory=dict)
    batch: int | None = Field(default=None, gt=1)  # type: ignore[assignment]
    learning_rate: float | None = Field(default=None, gt=0)  # type: ignore[assignment]
    schedule: Literal["constant", "cosine", "plateau", "step"] | None = None  # type: ignore[assignment]
    pretrain: int | None = Field(default=None, ge=0)
    valid_every: int = Field(default=10, gt=0)
    devices: int = Field(default=1, gt=0)
    threads: int = Field(default=1, gt=0)
    log: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    seed: int = 42


class FuseWindows(Section):
    """How whole scenes are cut for the networks."""

    tile: int | None = Field(default=None, gt=0)
    window: int | None = Field(default=None, gt=0)


class FusePipeline(Pipeline):
    """From a fine and a coarse series to networks, their scores and the predicted dates."""

    task: Literal["fuse"]
    data: Data
    protocol: Protocol = Protocol()
    train: FuseTrain = FuseTrain()
    predict: FuseWindows = FuseWindows()
    baselines: list[Baseline] = Field(default=["fine_t1", "coarse_t2", "change", "starfm", "fit_fc"])
    rgb: tuple[str, str, str] | None = None
