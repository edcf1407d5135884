"""The geometric median: the spectrum with the least sum of distances to those observed, all bands together.

Vardi and Zhang (2000), The multivariate L1-median and associated data depth, PNAS 97,
doi:10.1073/pnas.97.4.1423; Roberts et al. (2017), High-dimensional pixel composites from Earth observation
time series, IEEE TGRS 55, doi:10.1109/TGRS.2017.2723896.

The package geomad starts each pixel from its neighbour's result, so what it gives depends, within its
tolerance, on how an image is cut into blocks. Here each pixel starts from its own mean.
"""

import numpy as np

from cubekit.cube import compiled
from cubekit.cube.kernels import off_nodata, valid_in
from cubekit.typing import Array, BoolArray, FloatArray

TOLERANCE = 1e-4
"""Where iteration ends: length of a step as a share of the mean distance to the observations."""

STEPS = 500
"""Most iterations of a pixel."""

_PIECE = 2**12  # pixels worked on at once


def geomedian(values: Array, nodata: float | None) -> Array:
    """Return the geometric median over dates, all bands of a pixel together.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (time, band, ...), stored numbers. Only dates with data in all bands count.
    nodata : float or None
        Stored number without data.

    Returns
    -------
    numpy.ndarray
        Shape (band, ...), dtype of `values`; integers are rounded; `nodata` in all bands where no date has
        data in all of them.
    """
    bands, kind = values.shape[1], np.promote_types(values.dtype, np.float32)
    out = np.empty(values.shape[1:], values.dtype)
    flat, result = values.reshape(*values.shape[:2], -1), out.reshape(bands, -1)
    for start in range(0, flat.shape[2], _PIECE):
        piece = slice(start, start + _PIECE)
        part = flat[:, :, piece]
        whole = np.asarray(valid_in(part, nodata).all(axis=1))
        found = _geomedian(np.where(whole[:, None], part, np.nan).astype(kind), whole)
        if values.dtype.kind in "ui":
            found = np.rint(found)
        empty = ~whole.any(axis=0)
        with np.errstate(invalid="ignore"):  # NaN of empty pixels
            coded = off_nodata(np.where(empty, 0, found).astype(values.dtype), nodata)
        fill = np.nan if nodata is None else nodata
        result[:, piece] = np.where(empty, values.dtype.type(fill if empty.any() else 0), coded)
    return out


def _geomedian(values: FloatArray, whole: BoolArray) -> FloatArray:
    if compiled.is_on():
        out = np.empty(values.shape[1:], np.float64)
        compiled.geomedian(values, TOLERANCE, STEPS, out)
        return out
    return _in_numpy(np.nan_to_num(values).astype(np.float64), whole)


def _in_numpy(values: FloatArray, whole: BoolArray) -> FloatArray:
    """Iterate over all pixels at once, leaving out those that have arrived."""
    count = whole.sum(axis=0)
    here: FloatArray = values.sum(axis=0) / np.maximum(count, 1)
    going = np.flatnonzero(count > 2)  # noqa: PLR2004  (of two the mean is a geometric median)
    for _ in range(STEPS):
        if going.size == 0:
            break
        step, done = _step(values[:, :, going], whole[:, going], here[:, going])
        here[:, going] += step
        going = going[~done]
    return here


def _step(values: FloatArray, whole: BoolArray, here: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return one step of Vardi and Zhang, and where it is short enough to end."""
    distance = np.sqrt(((values - here) ** 2).sum(axis=1))
    apart = whole & (distance > 0)
    weight = np.divide(1.0, distance, out=np.zeros_like(distance), where=apart)
    total = weight.sum(axis=0)
    mean = (values * weight[:, None]).sum(axis=0) / np.where(total > 0, total, 1.0)
    pull = np.where(total > 0, mean - here, 0.0)
    length = np.sqrt((pull**2).sum(axis=0))
    at = (whole & (distance == 0)).sum(axis=0)
    strength = length * total
    # At an observation, only what pulls harder than it holds moves the point.
    held = np.divide(at, strength, out=np.ones_like(strength), where=strength > 0)
    move = np.maximum(0.0, 1 - held)
    near = move * length <= TOLERANCE * (distance * whole).sum(axis=0) / np.maximum(whole.sum(axis=0), 1)
    return pull * move, np.asarray(near)
