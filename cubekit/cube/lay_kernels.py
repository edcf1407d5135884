"""Kernels for numba: loops that read a window once and write a block once.

They do the float32 arithmetic of :mod:`cubekit.cube.resample` in the same order, so their numbers are equal
to the last bit. Arguments are prepared by :mod:`cubekit.cube.lay_numba`, the only caller; numba finds their
types.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202, D103, PLR0913, PLR0917, PLR2004  (a half is 8 sixteenths)

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
def _copied(line, numbers, out, status):
    """Copy neighbouring pixels at once where all have data and none has been filled; tell whether done."""
    none = numbers[0]
    taken = 0
    for x in range(out.size):
        taken += (np.int64(line[x]) == none) | (status[x] == _READ)
    if taken:
        return False
    for x in range(out.size):
        out[x] = line[x]
        status[x] = _READ
    return True


@_compiled
def nearest_axes(values, places, numbers, hidden, hides, out, status):
    rows, cols = places
    width = out.shape[1]
    side_by_side = not hides and numbers[1] == 0 and cols[0] >= 0 and cols[-1] == cols[0] + width - 1
    for x in range(1, width):
        side_by_side = side_by_side and cols[x] == cols[x - 1] + 1
    for y in range(out.shape[0]):
        if rows[y] < 0:
            continue
        line = values[rows[y]]
        if side_by_side and _copied(line[cols[0] : cols[0] + width], numbers, out[y], status[y]):
            continue
        for x in range(width):
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
def _row(values, places, numbers, hidden, hides, y, out, status):
    """Fill one row, weighing pixel by pixel."""
    near_rows, near_cols, above, below, ups, downs, before, behind, lefts, rights = places
    near, r0, r1, up, down = values[near_rows[y]], above[y], below[y], ups[y], downs[y]
    for x in range(out.shape[1]):
        if near_cols[x] < 0 or status[y, x] == _READ or (hides and hidden[y, x]):
            continue
        if np.int64(near[near_cols[x]]) == numbers[0]:
            continue
        value = _weigh(values, numbers, r0, r1, before[x], behind[x], up, down, lefts[x], rights[x])
        _put(value, numbers, y, x, out, status, True)


@_compiled
def bilinear_axes(values, places, numbers, hidden, hides, out, status):
    for y in range(out.shape[0]):
        if places[0][y] >= 0:
            _row(values, places, numbers, hidden, hides, y, out, status)


@_compiled
def _blend(above, below, up, down, none, blend):
    """Weigh two rows by quarters; tell whether one of them lacks data anywhere."""
    gaps = 0
    for column in range(blend.size):
        a, b = np.int32(above[column]), np.int32(below[column])
        gaps += (a == none) | (b == none)
        blend[column] = up * a + down * b
    return gaps > 0


@_compiled
def bilinear_quarters(values, places, numbers, hidden, hides, out, status):
    """As `bilinear_axes` where all weights are a quarter or three: in whole numbers, a row at a time.

    Sixteenths of 16-bit numbers are exact in float32, so rounding halves to even gives the same.
    """
    near_rows, near_cols, above, below, ups, downs, before, behind, lefts, rights = places
    none = np.int32(numbers[0]) if numbers[0] > -(1 << 31) else np.int32(-(1 << 31))
    fill = np.int32(numbers[4]) if numbers[4] > -(1 << 31) else np.int32(-(1 << 31))
    shift, low, high = np.int32(numbers[1]), np.int32(numbers[2]), np.int32(numbers[3])
    off = np.int32(fill - 1) if fill == high else np.int32(fill + 1)
    left, right = (4 * lefts).astype(np.int32), (4 * rights).astype(np.int32)
    start, end = before.astype(np.uint32), behind.astype(np.uint32)  # no sign, so nothing to wrap round
    inside = np.flatnonzero(near_cols >= 0)
    first, stop = (inside[0], inside[-1] + 1) if inside.size else (0, 0)
    blend, line = np.empty(values.shape[1], np.int32), np.empty(out.shape[1], np.int32)
    for y in range(out.shape[0]):
        if near_rows[y] < 0:
            continue
        up, down = np.int32(4 * ups[y]), np.int32(4 * downs[y])
        if _blend(values[above[y]], values[below[y]], up, down, none, blend):
            _row(values, places, numbers, hidden, hides, y, out, status)
            continue
        for x in range(line.size):
            line[x] = left[x] * blend[start[x]] + right[x] * blend[end[x]]
        for x in range(line.size):
            number, rest = line[x] >> 4, line[x] & 15
            number += np.int32(rest > 8) + (np.int32(rest == 8) & number)
            number = min(max(number + shift, low), high)
            line[x] = off if number == fill else number
        for x in range(first, stop):
            if status[y, x] != _READ and not (hides and hidden[y, x]):
                out[y, x] = line[x]
                status[y, x] = _READ


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
def _bilinear_between(values, fields, numbers, hidden, hides, y, begin, end, out, status):
    """Fill part of a row, wherever its pixels lie."""
    rows, cols, top, left = fields
    height, width = values.shape
    for x in range(begin, end):
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


@_compiled
def bilinear(values, fields, numbers, hidden, hides, out, status):
    for y in range(out.shape[0]):
        _bilinear_between(values, fields, numbers, hidden, hides, y, 0, out.shape[1], out, status)


@_compiled
def spots(rows, cols, top, left, height, width):
    """Return the first of the four pixels around each place, the shares of the others, and each row's run.

    Pixels are counted through the window. A run is where places have four pixels: from its first to its last.
    """
    first = np.empty(rows.shape, np.int32)
    downs, rights = np.empty(rows.shape, np.float32), np.empty(rows.shape, np.float32)
    begins, ends = np.zeros(rows.shape[0], np.int64), np.zeros(rows.shape[0], np.int64)
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            down_at, right_at = rows[y, x] - 0.5 - top, cols[y, x] - 0.5 - left
            r, c = np.floor(down_at), np.floor(right_at)
            inside = (r >= 0) & (c >= 0) & (r < height - 1) & (c < width - 1)  # not for NaN
            first[y, x] = np.int32(r) * width + np.int32(c) if inside else -1
            downs[y, x] = np.float32(down_at - r)
            rights[y, x] = np.float32(right_at - c)
        begin = 0
        while begin < rows.shape[1] and first[y, begin] < 0:
            begin += 1
        end = begin
        while end < rows.shape[1] and first[y, end] >= 0:
            end += 1
        begins[y], ends[y] = begin, end
    return first, downs, rights, begins, ends


@_compiled
def _weigh_run(flat, width, first, downs, rights, none, line):
    """Weigh four pixels for each place of a run, in the order of `_weigh`; count missing ones."""
    gaps = 0
    for x in range(line.size):
        at = np.uint32(first[x])
        a, b = np.int32(flat[at]), np.int32(flat[at + np.uint32(1)])
        c, d = np.int32(flat[at + width]), np.int32(flat[at + width + np.uint32(1)])
        gaps += (a == none) | (b == none) | (c == none) | (d == none)
        down, right = downs[x], rights[x]
        up, left = _ONE - down, _ONE - right
        total = (np.float32(a) * up + np.float32(c) * down) * left
        total += (np.float32(b) * up + np.float32(d) * down) * right
        share = (up + down) * left + (up + down) * right
        line[x] = np.int32(np.rint(total / share))
    return gaps


@_compiled
def bilinear_spots(values, places, numbers, hidden, hides, out, status):
    """As `bilinear`; runs without gaps are weighed at once."""
    fields, (first, downs, rights, begins, ends) = places
    flat, width = values.reshape(-1), np.uint32(values.shape[1])
    none = np.int32(numbers[0]) if numbers[0] > -(1 << 31) else np.int32(-(1 << 31))
    line = np.empty(out.shape[1], np.int32)
    for y in range(out.shape[0]):
        begin, end = begins[y], ends[y]
        run = line[begin:end]
        if _weigh_run(flat, width, first[y, begin:end], downs[y, begin:end], rights[y, begin:end], none, run):
            end = begin
        for x in range(begin, end):
            if status[y, x] != _READ and not (hides and hidden[y, x]):
                _put(np.int64(line[x]), numbers, y, x, out, status, True)
        _bilinear_between(values, fields, numbers, hidden, hides, y, 0, begin, out, status)
        _bilinear_between(values, fields, numbers, hidden, hides, y, end, out.shape[1], out, status)
