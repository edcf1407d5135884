"""The door to all streams: what is given decides which one it is."""

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
import xarray as xr

from cubekit.batching.augment import Augmentation
from cubekit.batching.patches import PatchPlan
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.samples import Samples
from cubekit.batching.source import Raster, make_source
from cubekit.batching.stream import BlockStream, check_plans
from cubekit.batching.torch.cubes import CubeStream
from cubekit.batching.torch.samples import SampleStream
from cubekit.cube.contract import check_cube
from cubekit.cube.memory import bytes_of
from cubekit.errors import OptionError, check_kind
from cubekit.labels import ClassTable

Companion = Raster | xr.Dataset | Sequence[Raster | xr.Dataset] | None
"""One raster, one for each cube, or none."""

_SAMPLES, _PATCHES, _PIXELS = 256, 32, 4096  # usual sizes of batches

Cubes = Samples | xr.Dataset | Sequence[xr.Dataset]
"""What can be streamed."""

PlanLike = Plan | int | Literal["pixels"]
"""A plan, the side of square patches, or every pixel."""


@overload
def batches(
    source: Samples,
    plan: None = None,
    *,
    batch: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    augment: Augmentation | None = None,
) -> "SampleStream": ...


@overload
def batches(
    source: xr.Dataset | Sequence[xr.Dataset],
    plan: PlanLike | Sequence[PlanLike] | None = None,
    *,
    batch: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    labels: Companion = None,
    mask: Companion = None,
    aux: Companion = None,
    augment: Augmentation | None = None,
    buffer: int | str = "512MB",
    stored: bool = False,
    fill: float = math.nan,
    device: str | torch.device | None = None,
    workers: int = 0,
) -> "CubeStream": ...


def batches(  # noqa: PLR0913
    source: Cubes,
    plan: PlanLike | Sequence[PlanLike] | None = None,
    *,
    batch: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    labels: Companion = None,
    mask: Companion = None,
    aux: Companion = None,
    augment: Augmentation | None = None,
    buffer: int | str = "512MB",
    stored: bool = False,
    fill: float = math.nan,
    device: str | torch.device | None = None,
    workers: int = 0,
) -> "SampleStream | CubeStream":
    """Stream samples, or patches or pixel series of cubes, as batches of tensors.

    Parameters
    ----------
    source : Samples, xarray.Dataset, or sequence of xarray.Dataset
        Labelled series in memory; or one or several cubes, read chunk by chunk.
    plan : Plan, int or "pixels", or a sequence of them, optional
        What to take of a cube: a :class:`~cubekit.batching.patches.PatchPlan` or
        :class:`~cubekit.batching.pixels.PixelPlan`; a number is the side of square patches on a grid;
        ``"pixels"`` is the series of every pixel. For several cubes one for all, or one for each.
    batch : int, optional
        Samples in a batch, at most. Default: 256 samples, 32 patches, 4096 pixel series.
    shuffle : bool, optional
        Whether every epoch has its own order.
    seed : int, optional
        Seed of the orders, and of the augmentation.
    labels : xarray.Dataset, xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        What :func:`cubekit.load_labels` returns, or (y, x) class index on the cube's grid: ``y`` of the
        batches.
    mask : xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        (time, y, x) bool: False is no data.
    aux : xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        (layer, y, x) or (y, x) ancillary numbers: ``aux`` of the batches.
    augment : Augmentation, optional
        Changes to the batches, for training.
    buffer : int or str, optional
        Bytes that blocks of cubes may take while their samples are mixed, such as ``"2GB"``.
    stored : bool, optional
        Give out stored numbers of cubes as they are: call the stream's ``decode`` where the batch is used.
    fill : float, optional
        What stands in ``x`` of cubes where there is no data: 0, say, for a network that takes no mask.
        Default: NaN.
    device : str or torch.device, optional
        Where batches are put. They travel as stored numbers and are decoded there.
    workers : int, optional
        Worker processes of the stream's own :meth:`CubeStream.loader`. Threads read ahead in any case.

    Returns
    -------
    SampleStream or CubeStream
        Iterate over it, or give it to a ``DataLoader`` with ``batch_size=None``.

    Raises
    ------
    OptionError
        If there is nothing to stream, or arguments do not fit each other.
    CubeError
        If a cube does not keep the contract.

    Examples
    --------
    >>> for each in batches(train, batch=256, shuffle=True):  # doctest: +SKIP
    ...     logits = network(each["x"], mask=each["valid"], doy=each["doy"])
    >>> print(batches(cube, 64, shuffle=True, labels=labels["label"]))  # doctest: +SKIP
    """
    if isinstance(source, Samples):
        if plan is not None or any(each is not None for each in (labels, mask, aux)):
            raise OptionError("Samples carry their labels: plan=, labels=, mask= and aux= are for cubes.")
        size = _SAMPLES if batch is None else batch
        return SampleStream(source, batch=size, shuffle=shuffle, seed=seed, augment=augment)
    if labels is not None and not isinstance(labels, np.ndarray | xr.DataArray):
        given: Any = labels if isinstance(labels, list | tuple) else [labels]
        labels = [each["label"] if isinstance(each, xr.Dataset) else each for each in given]
    cubes: list[Any] = list(source) if isinstance(source, list | tuple) else [source]
    for each in cubes or [None]:
        check_kind(
            "source", each, xr.Dataset, "open a cube with cubekit.open, or split it with cubekit.split"
        )
    plans = [_plan(cube, each) for cube, each in zip(cubes, _one_each("plan", plan, len(cubes)), strict=True)]
    sources = [
        make_source(cube, labels=label, mask=valid, aux=layers)
        for cube, label, valid, layers in zip(
            cubes, *(_one_each(name, given, len(cubes)) for name, given in
            (("labels", labels), ("mask", mask), ("aux", aux))), strict=True
        )
    ]  # fmt: skip
    check_plans(sources, plans)
    size = (_PIXELS if isinstance(plans[0], PixelPlan) else _PATCHES) if batch is None else batch
    if size < 1:
        raise OptionError(f"batch={size!r} must be at least 1.")
    stream = BlockStream(
        sources=sources, plans=plans, batch=size, shuffle=shuffle, seed=seed, buffer=bytes_of(buffer),
        augment=augment,
    )  # fmt: skip
    return CubeStream(
        stream,
        stored=stored,
        device=device,
        workers=workers,
        classes=_classes_of(labels, len(cubes)),
        fill=fill,
    )


def _classes_of(labels: Any, count: int) -> ClassTable | None:
    """Return the classes that labels carry; those of several cubes must be the same."""
    tables = [
        ClassTable.from_attrs(each.attrs)
        for each in _one_each("labels", labels, count)
        if isinstance(each, xr.DataArray) and "classes" in each.attrs
    ]
    if any(table != tables[0] for table in tables):
        raise OptionError("The labels of the cubes have different classes: load them with the same classes=.")
    return tables[0] if tables else None


def _one_each(name: str, given: Any, count: int) -> list[Any]:
    """Return one entry for each cube."""
    if not isinstance(given, list | tuple):
        if name != "plan" and given is not None and count > 1:
            raise OptionError(f"{name}: {count} cubes need a list of {count}.")
        given = [given] * count
    if len(given) != count:
        raise OptionError(f"{name} has {len(given)} entries for {count} cubes.")
    return list(given)


def _plan(cube: xr.Dataset, plan: PlanLike | None) -> Plan:
    """Return the plan that is meant."""
    if plan == "pixels" or isinstance(plan, int):
        check_cube(cube)
        return PatchPlan(cube, plan) if isinstance(plan, int) else PixelPlan(cube)
    if not isinstance(plan, PatchPlan | PixelPlan):
        raise OptionError(
            f"plan is {plan!r}: a cube needs the side of patches such as 64, 'pixels', a PatchPlan or a "
            "PixelPlan; cubekit.split makes labelled series of it."
        )
    if any(plan.ds.sizes[dim] != cube.sizes[dim] for dim in ("y", "x", "time")):
        raise OptionError(f"The plan is for {dict(plan.ds.sizes)}, the cube has {dict(cube.sizes)}.")
    return plan
