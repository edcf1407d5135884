"""Reductions over the first axis of arrays in which one value means "no data", without float copies."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from cubekit.cube import compiled
from cubekit.typing import Array, BoolArray, IntArray

_PIECE = 2**16  # values per date worked on at once: a stack of dates stays in the processor's cache


def valid_in(values: Array, nodata: float | None) -> BoolArray:
    """Tell which values are data: not `nodata`, and never NaN."""
    if values.dtype.kind == "f":
        valid: BoolArray = ~np.isnan(values)
        if nodata is not None and not np.isnan(nodata):
            valid &= values != values.dtype.type(nodata)
        return valid
    if nodata is None or not fits(nodata, values.dtype):
        return np.ones(values.shape, bool)
    return np.asarray(values != values.dtype.type(nodata))


def fits(nodata: float, dtype: "np.dtype[Any]") -> bool:
    """Tell whether an integer type can hold a number; some files state NaN or -9999 for unsigned bytes."""
    limits = np.iinfo(dtype)
    return bool(limits.min <= nodata <= limits.max) and float(nodata).is_integer()


def reduce_dates(values: Array, how: str, nodata: float | None) -> Array:
    """Reduce the first axis, leaving out values without data.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (time, ...), stored numbers.
    how : {"median", "mean", "min", "max", "first"}
        The median of an even count is the mean of the two middle values. Means of integers are rounded to the
        nearest whole number, halves to the even one.
    nodata : float or None
        Stored number without data.

    Returns
    -------
    numpy.ndarray
        Shape (...), dtype of `values`; `nodata` where there is none. A mean that happens to equal `nodata` is
        moved by one, so that it stays data.
    """
    out = np.empty(values.shape[1:], values.dtype)
    flat, result = values.reshape(len(values), -1), out.reshape(-1)
    if how == "median" and nodata is not None and _is_for_compiler(values, nodata):
        compiled.median(flat, nodata, _beside(nodata, values.dtype), _network(len(values)), result)
        return out
    for start in range(0, result.size, _PIECE):
        piece = slice(start, start + _PIECE)
        result[piece] = _reduce(np.ascontiguousarray(flat[:, piece]), how, nodata)
    return out


def _is_for_compiler(values: Array, nodata: float) -> bool:
    """Tell whether compiled code takes a block: large ones of integers of up to four bytes."""
    short = values.dtype.kind in "ui" and values.dtype.itemsize <= 4  # noqa: PLR2004
    known = short and fits(nodata, values.dtype)
    return known and values.size >= compiled.LEAST and compiled.is_on()


def _reduce(values: Array, how: str, nodata: float | None) -> Array:
    valid = valid_in(values, nodata)
    counts = valid.sum(axis=0)
    result = _REDUCTIONS[how](values, valid, counts)
    if nodata is None:
        return result
    if how in ("median", "mean"):
        result = off_nodata(result, nodata)
    return np.where(counts > 0, result, values.dtype.type(nodata))


def off_nodata(values: Array, nodata: float | None) -> Array:
    """Move computed integers that happen to equal nodata by one, so that they stay data.

    Parameters
    ----------
    values : numpy.ndarray
        Results of averaging or interpolating; floats are returned as they are.
    nodata : float or None
        Stored number without data.

    Returns
    -------
    numpy.ndarray
        Same shape and dtype.
    """
    if nodata is None or values.dtype.kind == "f" or not fits(nodata, values.dtype):
        return values
    beside = values.dtype.type(_beside(nodata, values.dtype))
    return np.where(values == int(nodata), beside, values)


def _beside(nodata: float, dtype: "np.dtype[Any]") -> int:
    """Return the integer that stands in for a computed value equal to nodata."""
    fill = int(nodata)
    return fill - 1 if fill == np.iinfo(dtype).max else fill + 1


def _end(dtype: "np.dtype[Any]", *, high: bool) -> Any:
    if dtype.kind == "f":
        return dtype.type(np.inf if high else -np.inf)
    return np.iinfo(dtype).max if high else np.iinfo(dtype).min


def _median(values: Array, valid: BoolArray, counts: IntArray) -> Array:
    # What is not data goes to the end of the order; ties with data there do not matter, as counts decide.
    stack = np.where(valid, values, _end(values.dtype, high=True))
    for low, high in _network(len(stack)):
        smaller = np.minimum(stack[low], stack[high])
        np.maximum(stack[low], stack[high], out=stack[high])
        stack[low] = smaller
    below = _pick(stack, np.maximum(counts - 1, 0) // 2)
    above = _pick(stack, np.minimum(counts // 2, len(stack) - 1))
    return middle(below, above)


def _pick(stack: Array, index: IntArray) -> Array:
    picked: Array = np.take_along_axis(stack, index[None], axis=0)[0]
    return picked


def middle(one: Array, other: Array) -> Array:
    """Return the mean of two arrays of one dtype; halves of integers go to the even neighbour."""
    if one.dtype.kind == "f":
        return np.asarray(one / 2 + other / 2, one.dtype)
    # Without the sum, which may leave the range of the dtype.
    low = (one & other) + ((one ^ other) >> 1)
    odd = (one ^ other) & 1
    return np.asarray(low + (odd & low), one.dtype)


@lru_cache(maxsize=512)
def _network(size: int) -> tuple[tuple[int, int], ...]:
    """Return the comparisons of Batcher's odd-even merge sort (Knuth, TAOCP 3, algorithm 5.2.2M)."""
    return tuple(_comparisons(size))


def _comparisons(size: int) -> Iterator[tuple[int, int]]:
    top = 1 << max((size - 1).bit_length() - 1, 0)
    p = top if size > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            yield from ((i, i + d) for i in range(size - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


def _mean(values: Array, valid: BoolArray, counts: IntArray) -> Array:
    kind = np.float64 if values.dtype.kind == "f" or values.dtype.itemsize > 4 else np.int64  # noqa: PLR2004
    total = np.where(valid, values, 0).sum(axis=0, dtype=kind)
    mean = total / np.maximum(counts, 1)
    return np.asarray(mean if values.dtype.kind == "f" else np.rint(mean), values.dtype)


def _min(values: Array, valid: BoolArray, counts: IntArray) -> Array:  # noqa: ARG001
    return np.asarray(np.where(valid, values, _end(values.dtype, high=True)).min(axis=0))


def _max(values: Array, valid: BoolArray, counts: IntArray) -> Array:  # noqa: ARG001
    return np.asarray(np.where(valid, values, _end(values.dtype, high=False)).max(axis=0))


def _first(values: Array, valid: BoolArray, counts: IntArray) -> Array:  # noqa: ARG001
    return _pick(values, valid.argmax(axis=0))


_REDUCTIONS: dict[str, Callable[[Array, BoolArray, IntArray], Array]] = {
    "median": _median,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "first": _first,
}

REDUCTIONS = tuple(_REDUCTIONS)
"""Names that :func:`reduce_dates` knows."""
