"""Tiles of a scene with a model that looks around: one Dask task per tile, which reads a margin too."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, prod
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

from cubekit.errors import PredictionError
from cubekit.prediction.block import empty_planes, observed, packed_of, physical_series
from cubekit.prediction.rule import Rule
from cubekit.prediction.shipping import torch_threads
from cubekit.prediction.windows import Tile, Windows, predict_tile
from cubekit.store.view import StoredView, stored_view
from cubekit.typing import Array, BoolArray, FloatArray

_READ_BYTES = 16 << 20  # decoded by one task, about: several threads read one large window


@dataclass(frozen=True)
class Order:
    """One tile, and where in the scene the pieces that it is handed lie."""

    tile: Tile
    where: tuple[int, int]
    rows: slice
    columns: slice
    origins: tuple[tuple[tuple[int, ...], ...], ...]
    """For each source, the first index of each piece along each of its dimensions."""
    threads: int = 1
    """Of torch: more than one where the scene has fewer windows than this process has workers."""


def predict_patches(pieces: Sequence[Sequence[Array]], order: Order, rule: Rule) -> Array:
    """Predict one tile.

    Parameters
    ----------
    pieces : sequence of sequence of numpy.ndarray
        For each source (the cube's numbers ``(time, band, y, x)``, then ancillary ones ``(…, y, x)``) the
        blocks of it that the tile needs.
    order : Order
        Which tile, and where the pieces lie.
    rule : Rule
        Models, codings, layers and windows.

    Returns
    -------
    numpy.ndarray
        ``(plane, y, x)``; nodata where no value of the pixel is data or the model gave nothing finite.

    Raises
    ------
    PredictionError
        If the model fails or returns another shape; names the tile.
    """
    sources = [_assembled(part, origins, order) for part, origins in zip(pieces, order.origins, strict=True)]
    seen = observed(sources[0], rule.codings[0])
    rows, columns = order.tile.rows, order.tile.columns
    shape = (rows[1] - rows[0], columns[1] - columns[0])
    inside = (
        slice(rows[0] - order.rows.start, rows[1] - order.rows.start),
        slice(columns[0] - order.columns.start, columns[1] - order.columns.start),
    )
    reader = _Reader(sources, seen, order, rule)
    try:
        with torch_threads(order.threads):
            values = predict_tile(rule.forward(), reader, reader.windows, order.tile)
        if values is not None and len(values) not in {rule.count, 2 * rule.count}:
            raise PredictionError(f"the model returned {len(values)} values a pixel, expected {rule.count}")  # noqa: TRY301
    except Exception as error:
        raise PredictionError(
            f"Block {order.where}, rows {rows[0]}:{rows[1]}, columns {columns[0]}:{columns[1]}, could not be "
            f"predicted: {type(error).__name__}: {error}"
        ) from error
    if values is None:
        return empty_planes(rule, shape[0] * shape[1]).reshape(-1, *shape)
    values[:, ~seen[inside]] = np.nan
    return packed_of(values.reshape(len(values), -1), rule).reshape(-1, *shape)


class _Reader:
    """Gives the windows of a tile as the models take them; None for windows without anything to predict."""

    def __init__(self, sources: list[Array], seen: BoolArray, order: Order, rule: Rule) -> None:
        if rule.windows is None:
            raise PredictionError("the rule has no windows")
        self.windows: Windows = rule.windows
        self._sources, self._seen, self._order, self._rule = sources, seen, order, rule

    def __call__(self, rows: slice, columns: slice) -> list[FloatArray] | None:
        down = slice(rows.start - self._order.rows.start, rows.stop - self._order.rows.start)
        across = slice(columns.start - self._order.columns.start, columns.stop - self._order.columns.start)
        if not self._seen[down, across].any():
            return None
        cut = [source[..., down, across] for source in self._sources]
        kept = cut[:1] if self._rule.forward().takes_stored else []
        rest = zip(cut[len(kept) :], self._rule.codings[len(kept) :], strict=True)
        return [*kept, *(physical_series(values, coding)[0] for values, coding in rest)]


def _assembled(pieces: Sequence[Array], origins: tuple[tuple[int, ...], ...], order: Order) -> Array:
    """Put the parts of the pieces that a tile needs side by side."""
    if len(pieces) == 1 and pieces[0].shape[-2:] == _size(order):
        return pieces[0]
    lead = tuple(
        max(origin[axis] + piece.shape[axis] for piece, origin in zip(pieces, origins, strict=True))
        for axis in range(pieces[0].ndim - 2)
    )
    whole = np.empty((*lead, *_size(order)), pieces[0].dtype)
    for piece, origin in zip(pieces, origins, strict=True):
        target: list[slice] = []
        source: list[Any] = [Ellipsis]
        for axis, wanted in ((-2, order.rows), (-1, order.columns)):
            first = max(wanted.start, origin[axis])
            last = min(wanted.stop, origin[axis] + piece.shape[axis])
            target.append(slice(first - wanted.start, last - wanted.start))
            source.append(slice(first - origin[axis], last - origin[axis]))
        front = tuple(
            slice(begin, begin + count) for begin, count in zip(origin[:-2], piece.shape[:-2], strict=True)
        )
        whole[(*front, *target)] = piece[tuple(source)]
    return whole


def _size(order: Order) -> tuple[int, int]:
    return order.rows.stop - order.rows.start, order.columns.stop - order.columns.start


def patch_tiles(sources: list[da.Array], side: int, rule: Rule, *, workers: int | None = None) -> da.Array:
    """Return all layers of a scene as one lazy array.

    Parameters
    ----------
    sources : list of dask.array.Array
        The cube's numbers ``(time, band, y, x)``, then ancillary ones ``(…, y, x)``, on one grid.
    side : int
        Pixels a side of a tile, a multiple of the windows' step.
    rule : Rule
        With windows.
    workers : int, optional
        Tasks at a time; where the scene has fewer windows, so many more threads compute one. This changes
        the last bits. Default: one for each core.

    Returns
    -------
    dask.array.Array
        ``(plane, y, x)``, a chunk a tile. Each task depends on the blocks around its tile and on no other;
        what lies in a store is read from it as far as the tile needs it.

    Raises
    ------
    PredictionError
        If the rule has no windows.
    """
    windows = rule.windows
    if windows is None:
        raise PredictionError("the rule has no windows")
    height, width = sources[0].shape[-2:]
    spans = [[(first, min(first + side, size)) for first in range(0, size, side)] for size in (height, width)]
    name = "predict-" + tokenize([source.name for source in sources], side, rule)
    givers = [_Giver(source, f"{name}-read-{number}") for number, source in enumerate(sources)]
    count = ceil(height / windows.step) * ceil(width / windows.step)
    threads = max(1, (workers or CPU_COUNT) // count)
    layer: dict[Any, Any] = {}
    for (i, rows), (j, columns) in product(enumerate(spans[0]), enumerate(spans[1])):
        down, across = windows.needed(*rows, height), windows.needed(*columns, width)
        found = [giver.give(layer, (i, j), down, across, together=threads > 1) for giver in givers]
        keys, origins = zip(*found, strict=True)
        tile = Tile(rows, columns, (height, width))
        order = Order(tile, (i, j), down, across, tuple(origins), threads)
        layer[name, 0, i, j] = (predict_patches, list(keys), order, rule)
    lazy = [giver.source for giver in givers if giver.view is None]
    graph = HighLevelGraph.from_collections(name, layer, dependencies=lazy)  # type: ignore[arg-type]
    chunks = ((rule.planes,), *(tuple(last - first for first, last in axis) for axis in spans))
    return da.Array(graph, name, chunks, dtype=rule.dtype)  # type: ignore[no-untyped-call]


class _Giver:
    """Gives tiles the parts of a source that they need: its blocks, or windows of the store behind it."""

    def __init__(self, source: da.Array, name: str) -> None:
        self.source, self.view, self._name = source, stored_view(source), name

    def give(
        self,
        layer: dict[Any, Any],
        where: tuple[int, int],
        rows: slice,
        columns: slice,
        *,
        together: bool,
    ) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
        """Return keys and first indices of pieces; add the tasks that read them, where there are none yet.

        Where windows are few, several threads read a window together, piece by piece, which are then copied.
        """
        if self.view is None:
            return _pieces(self.source, rows, columns)
        whole = (*(slice(0, size) for size in self.view.shape[:-2]), rows, columns)
        reads = _reads(self.view, rows, columns) if together else [whole]
        keys = [(self._name, *where, number) for number in range(len(reads))]
        layer |= {key: (operator.getitem, self.view, part) for key, part in zip(keys, reads, strict=True)}
        return keys, tuple(tuple(part.start for part in window) for window in reads)


def _reads(view: StoredView, rows: slice, columns: slice) -> list[tuple[slice, ...]]:
    """Cut a window of a store into parts that are worth a task, where the store's own chunks end."""
    side, first = view.sides[0], view.origin[0]
    row = view.dtype.itemsize * prod(view.shape[:-2]) * (columns.stop - columns.start)
    step = side * ceil(_READ_BYTES / (row * side))
    inside = range((rows.start + first) // step * step + step - first, rows.stop, step)
    ends = [rows.start, *inside, rows.stop]
    lead = [slice(0, size) for size in view.shape[:-2]]
    return [(*lead, slice(*part), columns) for part in pairwise(ends)]


def _pieces(source: da.Array, rows: slice, columns: slice) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
    """Return keys and first indices of the blocks of an array that a window touches."""
    axes = []
    for axis, lengths in enumerate(source.chunks):
        ends = np.cumsum(lengths).tolist()
        starts = [0, *ends[:-1]]
        wanted = {source.ndim - 2: rows, source.ndim - 1: columns}.get(axis, slice(0, ends[-1]))
        axes.append(
            [
                (number, first)
                for number, (first, last) in enumerate(zip(starts, ends, strict=True))
                if first < wanted.stop and last > wanted.start
            ]
        )
    boxes = list(product(*axes))
    keys = [(source.name, *(number for number, _ in box)) for box in boxes]
    return keys, tuple(tuple(first for _, first in box) for box in boxes)
