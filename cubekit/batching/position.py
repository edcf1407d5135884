"""Positions in metres: what distances between samples are measured in, whatever CRS the data came in."""

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from cubekit.typing import FloatArray


def metric_positions(x: FloatArray, y: FloatArray, crs: str) -> tuple[FloatArray, str]:
    """Return positions in a CRS whose unit is the metre.

    Parameters
    ----------
    x, y : numpy.ndarray
        Easting or longitude, northing or latitude; (n,).
    crs : str
        CRS of both.

    Returns
    -------
    position : numpy.ndarray
        (n, 2) float64. Unchanged where `crs` is in metres already; else in a Lambert azimuthal equal-area
        projection around the middle of the samples, whose distances are good to 1 % within 1,800 km of it.
    crs : str
        CRS of the positions.
    """
    source = CRS.from_user_input(crs)
    if source.is_projected and source.axis_info[0].unit_conversion_factor == 1.0:
        return np.column_stack([x, y]).astype("float64"), crs
    east, north = Transformer.from_crs(source, "EPSG:4326", always_xy=True).transform(x, y)
    angle = np.radians(east)  # a mean of directions, since -179 and 179 degrees have their middle at 180
    middle = np.degrees(np.arctan2(np.nanmean(np.sin(angle)), np.nanmean(np.cos(angle))))
    metric = f"+proj=laea +lat_0={np.nanmean(north):.0f} +lon_0={middle:.0f} +datum=WGS84 +units=m"
    to_metres = Transformer.from_crs("EPSG:4326", metric, always_xy=True)
    return np.column_stack(to_metres.transform(east, north)).astype("float64"), metric


def world_positions(grid: GeoBox, columns: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn pixel coordinates into those of a grid's CRS.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        Grid.
    columns, rows : numpy.ndarray
        (n,) 0 is the left or upper edge of the first pixel.

    Returns
    -------
    x, y : numpy.ndarray
        (n,) in units of the CRS.
    """
    to = grid.transform
    return to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f


def crs_name(grid: GeoBox) -> str:
    """Return the EPSG code of a grid's CRS, else its WKT.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        Grid.

    Returns
    -------
    str
        What pyproj reads.
    """
    return f"EPSG:{grid.crs.epsg}" if grid.crs is not None and grid.crs.epsg else str(grid.crs)
