"""Composites whose bands all come from one scene: which date gives each pixel, and what that date holds.

Flood (2013), Seasonal composite Landsat TM/ETM+ images using the medoid, Remote Sensing 5,
doi:10.3390/rs5126481; Holben (1986), Characteristics of maximum-value composite images from temporal AVHRR
data, International Journal of Remote Sensing 7, doi:10.1080/01431168608948945.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cubekit.cube.contract import Encoding, encoding_of
from cubekit.cube.indices import computed, index_inputs
from cubekit.cube.kernels import valid_in
from cubekit.errors import CubeError
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

CHOICES = ("earliest", "latest", "least_cloudy", "max_index", "medoid")
"""Ways to choose a date."""

NONE = -1
"""Choice where no date has data."""

CLOUD_COVER = "cloud_cover"
"""Name of the variable (time) that orders dates for ``"least_cloudy"``."""

_PIECE = 2**14  # pixels worked on at once


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """How to choose, with everything that needs; small and picklable."""

    how: str
    """One of :data:`CHOICES`."""

    coding: Encoding
    """Of the cube."""

    index: str = ""
    """Spectral index that is to be as high as possible."""

    inputs: Mapping[str, float | int] | None = None
    """Its band places and constants."""

    cover: tuple[float, ...] = ()
    """Cloud cover of each date; unknown ones come last."""


def make_chooser(cube: xr.Dataset, how: str, index: str) -> Chooser:
    """Look up what a choice needs.

    Parameters
    ----------
    cube : xarray.Dataset
        Cube.
    how : str
        One of :data:`CHOICES`.
    index : str
        Short name of a spectral index; only for ``"max_index"``.

    Returns
    -------
    Chooser
        Record for the block functions.

    Raises
    ------
    CubeError
        When the cube holds no cloud cover of its dates, or no reflectance.
    UnknownNameError
        For an index that is not known, or whose bands the cube lacks.
    """
    coding = encoding_of(cube["data"])
    if how == "max_index":
        return Chooser(how=how, coding=coding, index=index, inputs=index_inputs(cube, [index])[index])
    if how != "least_cloudy":
        return Chooser(how=how, coding=coding)
    if CLOUD_COVER not in cube.variables or cube[CLOUD_COVER].dims != ("time",):
        raise CubeError(
            f"how='least_cloudy' needs a variable {CLOUD_COVER!r} (time), which this cube lacks. Its items "
            "state no eo:cloud_cover; count pixels instead: cube = cube.assign_coords(cloud_cover=1 - "
            "cubekit.valid_share(cube).mean('band'))."
        )
    cover = cube[CLOUD_COVER].to_numpy().astype(float)
    return Chooser(how=how, coding=coding, cover=tuple(np.nan_to_num(cover, nan=np.inf).tolist()))


def choose(values: Array, chooser: Chooser, first: int) -> IntArray:
    """Choose the date of each pixel: one with data in most bands, of these the one that scores highest.

    Parameters
    ----------
    values : numpy.ndarray
        Dates of one period, shape (time, band, y, x).
    chooser : Chooser
        From :func:`make_chooser`.
    first : int
        Place of the first of these dates in the calendar's list of dates.

    Returns
    -------
    numpy.ndarray
        int32, shape (y, x): number of the date, the earlier of equals; :data:`NONE` without data.
    """
    out = np.full(values.shape[2:], NONE, np.int32)
    flat, result = values.reshape(*values.shape[:2], -1), out.reshape(-1)
    for start in range(0, flat.shape[2], _PIECE):
        piece = slice(start, start + _PIECE)
        result[piece] = _choose(flat[:, :, piece], chooser, first)
    return out


def _choose(values: Array, chooser: Chooser, first: int) -> IntArray:
    valid = valid_in(values, chooser.coding.nodata)
    counts = valid.sum(axis=1, dtype=np.int16)
    scores = _scores(values, valid, chooser, first)
    # NaN scores lowest, yet above a date with data in fewer bands.
    scores = np.where(np.isnan(scores), -np.inf, scores)
    scores = np.where(counts == counts.max(axis=0), scores, np.nan)
    best = np.fmax.reduce(scores, axis=0)
    chosen = (scores == best).argmax(axis=0) + first
    return np.where(counts.any(axis=0), chosen, NONE).astype(np.int32)


def _scores(values: Array, valid: BoolArray, chooser: Chooser, first: int) -> FloatArray:
    """Return a score for each date and pixel."""
    shape = (values.shape[0], values.shape[2])
    if chooser.how == "medoid":
        return -_distances(values, valid)
    if chooser.how == "max_index" and chooser.inputs is not None:
        return computed(values, chooser.index, chooser.inputs, chooser.coding)
    if chooser.how == "least_cloudy":
        column = -np.array(chooser.cover[first : first + len(values)])
    else:
        column = np.arange(len(values), dtype=np.float64) * (1 if chooser.how == "latest" else 0)
    return np.broadcast_to(column[:, None], shape)


def _distances(values: Array, valid: BoolArray) -> FloatArray:
    """Return, for each date with data in all bands, the sum of its distances to the others."""
    whole = np.asarray(valid.all(axis=1))
    numbers = np.where(valid, values, 0).astype(np.float64 if values.dtype.itemsize > 2 else np.float32)  # noqa: PLR2004
    total = np.where(whole, 0.0, np.nan)
    for one in range(len(values)):
        for other in range(one):
            apart = ((numbers[one] - numbers[other]) ** 2).sum(axis=0)
            apart = np.sqrt(apart, dtype=np.float64) * (whole[one] & whole[other])
            total[one] += apart
            total[other] += apart
    return total


def take(values: Array, choice: IntArray, first: int, nodata: float | None) -> Array:
    """Pick all bands of each pixel from the date chosen for it.

    Parameters
    ----------
    values : numpy.ndarray
        Dates of one period, shape (time, band, y, x).
    choice : numpy.ndarray
        From :func:`choose`.
    first : int
        As for :func:`choose`.
    nodata : float or None
        Stored number without data.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), dtype of `values`.
    """
    found = choice != NONE
    place = np.where(found, choice - first, 0)
    picked = np.take_along_axis(values, place[None, None], axis=0)[0]
    if nodata is None:
        return np.asarray(picked)
    return np.asarray(np.where(found, picked, values.dtype.type(nodata)))
