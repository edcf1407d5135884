"""A model as a STAC item with the machine-learning-model extension (https://github.com/stac-extensions/mlm)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
from pystac.extensions.classification import Classification
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import (
    AssetDetailedMLMExtension,
    Hyperparameters,
    InputStructure,
    MLMExtension,
    ModelBand,
    ModelInput,
    ModelOutput,
    ProcessingExpression,
    ResultStructure,
    TaskType,
)
from pystac.extensions.raster import DataType

from cubekit.nn.registry import Task
from cubekit.training.card import ModelCard

SHA256_MULTIHASH = "1220"
"""Prefix of a SHA-256 digest of 32 bytes in a multihash, as ``file:checksum`` asks."""

TASKS: Mapping[Task, TaskType] = {
    "classify": TaskType.CLASSIFICATION,
    "fractions": TaskType.REGRESSION,
    "forecast": TaskType.REGRESSION,
    "fuse": TaskType.SUPER_RESOLUTION,
}
"""Words of the extension for our tasks."""

CARD = "cubekit:card"
"""Property of the item that holds the :class:`~cubekit.training.card.ModelCard`."""


def to_item(card: ModelCard, *, weights: str, sha256: str, size: int) -> dict[str, Any]:
    """Describe a saved model as a STAC item.

    Parameters
    ----------
    card : ModelCard
        Facts of the model.
    weights : str
        File name of the weights, beside the item.
    sha256 : str
        Digest of that file, hexadecimal.
    size : int
        Its size in bytes.

    Returns
    -------
    dict
        The item as JSON; its properties hold the card as well.
    """
    first, last = _span(card)
    item = pystac.Item(
        id=_plain(f"{card.network}-{sha256[:12]}"),
        geometry=_footprint(card),
        bbox=None if card.data.extent is None else list(card.data.extent),
        datetime=None,
        start_datetime=first,
        end_datetime=last,
        properties={
            "created": card.created,
            "bands": [{"name": name} for name in card.bands],
            CARD: card.to_dict(),
        },
    )
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=_plain(f"cubekit-{card.network}"),
        architecture=card.network,
        tasks=[TASKS[card.task]],
        input=[_input(card)],
        output=[_output(card)],
        framework="PyTorch",
        framework_version=card.versions.get("torch"),
        total_parameters=card.parameters,
        hyperparameters=Hyperparameters.create(**card.settings),
    )
    asset = pystac.Asset(
        href=weights,
        title="Weights",
        media_type="application/vnd.safetensors",
        roles=["mlm:model", "mlm:weights"],
    )
    item.add_asset("weights", asset)
    AssetDetailedMLMExtension.ext(asset, add_if_missing=True).artifact_type = "safetensors"
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=SHA256_MULTIHASH + sha256, size=size)
    record: dict[str, Any] = item.to_dict(include_self_link=False)
    return record


def _span(card: ModelCard) -> tuple[datetime, datetime]:
    """Return first and last date; for images without dates, when the model was made."""
    dates = card.dates()
    if not len(dates):
        made = datetime.fromisoformat(card.created)
        return made, made
    return _utc(dates[0]), _utc(dates[-1])


def _input(card: ModelCard) -> ModelInput:
    """Describe what the network is fed with."""
    steps, bands = len(card.times), len(card.bands)
    series = [-1, steps, bands], ["batch", "time", "bands"]
    shape, names = {
        "series": series,
        "patches": ([*series[0], -1, -1], [*series[1], "height", "width"]),
        "image": ([-1, bands, -1, -1], ["batch", "bands", "height", "width"]),
    }[card.form]
    return ModelInput.create(
        name=card.form,
        bands=[ModelBand.create(name) for name in card.bands],
        input=InputStructure.create(shape=shape, dim_order=names, data_type=DataType.FLOAT32),
        description="Physical values; gaps filled in time, then scaled band by band."
        if card.form != "image"
        else "Reflectance: coarse image of either date and fine image of the first, three such arrays.",
        pre_processing_function=ProcessingExpression.create("python", "cubekit.tasks.series:SeriesInput")
        if card.form != "image"
        else None,
    )


def _output(card: ModelCard) -> ModelOutput:
    """Describe what comes out."""
    table, space = card.classes, [] if card.form == "series" else ["height", "width"]
    middle = {"fuse": ["bands"], "forecast": []}.get(card.task, ["classes"])
    sizes = {"bands": len(card.bands), "classes": len(table.names)}
    return ModelOutput.create(
        name={"classify": "probabilities", "fractions": "fractions"}.get(card.task, "predicted"),
        tasks=[TASKS[card.task]],
        result=ResultStructure.create(
            shape=[-1, *(sizes[name] for name in middle), *(-1 for _ in space)],
            dim_order=["batch", *middle, *space],
            data_type=DataType.FLOAT32,
        ),
        classes=[
            Classification.create(
                value=code, name=_plain(name), title=name, color_hint=colour.lstrip("#").upper()
            )
            for code, name, colour in zip(table.codes, table.names, table.colours, strict=True)
        ]
        or None,
    )


def _footprint(card: ModelCard) -> dict[str, Any] | None:
    """Return the extent of the training samples as a GeoJSON polygon."""
    if card.data.extent is None:
        return None
    west, south, east, north = card.data.extent
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _plain(text: str) -> str:
    """Replace what the extensions do not allow in names."""
    return re.sub(r"[^0-9A-Za-z-]+", "-", text).strip("-") or "unnamed"


def _utc(time: np.datetime64) -> datetime:
    """Turn a NumPy date into an aware one."""
    return datetime.fromtimestamp(float(time.astype("datetime64[s]").astype(np.int64)), tz=UTC)
