"""Kernels for numba: loops that read a window once and write a block once.

They do the float32 arithmetic of :mod:`cubekit.cube.resample` in the same order, so their numbers are equal
to the last bit. Arguments are prepared by :mod:`cubekit.cube.fast`, the only caller; numba finds the types.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202, D103, PLR0913, PLR0917

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

_SNAP = 1e-6  # as in resample.py
_READ = 1  # as in status.py
_ONE = np.float32(1)


def _compiled(function: _F) -> _F:
    """Compile on first call; keep the result on disk where a folder can be written."""
    try:
        made: Any = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache, as in a read-only image
        made = numba.njit(nogil=True)(function)
    return made  # type: ignore[no-any-return]


@_compiled
def _put(value, numbers, y, x, out, status, weighed):
    """Write one number: shifted, kept within the type, and, if weighed, off nodata."""
    number = min(max(value + numbers[1], numbers[2]), numbers[3])
    if weighed and number == numbers[4]:
        number = number - 1 if number == numbers[3] else number + 1
    out[y, x] = number
    status[y, x] = _READ


@_compiled
def nearest_axes(values, places, numbers, hidden, hides, out, status):
    rows, cols = places
    for y in range(out.shape[0]):
        if rows[y] < 0:
            continue
        line = values[rows[y]]
        for x in range(out.shape[1]):
            if cols[x] < 0 or status[y, x] == _READ or (hides and hidden[y, x]):
                continue
            value = np.int64(line[cols[x]])
            if value != numbers[0]:
                _put(value, numbers, y, x, out, status, False)


@_compiled
def _weigh(values, numbers, r0, r1, c0, c1, up, down, left, right):
    """Weigh four pixels, those without data left out; rows first, as NumPy does."""
    a, b, c, d = (
        np.int64(values[r0, c0]), np.int64(values[r0, c1]), np.int64(values[r1, c0]), np.int64(values[r1, c1])
    )  # fmt: skip
    none, zero = numbers[0], np.float32(0)
    wa, wb = zero if a == none else _ONE, zero if b == none else _ONE
    wc, wd = zero if c == none else _ONE, zero if d == none else _ONE
    total = (np.float32(a) * wa * up + np.float32(c) * wc * down) * left
    total += (np.float32(b) * wb * up + np.float32(d) * wd * down) * right
    share = (wa * up + wc * down) * left + (wb * up + wd * down) * right
    return np.int64(np.rint(total / share))


@_compiled
def bilinear_axes(values, places, numbers, hidden, hides, out, status):
    near_rows, near_cols, above, below, ups, downs, before, behind, lefts, rights = places
    for y in range(out.shape[0]):
        if near_rows[y] < 0:
            continue
        near, r0, r1, up, down = values[near_rows[y]], above[y], below[y], ups[y], downs[y]
        for x in range(out.shape[1]):
            if near_cols[x] < 0 or status[y, x] == _READ or (hides and hidden[y, x]):
                continue
            if np.int64(near[near_cols[x]]) == numbers[0]:
                continue
            value = _weigh(values, numbers, r0, r1, before[x], behind[x], up, down, lefts[x], rights[x])
            _put(value, numbers, y, x, out, status, True)


@_compiled
def _near(place, start, size):
    """Return the pixel of a window that a place falls into, -1 for none."""
    if not np.isfinite(place):
        return -1
    index = np.int64(np.floor(place + _SNAP))
    stop = start + size
    if index == stop and stop - 1 < place < stop + _SNAP:
        index = stop - 1
    return index - start if start <= index < stop else -1


@_compiled
def nearest(values, places, numbers, hidden, hides, out, status):
    rows, cols, top, left = places
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if status[y, x] == _READ or (hides and hidden[y, x]):
                continue
            row = _near(rows[y, x], top, values.shape[0])
            col = _near(cols[y, x], left, values.shape[1])
            if row < 0 or col < 0:
                continue
            value = np.int64(values[row, col])
            if value != numbers[0]:
                _put(value, numbers, y, x, out, status, False)


@_compiled
def bilinear(values, places, numbers, hidden, hides, out, status):
    rows, cols, top, left = places
    height, width = values.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if status[y, x] == _READ or (hides and hidden[y, x]):
                continue
            row, col = _near(rows[y, x], top, height), _near(cols[y, x], left, width)
            if row < 0 or col < 0 or np.int64(values[row, col]) == numbers[0]:
                continue
            down_at, right_at = rows[y, x] - 0.5 - top, cols[y, x] - 0.5 - left
            r = min(max(np.floor(down_at), -1.0), height - 1.0)
            c = min(max(np.floor(right_at), -1.0), width - 1.0)
            down, right = np.float32(down_at - r), np.float32(right_at - c)
            r0, c0 = max(np.int64(r), 0), max(np.int64(c), 0)
            r1, c1 = min(np.int64(r) + 1, height - 1), min(np.int64(c) + 1, width - 1)
            value = _weigh(values, numbers, r0, r1, c0, c1, _ONE - down, down, _ONE - right, right)
            _put(value, numbers, y, x, out, status, True)
