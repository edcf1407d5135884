"""Which parts of a cube are read at once, so that each chunk is decoded once however patches lie."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from cubekit.typing import BoolArray, IntArray

_AMPLIFICATION = 1.1  # chunks decoded, per chunk that holds anything wanted
_HELD = 4  # blocks that must fit into the buffer, where blocks can be made smaller


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """Where the chunks of a variable lie, and what they weigh."""

    rows: IntArray
    """First row of each chunk, and the number of rows."""

    columns: IntArray
    """First column of each chunk, and the number of columns."""

    pixel_bytes: int
    """Bytes of all that lies at one pixel: every date and band."""

    layers: int = 1
    """Chunks that lie above each other, along time and band."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Windows to read, each once, and which of them every item is cut from.

    Where items lie across chunks, blocks go down strips of the image: a block takes over the last rows of the
    block above instead of reading them again. Such blocks make up a run, and are read in order.
    """

    window: IntArray
    """(block, 4) int64: first and last-but-one row and column that a block holds."""

    fresh: IntArray
    """(block,) int64: row from which it is read; rows above come from the block before."""

    run: IntArray
    """(block,) int64: blocks of one run follow each other."""

    item: IntArray
    """(n,) int64: the block of every item."""

    decoded: int
    """Chunks decoded in one pass over all blocks."""

    touched: int
    """Chunks that hold anything wanted."""

    block_bytes: int
    """Bytes of the largest block."""

    split: int
    """Pieces that a chunk is cut into because it is too large to be held; 1 where it is not."""

    @property
    def amplification(self) -> float:
        """Chunks decoded, per chunk that holds anything wanted."""
        return self.decoded / max(1, self.touched)


def plan_blocks(rows: IntArray, columns: IntArray, chunks: Chunks, *, budget: int) -> Blocks:
    """Choose what to read at once.

    Parameters
    ----------
    rows, columns : numpy.ndarray
        (n, 2) bounds of the items.
    chunks : Chunks
        Where the chunks lie.
    budget : int
        Bytes that all blocks held may take.

    Returns
    -------
    Blocks
        Row by row; where items lie across rows of chunks, down strips from left to right.
    """
    split, down, across = _cut(chunks, budget)
    top, bottom, left = _place(rows[:, 0], down), _place(rows[:, 1] - 1, down), _place(columns[:, 0], across)
    right = _place(columns[:, 1] - 1, across)
    reach_y, reach_x = int((bottom - top).max(initial=0)), int((right - left).max(initial=0))
    heavy = int(np.diff(down).max()) * int(np.diff(across).max()) * chunks.pixel_bytes
    width, length = _strip(reach_y, reach_x, len(down) - 1, len(across) - 1, room=budget // _HELD // heavy)

    strip = left // width
    # an item belongs to the block in whose last rows it ends, so that the rows above are known by then
    if reach_y:
        key, item = np.unique(strip * len(down) + bottom, return_inverse=True)
        strip_of, row_of = np.divmod(key, len(down))
    else:
        key, item = np.unique(bottom * len(across) + strip, return_inverse=True)
        row_of, strip_of = np.divmod(key, len(across))
    run = _runs(strip_of, row_of, length if reach_y else 1)
    first_row = _least(rows[:, 0], item, len(key))
    last_row = down[row_of + 1].astype("int64")
    first_row, fresh = _carried(first_row, last_row, run)
    window = np.stack(
        [
            first_row,
            last_row,
            _least(columns[:, 0], run[item], len(key))[run],  # as wide as its run, so that rows fit together
            -_least(-columns[:, 1], run[item], len(key))[run],
        ],
        axis=1,
    )
    return Blocks(
        window=window,
        fresh=fresh,
        run=run,
        item=item,
        decoded=_decoded(window, fresh, chunks),
        touched=_touched(rows, columns, chunks),
        block_bytes=int(((window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])).max(initial=0))
        * chunks.pixel_bytes,
        split=split,
    )


def _cut(chunks: Chunks, budget: int) -> tuple[int, IntArray, IntArray]:
    """Return borders to plan by: those of the chunks, or finer where one chunk exceeds the budget."""
    split, rows, columns = 1, chunks.rows, chunks.columns
    while int(np.diff(rows).max()) * int(np.diff(columns).max()) * chunks.pixel_bytes > budget:
        if max(np.diff(rows).max(), np.diff(columns).max()) == 1:
            break
        if np.diff(rows).max() >= np.diff(columns).max():
            rows = _halved(rows)
        else:
            columns = _halved(columns)
        split *= 2
    if split == 1:
        return split, rows, columns
    while int(np.diff(rows).max()) * int(np.diff(columns).max()) * chunks.pixel_bytes > budget // _HELD:
        if np.diff(rows).max() == 1:
            break
        rows, split = _halved(rows), split * 2
    return split, rows, columns


def _halved(borders: IntArray) -> IntArray:
    """Return borders with one more in the middle of each part."""
    return np.unique(np.concatenate([borders, (borders[1:] + borders[:-1]) // 2]))


def _place(position: IntArray, borders: IntArray) -> IntArray:
    """Return in which part positions lie."""
    return np.searchsorted(borders, position, side="right") - 1


def _strip(reach_y: int, reach_x: int, rows: int, columns: int, *, room: int) -> tuple[int, int]:
    """Return how many chunks a strip is wide, and how many blocks a run is long."""
    if not reach_x:
        width = 1
    elif columns <= room:
        width = columns
    else:
        # a strip reads `reach_x` columns of its neighbour too; half of what may be lost is lost here
        enough = ceil(reach_x / ((_AMPLIFICATION - 1) / 2))
        width = min(columns, max(1, min(enough, room - reach_x)))
    lost = 1 + (reach_x / width if width < columns else 0)
    left = max(_AMPLIFICATION / lost - 1, 1e-9)
    return width, min(rows, ceil(reach_y / left)) if reach_y else 1


def _runs(strip: IntArray, row: IntArray, length: int) -> IntArray:
    """Return the run of each block, which ends with its strip, at a gap, and when it is long enough."""
    broken = np.ones(len(strip), bool)
    broken[1:] = (strip[1:] != strip[:-1]) | (row[1:] != row[:-1] + 1)
    start = np.maximum.accumulate(np.where(broken, np.arange(len(strip)), 0))
    broken |= (np.arange(len(strip)) - start) % length == 0
    return np.cumsum(broken) - 1


def _least(values: IntArray, group: IntArray, count: int) -> IntArray:
    """Return the least value of each group."""
    least = np.full(count, np.iinfo("int64").max)
    np.minimum.at(least, group, values)
    return least


def _carried(first: IntArray, last: IntArray, run: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first row that each block holds, and that it reads: none needs more than the one before."""
    first = first.copy()
    follows = np.zeros(len(run), bool)
    follows[1:] = run[1:] == run[:-1]
    for block in range(len(run) - 2, -1, -1):
        if follows[block + 1]:
            first[block] = min(first[block], first[block + 1])
    fresh = first.copy()
    fresh[1:] = np.where(follows[1:], np.maximum(first[1:], last[:-1]), first[1:])
    return first, fresh


def _decoded(window: IntArray, fresh: IntArray, chunks: Chunks) -> int:
    """Count the chunks that reading all blocks decodes."""
    down = _place(window[:, 1] - 1, chunks.rows) - _place(fresh, chunks.rows) + 1
    across = _place(window[:, 3] - 1, chunks.columns) - _place(window[:, 2], chunks.columns) + 1
    return int((down * across).sum()) * chunks.layers


def _touched(rows: IntArray, columns: IntArray, chunks: Chunks) -> int:
    """Count the chunks that hold part of an item: marks at the corners, summed up."""
    marks = np.zeros((len(chunks.rows) + 1, len(chunks.columns) + 1), "int64")
    top, bottom = _place(rows[:, 0], chunks.rows), _place(rows[:, 1] - 1, chunks.rows) + 1
    left, right = _place(columns[:, 0], chunks.columns), _place(columns[:, 1] - 1, chunks.columns) + 1
    for down, across, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        np.add.at(marks, (down, across), sign)
    covered: BoolArray = marks.cumsum(0).cumsum(1) > 0
    return int(covered.sum()) * chunks.layers
