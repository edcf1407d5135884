"""The words of a pipeline file for maps of fractions."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cubekit.pipeline.sections import Cube, Grid, Pipeline, Section, Source, Train


class Shares(Section):
    """A finer map, or polygons, whose shares in each pixel of the cube are the truth."""

    source: str
    column: str = "class"
    classes: dict[int, str] | None = None
    colours: dict[str, str] | None = None
    ignore: list[int | str] = Field(default_factory=list)
    min_coverage: float = Field(default=0.95, gt=0, le=1)


class Ancillary(Section):
    """What is known of a pixel beside its series."""

    elevation: str | None = None
    layers: dict[str, str] = Field(default_factory=dict)
    place: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables, in the order of the network's inputs."""
        place = ("longitude", "latitude") if self.place else ()
        return (*place, *(("altitude", "slope") if self.elevation else ()), *self.layers)


class Published(Section):
    """Published pixels: JSON files, and CSV tables of their fractions, one for each part."""

    folder: str
    train: str
    valid: str
    test: str
    ancillary: str | None = None
    level: Literal["N1", "N2"] = "N1"
    variables: list[str] | None = None
    year: int = 2013


class BlockSplit(Section):
    """Whole squares go to one part, so that every class has about the same mean in each."""

    block: float = Field(default=25_000, gt=0)
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    buffer: int = Field(default=0, ge=0)
    tolerance: float = Field(default=0.1, gt=0)
    seed: int = 0


class FractionsTrain(Train):
    """How BRITS was trained when it was published."""

    network: str = "brits"
    epochs: int = Field(default=200, gt=0)
    batch: int = Field(default=2048, gt=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    schedule: Literal["constant", "cosine", "plateau", "step"] = "cosine"
    normalise: Literal["percentile", "standard"] = "standard"
    scaling: Literal["own", "published"] = "own"
    """Whether means and deviations are those of the training samples, or those published for Andalusia."""
    clip: float | None = Field(default=0.95, gt=0)
    weights: str | None = None
    """Folder of a saved model to go on from; its output layers are replaced where classes differ."""


class FractionsPredict(Section):
    """Which layers the map holds."""

    outputs: list[Literal["fractions", "class", "entropy", "margin"]] = Field(default=["fractions", "class"])
    tile: int | None = Field(default=None, gt=0)

    @field_validator("outputs")
    @classmethod
    def _with_fractions(cls, outputs: list[str]) -> list[str]:
        if "fractions" not in outputs:
            msg = "a map of fractions holds the layer fractions"
            raise ValueError(msg)
        return outputs


class FractionsPipeline(Pipeline):
    """From coarse pixels and a finer map, or from published pixels, to shares of classes."""

    task: Literal["fractions"] = "fractions"
    source: Source | None = None
    published: Published | None = None
    grid: Grid | None = None
    cube: Cube = Cube()
    ancillary: Ancillary | None = None
    shares: Shares | None = None
    split: BlockSplit = BlockSplit()
    train: FractionsTrain = FractionsTrain()
    baselines: list[Literal["mean_shares", "random_forest", "linear_unmixing"]] = Field(
        default=["random_forest", "linear_unmixing", "mean_shares"]
    )
    hidden: float = Field(default=0.1, gt=0, lt=1)
    """Share of the observed values of the test samples that is hidden to score the imputation."""
    predict: FractionsPredict = FractionsPredict()

    @model_validator(mode="after")
    def _scenes_or_pixels(self) -> "FractionsPipeline":
        if (self.source is None) == (self.published is None):
            msg = "a job of fractions needs either source (scenes) or published (pixels), not both"
            raise ValueError(msg)
        if self.source is not None and self.shares is None:
            msg = "scenes need shares: a finer map, or polygons, of the classes"
            raise ValueError(msg)
        if self.cube.fill is not None:
            msg = "gaps stay where a network is told of them: leave cube.fill out"
            raise ValueError(msg)
        return self
