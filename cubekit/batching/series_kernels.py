"""Pixels of a block as series: one compiled pass in which no line of memory is fetched twice.

A block lies band by band and date by date, a series pixel by pixel: NumPy walks over one of the two in steps
as long as the block is wide. Without numba, or with ``CUBEKIT_NUMBA=0``, NumPy does the same.
"""

from typing import Any

import numpy as np

from cubekit.cube.compiled import LEAST, compiled, is_on
from cubekit.typing import Array, IntArray

_TILE = 32  # pixels turned at once: their series stay in the processor's first cache
_WORD = 8  # bytes written at once


def put_series(values: Array, rows: IntArray, out: Array) -> None:
    """Write the series of every pixel into its row.

    Parameters
    ----------
    values : numpy.ndarray
        (value, pixel): all bands of all dates.
    rows : numpy.ndarray
        (pixel,) int64 row of each pixel, each once.
    out : numpy.ndarray
        (pixel, value), C-contiguous, same dtype; changed in place.
    """
    size, width = values.dtype.itemsize, out.shape[1] * out.dtype.itemsize
    words = values.size >= LEAST and values.dtype == out.dtype and is_on()
    if words and size in {1, 2, 4} and not width % _WORD and out.flags.c_contiguous:
        bits = np.dtype(f"u{size}")
        shifts = np.arange(0, 64, 8 * size).astype("uint64")
        compiled(_put_words)(values.view(bits), rows, shifts, out.view("uint64"))
    else:
        out[rows] = values.T


def _put_words(values: Array, rows: IntArray, shifts: Any, out: Array) -> None:
    count, words, each = values.shape[1], out.shape[1], len(shifts)
    tile = np.empty((words, _TILE), np.uint64)
    for first in range(0, count, _TILE):
        width = min(_TILE, count - first)
        for word in range(words):
            line = tile[word]
            line[:] = 0
            for part in range(each):
                given, shift = values[word * each + part, first : first + width], shifts[part]
                for j in range(width):
                    line[j] |= np.uint64(given[j]) << shift
        for j in range(width):
            row = out[rows[first + j]]
            for word in range(words):
                row[word] = tile[word, j]
