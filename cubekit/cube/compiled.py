"""Kernels that numba compiles where it is installed: the same results as those of NumPy, sooner.

Nothing is compiled on import, but with the first block; numba keeps the machine code on disk for later
processes.
``CUBEKIT_NUMBA=0`` in the environment switches all of them off.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from math import sqrt
from typing import Any

import numpy as np

from cubekit.typing import Array, FloatArray, IntArray

LEAST = 2**18
"""Values of a block below which loading the compiler costs more than it saves."""

_WIDTH = 1024  # pixels sorted at once: a stack of dates stays in the processor's first cache


def is_on() -> bool:
    """Tell whether compiled code is to be used: not without numba, and not with ``CUBEKIT_NUMBA=0``."""
    return os.environ.get("CUBEKIT_NUMBA", "1") != "0" and _is_installed()


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    return find_spec("numba") is not None


@lru_cache(maxsize=16)
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a kernel on its first call, kept on disk where a folder can be written.

    Parameters
    ----------
    function : callable
        Plain loops over arrays; no Python object is touched, so other threads go on meanwhile.

    Returns
    -------
    callable
        The same, compiled.
    """
    from numba import njit

    try:
        done: Callable[..., None] = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep machine code in: compiled anew in each process
        done = njit(nogil=True)(function)
    return done


def median(values: Array, fill: Any, beside: Any, network: tuple[tuple[int, int], ...], out: Array) -> None:
    """Write the median over dates of integers, leaving out one value.

    Parameters
    ----------
    values : numpy.ndarray
        Integers, shape (time, pixel).
    fill : int
        Value without data.
    beside : int
        What a median becomes that happens to equal `fill`.
    network : tuple of pairs
        Comparisons that sort as many values as there are dates.
    out : numpy.ndarray
        Shape (pixel,), dtype of `values`; changed in place.
    """
    kind = values.dtype.type
    pairs = np.array(network, np.int64).reshape(-1, 2)
    compiled(_median)(values, kind(fill), kind(np.iinfo(kind).max), kind(beside), pairs, out)


def _median(  # noqa: PLR0917
    values: Array, fill: Any, top: Any, beside: Any, pairs: IntArray, out: Array
) -> None:
    dates, pixels = values.shape
    stack = np.empty((dates, _WIDTH), values.dtype)
    counts = np.empty(_WIDTH, np.int32)
    for start in range(0, pixels, _WIDTH):
        width = min(_WIDTH, pixels - start)
        counts[:width] = 0
        for date in range(dates):
            given, row = values[date, start : start + width], stack[date]
            for j in range(width):
                valid = given[j] != fill
                row[j] = given[j] if valid else top
                counts[j] += valid
        for pair in range(pairs.shape[0]):
            low, high = stack[pairs[pair, 0]], stack[pairs[pair, 1]]
            for j in range(width):  # plain loops over rows, which become vector instructions
                one, other = low[j], high[j]
                low[j] = min(one, other)
                high[j] = max(one, other)
        for j in range(width):
            count = counts[j]
            if count == 0:
                out[start + j] = fill
                continue
            # By unsigned numbers: signed ones are asked each time whether they count from the end.
            one, other = stack[np.uint64((count - 1) >> 1), j], stack[np.uint64(count >> 1), j]
            # Without the sum, which may leave the range of the type; halves go to the even neighbour.
            floor = (one & other) + ((one ^ other) >> 1)
            value = floor + ((one ^ other) & 1 & floor)
            out[start + j] = beside if value == fill else value


def geomedian(values: FloatArray, tolerance: float, steps: int, out: FloatArray) -> None:
    """Write the geometric median of each pixel; see :mod:`cubekit.cube.geomedian`.

    Parameters
    ----------
    values : numpy.ndarray
        float32, shape (time, band, pixel); dates with NaN are left out.
    tolerance : float
        Of the last step, as a share of the mean distance to the observations.
    steps : int
        Most iterations.
    out : numpy.ndarray
        float64, shape (band, pixel), NaN where there is no date; changed in place.
    """
    compiled(_geomedian)(values, tolerance, steps, out)


def _geomedian(  # noqa: C901, PLR0912
    values: FloatArray, tolerance: float, steps: int, out: FloatArray
) -> None:
    dates, bands, pixels = values.shape
    seen = np.empty((dates, bands), np.float64)
    here, target = np.empty(bands, np.float64), np.empty(bands, np.float64)
    for pixel in range(pixels):
        count = 0
        for date in range(dates):
            whole = True
            for band in range(bands):
                value = values[date, band, pixel]
                seen[count, band] = value
                whole = whole and value == value  # noqa: PLR0124  (not NaN)
            count += whole
        for band in range(bands):
            here[band] = np.nan
            if count > 0:
                here[band] = seen[:count, band].mean()
        for _ in range(steps if count > 2 else 0):  # noqa: PLR2004  (of two the mean is a geometric median)
            target[:] = 0.0
            weights, distances, pull, at = 0.0, 0.0, 0.0, 0
            for date in range(count):
                squares = 0.0
                for band in range(bands):
                    squares += (seen[date, band] - here[band]) ** 2
                if squares == 0.0:
                    at += 1
                    continue
                distance = sqrt(squares)
                distances += distance
                weights += 1 / distance
                for band in range(bands):
                    target[band] += seen[date, band] / distance
            if weights == 0.0:
                break
            for band in range(bands):
                target[band] /= weights
                pull += (target[band] - here[band]) ** 2
            pull = sqrt(pull)
            # Vardi and Zhang: at an observation, only what pulls harder than it holds moves the point.
            move = 0.0 if pull == 0.0 else max(0.0, 1 - at / (pull * weights))
            for band in range(bands):
                here[band] += move * (target[band] - here[band])
            if move * pull <= tolerance * distances / count:
                break
        for band in range(bands):
            out[band, pixel] = here[band]
