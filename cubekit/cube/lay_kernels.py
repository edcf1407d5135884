"""Kernels for numba: a window is read once and a block written once, a row at a time.

They do the float32 arithmetic of :mod:`cubekit.cube.resample` in the same order, so their numbers are equal
to the last bit; where no pixel lacks data the weights of four sum to exactly one, and dividing by that sum is
left out. Loops over a row do one thing each, so that the compiler can make vectors of them: it cannot where
one loop both picks pixels and writes. Arguments are prepared by :mod:`cubekit.cube.lay_numba`, the only
caller; numba finds their types.

Arguments that several kernels share: `values`, the window; `numbers`, which is nodata of the file, what is
added, the least and the greatest number of the type, nodata of the cube, and what data of that number become;
`block`, which is where to write (see :func:`cubekit.cube.lay_numba.lay`).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202, FURB136, PLR0913, PLR0917

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

_READ = np.uint8(1)  # as in status.py
_TRUE, _FOUR, _SEVEN = np.int32(1), np.int32(4), np.int32(7)


def jitted(function: _F) -> _F:
    """Compile on first call; keep the result on disk where a folder can be written."""
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # a check for 0/0 would stop vectors
    try:
        made: Any = numba.njit(cache=True, **how)(function)
    except RuntimeError:  # no folder for the cache, as in a read-only image
        made = numba.njit(**how)(function)
    return made  # type: ignore[no-any-return]


@jitted
def _coded(number, shift, low, high, fill, off):
    """Shift a number, keep it within the type, and, if it was weighed, off nodata."""
    number = np.int32(number + shift)  # each step in 32 bits: numba would go on in 64
    number = low if number < low else number
    number = high if number > high else number
    return off if number == fill else number


@jitted
def settle(line, ok, whole, numbers, weighed, block, y, begin, end):
    """Write part of a row where it has data, nothing has been filled yet and nothing is hidden.

    `line` holds numbers of the file from `begin` on, `ok` which of them are data; `whole` says that all are.
    """
    out, out_step, status, status_step, hidden, hidden_step, fresh, hides = block
    _, shift, low, high, fill, beside = numbers
    off = beside if weighed else fill
    size = end - begin
    line, to = line[:size], out[y * out_step + begin : y * out_step + end]
    if whole and fresh and not hides:
        for x in range(size):
            to[x] = _coded(line[x], shift, low, high, fill, off)
        return
    take = np.empty(size, np.uint8)
    for x in range(size):
        take[x] = whole | ok[x]
    if hides:
        away = hidden[y * hidden_step + begin : y * hidden_step + end]
        for x in range(size):
            take[x] &= not away[x]
    if not fresh:
        state = status[y * status_step + begin : y * status_step + end]
        for x in range(size):
            take[x] &= state[x] != _READ
            state[x] = _READ if take[x] else state[x]
    for x in range(size):
        number = _coded(line[x], shift, low, high, fill, off)
        to[x] = number if take[x] else to[x]


@jitted
def _pick(source, columns, none, line, ok):
    """Take pixels of a row; tell whether all are data."""
    gaps = np.int32(0)
    for x in range(line.size):
        line[x] = source[columns[x]]
    for x in range(line.size):
        ok[x] = line[x] != none
        gaps |= np.int32(line[x] == none)
    return gaps == 0


@jitted
def _copy(source, to):
    for x in range(to.size):
        to[x] = source[x]


@jitted
def nearest_axes(values, places, numbers, block):
    """Take rows and columns of a window; those below zero lie outside."""
    rows, columns, begin, end = places
    run = columns[begin:end].astype(np.uint32)  # no sign, so nothing to wrap round
    size = run.size
    side_by_side = size > 0
    for x in range(1, size):
        side_by_side = side_by_side and run[x] == run[x - 1] + 1
    line, ok, whole = np.empty(size, np.int32), np.empty(size, np.uint8), False
    out, out_step, _, _, _, _, fresh, hides = block
    same = side_by_side and fresh and not hides and numbers[1] == 0 and numbers[0] == numbers[4]
    for y in range(rows.size):
        if rows[y] < 0:
            continue
        source = values[rows[y]]
        if same:  # what means "no data" does so on both sides
            _copy(source[run[0] : run[0] + size], out[y * out_step + begin : y * out_step + end])
            continue
        if y == 0 or rows[y] != rows[y - 1]:
            whole = _pick(source, run, numbers[0], line, ok)
        settle(line, ok, whole, numbers, False, block, y, begin, end)


@jitted
def _weigh_rows(above, below, up, down, none, total, share):
    """Weigh two rows of a window; tell whether any pixel lacks data."""
    gaps = np.int32(0)
    for x in range(total.size):
        a, b = np.int32(above[x]), np.int32(below[x])
        gaps |= np.int32(a == none) | np.int32(b == none)
        total[x] = np.float32(a) * up + np.float32(b) * down
    if gaps:
        for x in range(total.size):
            a, b = np.int32(above[x]), np.int32(below[x])
            wa, wb = np.float32(a != none), np.float32(b != none)
            total[x] = np.float32(a) * wa * up + np.float32(b) * wb * down
            share[x] = wa * up + wb * down
    return gaps != 0


@jitted
def _weigh_columns(row, before, behind, left, right, first, second):
    """Weigh neighbours in a row, into `first`."""
    for x in range(first.size):
        first[x] = row[before[x]]
    for x in range(first.size):
        second[x] = row[behind[x]]
    for x in range(first.size):
        first[x] = first[x] * left[x] + second[x] * right[x]


@jitted
def _blend(above, below, up, down, none, blend):
    """Weigh two rows by quarters; tell whether any pixel lacks data."""
    gaps = np.int32(0)
    for x in range(blend.size):
        a, b = np.int32(above[x]), np.int32(below[x])
        gaps |= np.int32(a == none) | np.int32(b == none)
        blend[x] = np.int32(up * a + down * b)
    return gaps != 0


@jitted
def _sixteenth(number):
    """Divide by 16, rounding halves to even."""
    odd = np.int32(np.int32(number >> _FOUR) & _TRUE)
    return np.int32(np.int32(number + _SEVEN + odd) >> _FOUR)


@jitted
def _halve(blend, line):
    """Weigh neighbours by quarters, two results for each pair."""
    for x in range(line.size // 2):
        a, b = blend[x], blend[x + 1]
        both = np.int32(a + b)
        line[2 * x] = _sixteenth(np.int32(both + a + a))
        line[2 * x + 1] = _sixteenth(np.int32(both + b + b))


@jitted
def _on_rim(blend, before, behind, lefts, rights, line):
    for x in range(line.size):
        left, right = np.int32(4 * lefts[x]), np.int32(4 * rights[x])
        line[x] = _sixteenth(np.int32(left * blend[before[x]] + right * blend[behind[x]]))


@jitted
def _by_quarters(blend, before, behind, lefts, rights, pairs, line):
    """Weigh pixels of a blended row; pairs share their neighbours, the others lie on the rim."""
    start, stop, pixel = pairs
    _on_rim(blend, before[:start], behind[:start], lefts[:start], rights[:start], line[:start])
    _halve(blend[pixel : pixel + (stop - start) // 2 + 1], line[start:stop])
    _on_rim(blend, before[stop:], behind[stop:], lefts[stop:], rights[stop:], line[stop:])


@jitted
def bilinear_axes(values, places, numbers, block):
    """Weigh pixels on parallel axes, rows first, as NumPy does.

    On a grid twice as fine all weights are a quarter or three. Rows without gaps are weighed in whole numbers
    then: sixteenths of 16-bit numbers are exact in float32, so rounding halves to even gives the same.
    """
    near_rows, above, below, ups, downs, near, before, behind, lefts, rights, begin, end, pairs = places
    size, width = end - begin, values.shape[1]
    total, share, blend = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int32)
    first, second, third = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    line, ok = np.empty(size, np.int32), np.empty(size, np.uint8)
    for y in range(near_rows.size):
        if near_rows[y] < 0:
            continue
        upper, lower = values[above[y]], values[below[y]]
        up, down = np.int32(4 * ups[y]), np.int32(4 * downs[y])
        if pairs[1] > 0 and not _blend(upper, lower, up, down, numbers[0], blend):
            _by_quarters(blend, before, behind, lefts, rights, pairs, line)
            settle(line, ok, True, numbers, True, block, y, begin, end)
            continue
        gaps = _weigh_rows(upper, lower, ups[y], downs[y], numbers[0], total, share)
        _weigh_columns(total, before, behind, lefts, rights, first, second)
        if gaps:
            _pick(values[near_rows[y]], near, numbers[0], line, ok)
            _weigh_columns(share, before, behind, lefts, rights, third, second)
            for x in range(size):
                first[x] /= third[x]
        for x in range(size):
            line[x] = np.int32(np.rint(first[x]))
        settle(line, ok, not gaps, numbers, True, block, y, begin, end)
