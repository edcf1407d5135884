"""The words of a pipeline file, checked at the border.

A file names data and settings only: networks, masks and methods by registered names, never code.
``${name}`` in a value stands for the parameter of that name; ``cubekit run --set name=value`` overrides it.
"""

import re
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cubekit import specs
from cubekit.errors import CatalogError, PipelineError, did_you_mean
from cubekit.security import load_yaml

_REFERENCE = re.compile(r"\$\{(\w+)\}")


class _Section(BaseModel):
    """A part of the file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Search(_Section):
    """Scenes from a STAC API."""

    collection: str
    provider: str = "earth-search"
    url: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    datetime: str | None = None
    max_items: int | None = None


class Archive(_Section):
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


class Source(_Section):
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


class Grid(_Section):
    """Target grid; without it, the grid of the scenes themselves."""

    crs: str | None = None
    resolution: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    bounds: tuple[float, float, float, float] | None = None


class Composite(_Section):
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


class Cube(_Section):
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
    layout: Literal["series", "patches", "maps"] = "series"


class Labels(_Section):
    """Labels on the grid of the cube, from polygons, points or a raster of codes."""

    source: str
    column: str = "class"
    inward: float = Field(default=0.0, ge=0)
    all_touched: bool = False
    classes: dict[int, str] | None = None
    colours: dict[str, str] | None = None
    ignore: list[int | str] = Field(default_factory=list)
    limit_per_class: int | None = Field(default=None, gt=0)


class Series(_Section):
    """A table of labelled series in place of labels on the grid."""

    source: str
    label: str = "label"
    date: str = "date"
    id: str = "sample_id"
    bands: list[str] | None = None
    colours: dict[str, str] | None = None
    group: str | None = None
    steps: Literal["equal", "common"] = "equal"


class Split(_Section):
    """How training, validation and test samples are kept apart."""

    by: Literal["blocks", "groups", "random"] = "blocks"
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    buffer: float = Field(default=0.0, ge=0)
    block: float | None = Field(default=None, gt=0)
    whole_groups: bool = False
    seed: int = 0

    @field_validator("fractions")
    @classmethod
    def _make_a_whole(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or not isclose(sum(shares), 1, abs_tol=1e-6):
            msg = "training, validation and test must add up to 1"
            raise ValueError(msg)
        return shares


class Train(_Section):
    """Which network, and how it learns."""

    network: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(default=20, gt=0)
    batch: int = Field(default=256, gt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int | None = Field(default=None, gt=0)
    class_weights: Literal["balanced"] | None = None
    normalise: Literal["percentile", "standard"] = "percentile"
    schedule: Literal["constant", "cosine", "plateau", "step"] = "constant"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["32", "bf16", "16"] = "32"
    seed: int = 0


class Predict(_Section):
    """Which layers the map holds."""

    outputs: list[Literal["class", "probability", "entropy", "margin"]] = ["class", "probability"]
    tile: int | None = Field(default=None, gt=0)
    passes: int = Field(default=0, ge=0)
    turning: Literal["none", "flips", "rotations"] = "none"


class Pipeline(_Section):
    """A whole job."""

    title: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    source: Source
    grid: Grid | None = None
    cube: Cube = Cube()
    labels: Labels | None = None
    series: Series | None = None
    split: Split = Split()
    train: Train
    baselines: list[Literal["majority", "random_forest"]] = ["majority", "random_forest"]
    predict: Predict = Predict()
    reference: Labels | None = None

    @model_validator(mode="after")
    def _labels_or_series(self) -> "Pipeline":
        if (self.labels is None) == (self.series is None):
            msg = "a pipeline needs either labels (on the grid) or series (a table), not both"
            raise ValueError(msg)
        return self


def read_pipeline(path: Path, settings: Mapping[str, Any] | None = None) -> Pipeline:
    """Read and check a pipeline file.

    Parameters
    ----------
    path : pathlib.Path
        YAML file.
    settings : mapping, optional
        Values for parameters of the file, in place of those it states.

    Returns
    -------
    Pipeline
        Frozen record with all references resolved.

    Raises
    ------
    PipelineError
        Naming the key, with the nearest known one; or the parameter that is unknown or has no value.
    """
    try:
        raw = load_yaml(path)
    except CatalogError as error:
        raise PipelineError(str(error)) from error
    if not isinstance(raw, dict):
        raise PipelineError(f"{path} holds {type(raw).__name__}, expected keys such as source, cube, train.")
    parameters = raw.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise PipelineError(f"{path}: parameters must be lines of the form 'name: value'.")
    for name in settings or {}:
        if name not in parameters:
            raise PipelineError(f"{path} has no parameter {name!r}. {did_you_mean(name, parameters)}")
    parameters = parameters | dict(settings or {})
    missing = [name for name, value in parameters.items() if value is None]
    if missing:
        raise PipelineError(f"{path} needs a value for {missing}: add --set {missing[0]}=…")
    body = {str(key): _fill(value, parameters, path) for key, value in raw.items() if key != "parameters"}
    if isinstance(body.get("train"), dict):
        body["train"] = _with_model(body["train"])
    try:
        return Pipeline(parameters=parameters, **body)
    except ValidationError as error:
        raise PipelineError(f"{path}: {_explain(error)}") from error


def _fill(value: Any, parameters: Mapping[str, Any], path: Path) -> Any:
    """Replace ``${name}`` in strings at any depth; one reference alone keeps the parameter's type."""
    if isinstance(value, dict):
        return {key: _fill(item, parameters, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, parameters, path) for item in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise PipelineError(f"{path} uses ${{{name}}}, which is not among its parameters. {hint}")
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return parameters[whole[1]]
    return _REFERENCE.sub(lambda match: str(parameters[match[1]]), value)


def _with_model(train: dict[str, Any]) -> dict[str, Any]:
    """Start from the settings of a ready model, if one is named; keys beside it win."""
    own = dict(train)
    name = own.pop("model", None)
    if name is None:
        return own
    ready = load_yaml(specs.find("models", str(name)) / "model.yaml")
    return {**ready["train"], **own}


def _explain(error: ValidationError) -> str:
    """Say each problem in a sentence, with the nearest key where one is unknown."""
    return " ".join(_problem(problem) for problem in error.errors())


def _problem(problem: Any) -> str:
    """Say one problem in a sentence."""
    where = ".".join(str(part) for part in problem["loc"]) or "file"
    if problem["type"] == "extra_forbidden":
        return f"Unknown key {where!r}. {did_you_mean(problem['loc'][-1], _keys_at(problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"Key {where!r} is missing."
    found = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"Key {where!r}: {message}{found}." if problem["loc"] else f"{message[0].upper()}{message[1:]}."


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    """List the keys that a section accepts."""
    section: type[BaseModel] = Pipeline
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        section = models[0]
    return list(section.model_fields)
