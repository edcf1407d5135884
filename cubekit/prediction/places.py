"""Predicted places that lie on a regular grid become a raster."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import GridError
from cubekit.labels import ClassTable, class_table
from cubekit.prediction.outputs import NODATA, describe_layer, pack
from cubekit.typing import FloatArray, IntArray

OFF = 0.15
"""Share of a pixel by which a place may lie off the middle: coordinates are rounded, to 0.1 m of 10 m."""

SINGLE = 1.5
"""Gaps up to so many of the smallest are single steps."""

ROUNDING = 5e-6
"""Degrees by which coordinates of one row or column may differ; about half a metre."""

METRES = 111_195.0
"""Metres of a degree."""

SHARE = "p_"
"""What the columns of class probabilities begin with."""

SPARSE = 0.001
"""Least share of the grid's pixels that must have a place."""


def map_of_places(frame: pd.DataFrame, classes: ClassTable) -> xr.Dataset:
    """Put predictions of places onto the grid that they were taken from.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`cubekit.predict_table` with ``probabilities=True``.
    classes : ClassTable
        Of the model: ``model.card.classes``.

    Returns
    -------
    xarray.Dataset
        ``class`` and ``probability`` as :func:`cubekit.predict` makes them, in the UTM zone of the middle, or
        in degrees where the places are regular there; nodata where there is no place.

    Raises
    ------
    GridError
        If there are no places, or they lie on no regular grid, or on one that is nearly empty.

    Warns
    -----
    UserWarning
        If places share a pixel, as where exported tiles overlap.
    """
    if "lat" not in frame:
        raise GridError("Series without positions make no map: the table needs longitude and latitude.")
    places = frame[["lon", "lat"]].to_numpy("float64")
    likely = frame[[SHARE + name for name in classes]].to_numpy("float32")
    for crs, rounding in ((_zone(places), ROUNDING * METRES), ("EPSG:4326", ROUNDING)):
        east, north = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*places.T)
        steps = [_step(np.asarray(axis), rounding) for axis in (east, north)]
        if None not in steps:
            return _raster(np.stack([east, north]), steps, crs, likely, classes)
    raise GridError(
        f"The {len(places)} places lie on no regular grid, in metres or degrees, so they make no raster. "
        "Export whole images from Earth Engine, not points, for a map."
    )


def places_of_map(prediction: xr.Dataset) -> pd.DataFrame:
    """Write a class map as a table of its pixels.

    Parameters
    ----------
    prediction : xarray.Dataset
        With ``class`` and a CRS; may be lazy. Nodata is left out.

    Returns
    -------
    pandas.DataFrame
        ``lat`` and ``lon`` of pixel centres (degrees, WGS 84, to 0.1 m), ``predicted_class``.
    """
    numbers = prediction["class"].to_numpy()
    row, column = np.nonzero(numbers != NODATA)
    box = prediction.odc.geobox
    east, north = np.asarray(box.affine * np.stack([column + 0.5, row + 0.5]))
    to_degrees = pyproj.Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(east, north)
    names = np.array(class_table(prediction).names, dtype=object)
    return pd.DataFrame(
        {"lat": np.round(lat, 6), "lon": np.round(lon, 6), "predicted_class": names[numbers[row, column]]}
    )


def _zone(places: FloatArray) -> str:
    """Return the UTM zone of the middle of the places."""
    east, north = np.median(places, axis=0)
    return f"EPSG:{(32600 if north >= 0 else 32700) + int((east + 180) // 6 % 60) + 1}"


def _step(axis: FloatArray, rounding: float) -> float | None:
    """Return the distance between rows or columns; None where some lie off its multiples."""
    found = np.sort(axis)
    gaps = np.diff(found)
    gaps = gaps[gaps > rounding]
    if not gaps.size:
        return None
    step = float(np.median(gaps[gaps < SINGLE * gaps.min()]))
    step = float(np.polyfit(np.rint((found - found[0]) / step), found, 1)[0])  # over all, to lose no pixel
    off = (found - found[0]) / step
    return step if np.abs(off - np.rint(off)).max() <= OFF else None


def _raster(
    places: FloatArray, steps: list[Any], crs: str, likely: FloatArray, table: ClassTable
) -> xr.Dataset:
    """Lay out the grid and fill in what was predicted."""
    east, north = places
    column, row = _numbers(east, steps[0]), _numbers(-north, steps[1])
    shape = int(row.max()) + 1, int(column.max()) + 1
    if len(likely) < SPARSE * shape[0] * shape[1]:
        raise GridError(
            f"{len(likely)} places are scattered over a grid of {shape[0]} x {shape[1]} pixels: no map."
        )
    shared = len(row) - len(np.unique(row * shape[1] + column))
    if shared:
        warnings.warn(
            f"{shared} of {len(row)} places lie in the pixel of another: the last of each is drawn.",
            UserWarning,
            stacklevel=3,
        )
    packed = np.full((1 + len(table), *shape), NODATA, "uint8")
    packed[:, row, column] = pack(likely.T, ("class", "probability"), "class", None)
    left, top = east.min() - steps[0] / 2, north.max() + steps[1] / 2
    layers = {
        "class": describe_layer("class", packed[:1], table, None),
        "probability": describe_layer("probability", packed[1:], table, None),
    }
    for layer in layers.values():
        layer.encoding["grid_mapping"] = "spatial_ref"
    box = GeoBox(shape, Affine(steps[0], 0, left, 0, -steps[1], top), crs)
    names = np.array(table.names, dtype=object)
    return xr.Dataset(layers, coords={"category": names, **xr_coords(box, dims=("y", "x"))})


def _numbers(axis: FloatArray, step: float) -> IntArray:
    """Return the row or column of each place, from 0."""
    return np.asarray(np.rint((axis - axis.min()) / step), dtype="int64")
