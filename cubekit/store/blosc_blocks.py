"""Some blocks of a Blosc buffer as a buffer of their own: a strip of a large chunk, not all of it decoded.

A buffer holds its numbers in blocks that are compressed each for itself, and where each of them starts (the
format of C-Blosc 1). So the starts of the wanted blocks, corrected, and their bytes are a buffer that any
Blosc decodes.
"""

from typing import NamedTuple

import numpy as np

from cubekit.typing import Array

_HEAD = 16
_IS_COPY = 2  # bit of the flags: not compressed


class Blocks(NamedTuple):
    """Neighbouring blocks."""

    packed: Array
    """A Blosc buffer of them alone."""

    first: int
    """Bytes of numbers before them, in the whole buffer."""

    size: int
    """Bytes of numbers that they hold."""


def blocks_of(packed: Array, start: int, stop: int) -> Blocks | None:
    """Take out the blocks that hold some bytes of the numbers.

    Parameters
    ----------
    packed : numpy.ndarray
        (n,) uint8 Blosc buffer.
    start, stop : int
        First byte wanted, of the decoded ones, and the one behind the last.

    Returns
    -------
    Blocks or None
        None where the buffer must be decoded whole: it is not compressed, is one block, or is damaged.
    """
    total, block, length = (int(each) for each in packed[4:_HEAD].view("<u4"))
    if packed[2] & _IS_COPY or not 0 < block < total or length > packed.size or not start < stop <= total:
        return None
    count = -(-total // block)
    table = packed[_HEAD : _HEAD + 4 * count]
    if table.size < 4 * count:
        return None
    starts = table.view("<u4").astype("int64")
    # threads that compress put blocks down as they are done, in any order
    order = np.append(np.sort(starts), length)
    ends = order[np.searchsorted(order, starts, side="right")] if starts.max() < length else starts
    if (starts < _HEAD + 4 * count).any() or (ends <= starts).any():
        return None
    last = -(-stop // block)
    first = min(start // block, max(0, last - 2))  # the last block may be short, and is none by itself
    wanted = range(first, last)
    body = [packed[starts[number] : ends[number]] for number in wanted]
    sizes = np.array([len(each) for each in body])
    places = _HEAD + 4 * len(body) + np.append(0, np.cumsum(sizes))
    size = min(last * block, total) - first * block
    head = np.array([size, block, places[-1]], "<u4").view("uint8")
    table = places[:-1].astype("<u4").view("uint8")
    return Blocks(np.concatenate([packed[:4], head, table, *body]), first * block, size)
