"""Does a cube fit a model? Every difference is found before a pixel is read."""

from typing import Literal

import numpy as np
import xarray as xr

from cubekit.catalog import find_bands
from cubekit.cube.contract import MAIN, Encoding, check_cube, encoding_of, geobox_of
from cubekit.errors import did_you_mean
from cubekit.training.card import ModelCard
from cubekit.typing import Array

PIXEL_TOLERANCE = 0.01
"""Pixel sizes may differ by this share: real scenes round theirs."""

LEAST_DAYS = 2.0
"""Dates may differ by this much at least: leap years move them by one day, time zones by another."""


def differences(card: ModelCard, cube: xr.Dataset) -> list[str]:
    """List what keeps a model from being used on a cube.

    Parameters
    ----------
    card : ModelCard
        What the model expects.
    cube : xarray.Dataset
        A cube; nothing is computed.

    Returns
    -------
    list of str
        One sentence a difference; empty when the cube fits.

    Raises
    ------
    CubeError
        If the dataset is no cube.
    """
    check_cube(cube)
    return [
        *_bands(card, cube),
        *date_differences(card, cube["time"].values),
        *_coding(card.encoding, encoding_of(cube[MAIN])),
        *_pixels(card, cube),
    ]


def _bands(card: ModelCard, cube: xr.Dataset) -> list[str]:
    """Name the bands that the cube lacks."""
    found, present = bands_of(card, cube), [str(name) for name in cube["band"].values]
    return [
        f"band {name!r} is missing. {did_you_mean(name, present)}" for name in card.bands if name not in found
    ]


def bands_of(card: ModelCard, cube: xr.Dataset) -> dict[str, str]:
    """Find a model's bands in a cube, by the names that the catalog gives the bands of its collection.

    Parameters
    ----------
    card : ModelCard
        What the model expects.
    cube : xarray.Dataset
        A cube; its attribute ``collection`` says whose names count.

    Returns
    -------
    dict
        The model's name of each band that is there to the cube's.
    """
    present = [str(name) for name in cube["band"].values]
    return find_bands(card.bands, present, collection=str(cube.attrs.get("collection", "")))


def date_differences(card: ModelCard, times: Array) -> list[str]:
    """Compare number of steps, and each step's day of the year.

    Parameters
    ----------
    card : ModelCard
        What the model expects.
    times : numpy.ndarray
        Dates of a cube or table (t,), datetime64.

    Returns
    -------
    list of str
        At most one sentence; empty when they fit.
    """
    learned = card.dates()
    if len(times) != len(learned):
        return [f"the cube has {len(times)} time steps, the model learned from {len(learned)}"]
    step = np.median(np.diff(learned) / np.timedelta64(1, "D")) if len(learned) > 1 else 0.0
    tolerance = max(float(step) / 2, LEAST_DAYS)
    apart = np.abs(_day_of_year(times) - _day_of_year(learned))
    apart = np.minimum(apart, 365.25 - apart)
    wrong = np.flatnonzero(apart > tolerance)
    if not wrong.size:
        return []
    worst = int(apart.argmax())
    message = (
        f"{wrong.size} of {len(times)} dates lie at another time of the year: step {worst + 1} is "
        f"{np.datetime_as_string(times[worst], 'D')}, the model learned {card.times[worst][:10]}, "
        f"{apart[worst]:.0f} days apart; {tolerance:.0f} are allowed"
    )
    return [message]


def _day_of_year(times: Array) -> Array:
    """Days since the first of January, as float."""
    return np.asarray((times - times.astype("datetime64[Y]").astype(times.dtype)) / np.timedelta64(1, "D"))


def _coding(learned: Encoding, found: Encoding) -> list[str]:
    """Compare how numbers become physical ones."""
    kinds = _kind(learned), _kind(found)
    if "raw" in kinds:
        fits = kinds == ("raw", "raw")
    else:
        fits = "physical" in kinds or (found.scale, found.offset) == (learned.scale, learned.offset)
    if fits:
        return []
    message = (
        f"numbers are coded otherwise: the cube says {found.dtype} x {found.scale:g} + {found.offset:g}, "
        f"the model learned from {learned.dtype} x {learned.scale:g} + {learned.offset:g}"
    )
    return [message]


def _kind(coding: Encoding) -> Literal["raw", "physical", "scaled"]:
    """Tell integers without a scale from floats without one, which are decoded already, and from the rest."""
    if (coding.scale, coding.offset) != (1.0, 0.0):
        return "scaled"
    return "physical" if np.dtype(coding.dtype).kind == "f" else "raw"


def _pixels(card: ModelCard, cube: xr.Dataset) -> list[str]:
    """Compare pixel size and kind of coordinates."""
    box = geobox_of(cube)
    if card.resolution is None:
        return []
    if card.crs is not None and box.crs is not None:
        from pyproj import CRS

        geographic = CRS.from_user_input(card.crs).is_geographic
        if geographic != box.crs.geographic:
            kinds = {True: "degrees", False: "projected units"}
            found, learned = kinds[box.crs.geographic], kinds[geographic]
            return [f"the cube lies in {found} ({box.crs}), the model learned in {learned} ({card.crs})"]
    size = abs(float(box.resolution.x))
    if abs(size / card.resolution - 1) <= PIXEL_TOLERANCE:
        return []
    return [f"pixels measure {size:g}, the model learned from {card.resolution:g}"]
