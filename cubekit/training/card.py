"""Everything known about a trained model except its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from cubekit.batching.normalise import Normalisation
from cubekit.cube.contract import Encoding
from cubekit.errors import BundleError
from cubekit.labels import ClassTable
from cubekit.nn.registry import Form, Task
from cubekit.typing import Array, BBox

CONTRACT = (
    "network",
    "arguments",
    "task",
    "form",
    "bands",
    "times",
    "encoding",
    "normalisation",
    "ancillary",
    "classes",
    "temperature",
    "resolution",
    "crs",
)
"""Fields that decide what the weights mean; they also travel inside the weights file."""


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """Which samples a model has seen."""

    digest: str
    """Digest of the training samples."""

    train: int
    """Number of training samples used."""

    valid: int
    """Number of validation samples used."""

    dropped: int
    """Samples of both that were left out because a band was never observed."""

    train_counts: tuple[int, ...]
    """Training samples of each class."""

    extent: BBox | None
    """West, south, east, north of the training samples in degrees."""

    split: str | None = None
    """Digest of the split that the samples come from; None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model was trained on, how, and what it expects."""

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    network: str
    """Name in the registry; for a network that is not registered, the import path of its class."""

    arguments: Mapping[str, Any] | None
    """Arguments to build it with; None for a network that is not registered."""

    task: Task
    """Kind of problem."""

    form: Form = "series"
    """Shape of a sample: series, patches or image."""

    bands: tuple[str, ...]
    """Band names, in the order the network takes them."""

    times: tuple[str, ...]
    """Dates of the training series, ISO 8601."""

    encoding: Encoding
    """Coding of the numbers the samples came from."""

    normalisation: Normalisation
    """Scaling of physical values, fitted on the training samples."""

    classes: ClassTable
    """Names, colours and codes, in the order of the outputs; empty for tasks without classes."""

    ancillary: Normalisation | None = None
    """Names, order and scaling of the ancillary variables; None where the network takes none."""

    temperature: float = 1.0
    """What logits are divided by, fitted on validation samples so that probabilities are honest."""

    crs: str | None
    """Coordinate reference system of the training samples."""

    resolution: float | None
    """Pixel size of the training data, in CRS units."""

    halo: int | None = None
    """Largest distance in pixels at which an input changes an output: 0 for series, None where not known."""

    parameters: int
    """Number of weights."""

    data: DataRecord
    """The samples."""

    pictures: tuple[str, ...] = ()
    """PNG files beside the card that it shows."""

    settings: Mapping[str, Any]
    """Epochs, batch size, learning rate, seed and the like."""

    metrics: Mapping[str, float]
    """Losses and scores of the epoch whose weights were kept."""

    history: tuple[Mapping[str, float], ...]
    """Losses and scores of each epoch."""

    versions: Mapping[str, str]
    """Versions of the libraries used."""

    created: str
    """When training ended, ISO 8601, UTC."""

    def dates(self) -> Array:
        """Return the training dates.

        Returns
        -------
        numpy.ndarray
            ``(t,)`` datetime64[ns].
        """
        return np.array(self.times, dtype="datetime64[ns]")

    def to_dict(self) -> dict[str, Any]:
        """Return the card as what JSON can hold.

        Returns
        -------
        dict
            One key a field; NaN and infinity as strings.
        """
        record: dict[str, Any] = json.loads(_ADAPTER.dump_json(self))
        return record

    def contract(self) -> dict[str, str]:
        """Return the fields that decide what the weights mean, each as canonical JSON.

        Returns
        -------
        dict
            Field name to JSON text.
        """
        record = self.to_dict()
        # ancillary variables came later: a model without them says nothing of them
        said = [name for name in CONTRACT if name != "ancillary" or record[name] is not None]
        return {name: json.dumps(record[name], sort_keys=True) for name in said}

    @classmethod
    def from_dict(cls, record: object) -> "ModelCard":
        """Read a card.

        Parameters
        ----------
        record : object
            What :meth:`to_dict` gave, after JSON.

        Returns
        -------
        ModelCard
            The same card.

        Raises
        ------
        BundleError
            If a field is missing, unknown or of another type; all of them are named.
        """
        try:
            return _ADAPTER.validate_python(record)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'card'}: {item['msg']}" for item in error.errors()
            )
            raise BundleError(f"The record of the model is damaged: {wrong}. Save the model anew.") from error


_ADAPTER = TypeAdapter(ModelCard)


RULES: Mapping[Task, str] = {
    "classify": "Bands are chosen by name. Gaps are filled in time; a series without any value in a band "
    "gets no class.",
    "fractions": "Bands and ancillary variables are chosen by name. Gaps are filled; a series without any "
    "value in a band gets no shares, or without any at all where the network is told what was observed.",
    "forecast": "Gaps are filled in time; a pixel that was never observed gets no value.",
    "fuse": "Coarse images lie on the fine grid; images have no gaps.",
}
"""What is done with inputs, in words."""


def _caption(name: str) -> str:
    """Turn a file name into words."""
    return name.removesuffix(".png").replace("_", " ").replace("-", " ")


def _calibrated(card: ModelCard) -> str:
    """Say what was done to the probabilities."""
    if card.task != "classify":
        return ""
    if card.temperature == 1:
        return "Probabilities are not calibrated.\n"
    return f"Probabilities are calibrated on them: logits are divided by {card.temperature:.3g}.\n"


def _ancillary(card: ModelCard) -> str:
    """Return the row that names the ancillary variables."""
    return "" if card.ancillary is None else f"\n| ancillary, by name | {', '.join(card.ancillary.bands)} |"


def _digests(data: DataRecord) -> str:
    """Say by which digests samples and split can be told."""
    return f"Digest `{data.digest}`." + ("" if data.split is None else f" Split `{data.split}`.")


def describe_card(card: ModelCard) -> str:
    """Write a card as a page of Markdown.

    Parameters
    ----------
    card : ModelCard
        Facts of the model.

    Returns
    -------
    str
        What it is, what it expects, what it learned from, how well it did, and its limits.
    """
    data = card.data
    classes = "\n".join(
        f"| {code} | {name} | {colour} | {count} |"
        for code, name, colour, count in zip(
            card.classes.codes, card.classes.names, card.classes.colours, data.train_counts, strict=True
        )
    )
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in card.metrics.items())
    settings = ", ".join(f"{name} {value}" for name, value in card.settings.items())
    goal = f"{len(card.classes)} classes" if len(card.classes) else card.task
    size = f"{goal} from {len(card.bands)} bands" + (f", {len(card.times)} dates" if card.times else "")
    steps = (
        f"{len(card.times)} steps, {card.times[0][:10]} to {card.times[-1][:10]}" if card.times else "none"
    )
    legend = f"""## Classes

| code | name | colour | training samples |
|---|---|---|---|
{classes}

"""
    extent = "not known" if data.extent is None else ", ".join(f"{edge:.5f}" for edge in data.extent)
    pictures = "".join(f"\n![{_caption(name)}]({name})\n" for name in card.pictures)
    return f"""# {card.network}: {size}
{pictures}
Task `{card.task}` on {card.form}, {card.parameters:,} weights, trained {card.created}.

## Expects

| | |
|---|---|
| bands, in order | {", ".join(card.bands)} |{_ancillary(card)}
| dates | {steps} |
| pixel size | {card.resolution if card.resolution is not None else "not known"} |
| values | stored as {card.encoding.dtype}, times {card.encoding.scale:g}, plus {card.encoding.offset:g} |

{RULES[card.task]}

{legend if card.classes.names else ""}## Learned from

{data.train} training and {data.valid} validation samples ({data.dropped} left out: a band without any value).
Extent (west, south, east, north): {extent}. CRS {card.crs or "not known"}. {_digests(data)}

Settings: {settings}.

## Scores of the epoch that was kept

| | |
|---|---|
{metrics}

Validation samples chose this epoch, so these scores flatter: judge the model by samples it has not seen.
{_calibrated(card)}
## Limits

The scores hold for places, dates and sensors like those of the training samples. Prediction refuses a cube
with other bands, steps, dates of the year, coding or pixel size.
"""
