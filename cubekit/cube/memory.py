"""How much memory one block of a lazy cube takes on its way through the graph, from shapes alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from dask.blockwise import Blockwise
from dask.utils import parse_bytes

from cubekit.cube.ahead import AHEAD_BYTES
from cubekit.cube.blocks import Chunks, working_bytes
from cubekit.cube.direct import Direct
from cubekit.cube.plan import MISSING, Plan
from cubekit.cube.reader import MAX_WINDOW
from cubekit.cube.reads import scale_of
from cubekit.cube.remote import CACHE_BYTES, is_remote
from cubekit.errors import OptionError

PROCESS_BYTES = 260_000_000
"""An interpreter with xarray, Dask, GDAL, PROJ and Zarr loaded and at work."""

# Bytes beside the block for each of its pixels while one band is read, by what has to be done.
_PLACED = 4  # masks, and what is picked
_RECODED = 20  # stored numbers as int64 or float64, while they are shifted or decoded
_REPROJECTED = 48  # rows, columns and their whole numbers, a pair for each pixel
_WEIGHED = 28  # sums and weights of kernels

_PARTS = ("values", "status", "composite", "observations")  # of pairs, taken out of them: nothing new


@dataclass(frozen=True, kw_only=True)
class BlockMemory:
    """What one block takes, in bytes."""

    working: int
    """In the heaviest step: its input blocks, what the function holds while it works, its result."""

    step: str
    """Name of that step."""

    written: int
    """While the result is written: as numbers, and encoded."""


def bytes_of(memory: int | str) -> int:
    """Read a memory budget.

    Parameters
    ----------
    memory : int or str
        Bytes, or text such as ``"8GB"``.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    OptionError
        If it is neither.
    """
    try:
        return int(parse_bytes(memory))
    except (ValueError, TypeError) as error:
        raise OptionError(
            f"memory={memory!r} is not accepted: write bytes, or text such as '8GB'."
        ) from error


def block_memory(graph: Any, readers: Mapping[str, Plan | Direct], final: Iterable[str]) -> BlockMemory:
    """Find the step of a graph in which one block takes the most memory.

    Parameters
    ----------
    graph : dask.highlevelgraph.HighLevelGraph
        Of the whole computation.
    readers : mapping
        Name of each layer that reads files, and what it goes by.
    final : iterable of str
        Names of the layers whose blocks are the result.

    Returns
    -------
    BlockMemory
        Of the largest blocks.
    """
    held: dict[str, int] = {}
    for name, layer in graph.layers.items():
        if name.rsplit("-", 1)[0] in _PARTS:
            continue
        step = "reading" if name in readers else name.rsplit("-", 1)[0].strip("_")
        sources = [graph.layers[other] for other in graph.dependencies[name]]
        working = reading_bytes(readers[name]) if name in readers else _working(name, layer, sources)
        held[step] = max(held.get(step, 0), working + _bytes(layer))
    heaviest = max(held, key=lambda step: held[step])
    written = 2 * sum(_bytes(graph.layers[name]) for name in final)
    return BlockMemory(working=held[heaviest], step=heaviest, written=written)


def _working(name: str, layer: Any, sources: list[Any]) -> int:
    """Count the input blocks of a step, and what its function holds beside them."""
    inputs = sum(map(_bytes, sources))
    if not isinstance(layer, Blockwise):  # rechunking: parts of many blocks, or of one
        return max(inputs, _bytes(layer))
    if not sources:
        return 0
    largest = max(sources, key=_bytes)
    return inputs + working_bytes(name.rsplit("-", 1)[0], _shape(largest), _dtype(largest).itemsize)


def reading_bytes(reader: Plan | Direct) -> int:
    """Count what reading holds beside the block itself.

    Parameters
    ----------
    reader : Plan or Direct
        Of a cube, or of a composite that is made while its scenes are read.

    Returns
    -------
    int
        Bytes: for the largest block, one window of the heaviest asset as NumPy holds it and, decoded, as kept
        tiles or GDAL's cache hold it, the arrays by which it is placed, recoded or resampled, and those that
        tell what became of each pixel.
    """
    plan = reader if isinstance(reader, Plan) else reader.reading
    rows, cols = max(plan.chunks[2]), max(plan.chunks[3])
    heaviest = 0.0
    for layer in range(plan.form_of.shape[1]):
        for number in np.unique(plan.form_of[:, layer]):
            if number != MISSING:
                heaviest = max(heaviest, _reading(plan, int(number), layer, (rows, cols)))
    if isinstance(reader, Plan):
        dates = max(plan.chunks[0]) if plan.on_error == "record" else 1
        each = len(plan.bands) * dates + 1  # what became of each pixel, and which are masked
    else:
        each = _reducing(reader)
    ahead = (AHEAD_BYTES + CACHE_BYTES // 2) * any(is_remote(href) for row in plan.hrefs[:1] for href in row)
    return ceil(heaviest) + rows * cols * each + ahead


def _reducing(direct: Direct) -> int:
    """Count bytes for each pixel: one band of a period, its masks, which are data, and how many are."""
    plan, longest = direct.reading, direct.longest
    size = np.dtype(plan.encoding.dtype).itemsize
    masks = longest * int(np.bincount(plan.time_of).max()) if plan.mask is not None else 0
    return longest * (size + 3) + masks + size + 1 + 2 * max(map(len, direct.groups))


def _reading(plan: Plan, number: int, layer: int, shape: tuple[int, int]) -> float:
    form = plan.forms[number]
    size = np.dtype(form.dtype).itemsize
    scale = scale_of(plan, form.geobox)
    sides = [min(n * s, full) for n, s, full in zip(shape, scale, form.geobox.shape.yx, strict=True)]
    window = min(prod(sides), MAX_WINDOW) * (2 * size + 1)  # decoded, as an array, and what is data
    placing, recoding = _REPROJECTED * (form.geobox.crs != plan.grid.crs), 0
    if layer < len(plan.bands):
        floats = np.dtype(plan.encoding.dtype).kind == "f"
        recoding = _RECODED * bool(floats or plan.shifts[:, layer].any())
        placing += _WEIGHED * (plan.resampling[layer] != "nearest")
    # Recoding begins when placing has ended.
    return window + prod(shape) * (_PLACED + size + max(placing, recoding))


def chunks_of(layer: Any) -> Chunks | None:
    """Return the block sizes that Dask notes on a layer.

    Parameters
    ----------
    layer : dask layer
        Of a high-level graph.

    Returns
    -------
    tuple or None
        Sizes along each dimension; None for layers that are no arrays.
    """
    noted = layer.collection_annotations or {}
    return noted.get("chunks")


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in chunks_of(layer) or ((0,),))


def _dtype(layer: Any) -> "np.dtype[Any]":
    noted: np.dtype[Any] = np.dtype((layer.collection_annotations or {}).get("dtype", "uint8"))
    return noted


def _bytes(layer: Any) -> int:
    return prod(_shape(layer)) * _dtype(layer).itemsize
