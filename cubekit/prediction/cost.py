"""What a prediction takes, counted before it begins: tiles, reads, memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import xarray as xr
from dask.system import CPU_COUNT

from cubekit.cube.contract import DIMS, MAIN
from cubekit.cube.memory import PROCESS_BYTES
from cubekit.prediction.rule import BATCH, PROBE, STRIP, Rule
from cubekit.store.view import stored_view

_TORCH = 450_000_000
"""Torch, loaded and at work, beside the rest of the process."""

_SPARE = 1.2  # work space of convolutions, and what an allocator keeps
_SERIES = 24  # float copies of a batch while gaps are filled, in bytes a value


@dataclass(frozen=True, kw_only=True)
class PredictionCost:
    """What a run takes; ``print`` says it."""

    tiles: int
    """Tasks."""

    side: tuple[int, int]
    """Rows and columns of the largest tile."""

    margin: int
    """Pixels read around a window."""

    blended: bool
    """Whether windows overlap and are averaged."""

    megapixels: float
    """Pixels of the scene."""

    forward: float
    """Pixels that the network computes for each pixel of the scene: more than 1 because of margins."""

    task: int
    """Bytes that one task takes at most: stored numbers, a window as floats, the network's layers."""

    memory: int
    """Bytes that this process takes at most, with as many workers as asked for; of any scene."""

    def __str__(self) -> str:
        around = f"windows overlap by {self.margin} px" if self.blended else f"margin {self.margin} px"
        return (
            f"{self.megapixels:,.1f} Mpx in {self.tiles} tiles of {self.side[0]} x {self.side[1]} px, "
            f"{around}; the network computes {self.forward:.2f} x the pixels; "
            f"up to {self.task / 1e9:.2f} GB a task, {self.memory / 1e9:.2f} GB in all"
        )


def cost_of(
    cube: xr.Dataset, chunks: Sequence[tuple[int, ...]], rule: Rule, *, workers: int | None = None
) -> PredictionCost:
    """Count what a prediction takes.

    Parameters
    ----------
    cube : xarray.Dataset
        The model's bands of a cube; nothing is computed.
    chunks : sequence of tuple of int
        Rows and columns of the tiles.
    rule : Rule
        Models, layers and windows.
    workers : int, optional
        Threads of this process. Default: one for each core.

    Returns
    -------
    PredictionCost
        From shapes, and one run of the network over a small window.
    """
    data = cube[MAIN]
    count = workers or CPU_COUNT
    values = data.sizes["time"] * data.sizes["band"]
    side = max(chunks[0]), max(chunks[1])
    sizes = data.sizes["y"], data.sizes["x"]
    window, read = _extents(rule, side, sizes)
    stored = held = prod(read) * values * data.dtype.itemsize
    if not data.chunks or stored_view(data.transpose(*DIMS).data) is None:  # whole blocks are held
        blocks = [max(data.chunksizes.get(dim, (1,))) for dim in ("y", "x")]
        around = [extent + block for extent, block in zip(read, blocks, strict=True)]
        held = prod(around) * values * data.dtype.itemsize
    packed = prod(side) * rule.planes * np.dtype(rule.dtype).itemsize
    task = stored + _computing(rule, values, (data.sizes["time"], data.sizes["band"]), window) + 3 * packed
    # Threads share what is read; a region more than there are threads waits with its blocks and is written.
    memory = PROCESS_BYTES + _TORCH + count * task + (count + 1) * (held + 3 * packed)
    return PredictionCost(
        tiles=len(chunks[0]) * len(chunks[1]),
        side=side,
        margin=0 if rule.windows is None else rule.windows.margin,
        blended=rule.windows is not None and rule.windows.blended,
        megapixels=prod(sizes) / 1e6,
        forward=_forward_share(rule, chunks, sizes),
        task=ceil(task),
        memory=ceil(memory),
    )


def _extents(
    rule: Rule, side: tuple[int, int], sizes: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the sides of a window, and of all that a tile reads."""
    windows = rule.windows
    if windows is None:
        return (1, BATCH), side
    length = windows.step + windows.margin * (1 if windows.blended else 2)
    return (
        (min(length, sizes[0]), min(length, sizes[1])),
        (min(side[0] + 2 * windows.margin, sizes[0]), min(side[1] + 2 * windows.margin, sizes[1])),
    )


def _computing(rule: Rule, values: int, lead: tuple[int, int], window: tuple[int, int]) -> float:
    """Count the bytes of one window, or one batch of series, on its way through the network."""
    pixels = prod(window)
    if rule.windows is None:
        return pixels * values * _SERIES * _SPARE
    side = ceil(PROBE / rule.windows.multiple) * rule.windows.multiple
    ancillary = len(rule.codings) > 1  # such networks are not run on their own
    layers = 0.0 if ancillary else rule.forward().layer_bytes(lead, side)
    decoded = (
        values * 4 * (1 if rule.forward().takes_stored else 2)
    )  # floats; before and after gaps are filled
    return _SPARE * (pixels * (decoded + layers) + min(pixels, STRIP) * values * _SERIES)


def _forward_share(rule: Rule, chunks: Sequence[tuple[int, ...]], sizes: tuple[int, int]) -> float:
    """Count the pixels of all windows of the scene, per pixel of the scene; rows and columns alike."""
    windows = rule.windows
    if windows is None:
        return 1.0
    share = 1.0
    for lengths, size in zip(chunks, sizes, strict=True):
        ends = np.cumsum(lengths).tolist()
        total = sum(
            span.read.stop - span.read.start
            for start, stop in zip([0, *ends[:-1]], ends, strict=True)
            for span in windows.spans(start, stop, size)
        )
        share *= total / size
    return share
