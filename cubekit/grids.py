"""Target grids: where the pixels of a cube lie, as an odc-geo ``GeoBox``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from math import atan, ceil, degrees, isfinite, pi, sinh
from typing import Any, Literal

import numpy as np
import shapely
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from odc.geo.types import SomeResolution, res_
from pyproj.exceptions import CRSError
from shapely.geometry import shape as to_shape
from shapely.geometry.base import BaseGeometry

from cubekit.errors import GridError, OptionError, check_option
from cubekit.typing import BBox, SomeGeometry, StrPath

MAX_PIXELS = 2**32
"""Largest grid that is made without complaint: 64 million hectares at 12 m."""

MAX_SIDE = 100_000
"""Longest side in pixels."""

_DRIVERS = ("GTiff", "JP2OpenJPEG", "netCDF", "HFA", "PNG")  # formats that open no other file
_SNAP = 1e-6  # of a pixel: edges this near to a line of the grid are on it
_MAX_LATITUDE, _MAX_LONGITUDE = 90.0, 180.0

_UTM_SOUTH_LIMIT, _UTM_NORTH_LIMIT = -80.0, 84.0


def grid(
    *,
    crs: str | int | CRS | None = None,
    resolution: SomeResolution | None = None,
    bbox: BBox | None = None,
    bounds: BBox | None = None,
    geometry: SomeGeometry | None = None,
    tiles: Sequence[str] | None = None,
    like: StrPath | GeoBox | xr.Dataset | xr.DataArray | None = None,
    anchor: Literal["edge", "center"] = "edge",
) -> GeoBox:
    """Make the grid that a cube is read onto.

    Give exactly one of `bbox`, `bounds`, `geometry`, `tiles`; or `like` alone, or `like` for the pixels and
    one of the four for the extent.

    Parameters
    ----------
    crs : str, int or odc.geo.crs.CRS, optional
        Coordinate reference system, such as ``"EPSG:32630"``. Default: that of `like`, else the UTM zone of
        the middle of the area (universal polar stereographic beyond 84° N and 80° S).
    resolution : float or odc.geo.types.Resolution, optional
        Pixel size in units of `crs`; a number means square pixels, north up. Default: that of `like`.
    bbox : tuple of float, optional
        West, south, east, north in degrees (WGS 84).
    bounds : tuple of float, optional
        Left, bottom, right, top in units of `crs`.
    geometry : shapely geometry or dict, optional
        In WGS 84; the grid covers its bounds in `crs`.
    tiles : sequence of str, optional
        Web-map tiles named ``x-y-zoom``, such as ``"3655-7318-14"``; the grid covers them all. Grids of
        single tiles with the same `crs` and `resolution` have their pixels at the same places.
    like : path, GeoBox, xarray.Dataset or xarray.DataArray, optional
        Take CRS, resolution and pixel positions from this raster file, grid or cube.
    anchor : {"edge", "center"}
        What falls on multiples of the resolution: pixel edges or pixel centres.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Smallest grid of whole pixels that covers the area, shape (y, x).

    Raises
    ------
    GridError
        For an area without extent, outside the world, with swapped corners or across the 180° meridian, and
        for grids of over 2**32 pixels or over 100,000 pixels a side.
    OptionError
        When arguments contradict each other.

    Examples
    --------
    >>> grid(crs="EPSG:32630", resolution=10, bounds=(440005, 4460000, 441000, 4461000)).shape
    Shape2d(x=100, y=100)
    """
    check_option("anchor", anchor, ("edge", "center"))
    extents = {"bbox": bbox, "bounds": bounds, "geometry": geometry, "tiles": tiles}
    given = [name for name, value in extents.items() if value is not None]
    model = None if like is None else _geobox_like(like)
    if tiles is not None:
        geometry = shapely.union_all([tile_box(name) for name in tiles])
    if len(given) > 1 or not (given or model):
        found = " and ".join(given) or "none"
        raise OptionError(f"Give exactly one of bbox, bounds, geometry, tiles (or like); found {found}.")
    if model is not None:
        if crs is not None or resolution is not None:
            raise OptionError("like brings its own crs and resolution: leave those two out.")
        return check_size(_snap_like(model, bbox, bounds, geometry) if given else model)
    if resolution is None:
        raise OptionError("Give a resolution in units of the CRS, such as resolution=10, or like=.")
    area = _area(bbox, bounds, geometry, None if crs is None else _crs(crs))
    pixel = _resolution(resolution)
    _check_counts(area.span_x / abs(pixel.x), area.span_y / abs(pixel.y), pixel.x)
    return check_size(GeoBox.from_bbox(area, resolution=pixel, anchor=anchor))


def tile_box(name: str) -> BaseGeometry:
    """Return the outline of a web-map tile.

    Parameters
    ----------
    name : str
        ``x-y-zoom``, counted from the west and from the north, as in ``"3655-7318-14"``.

    Returns
    -------
    shapely.Polygon
        In WGS 84.

    Raises
    ------
    GridError
        If there is no such tile.
    """
    found = re.fullmatch(r"(\d+)-(\d+)-(\d{1,2})", name)
    x, y, zoom = (int(part) for part in found.groups()) if found else (0, 1, 0)
    if max(x, y) >= 2**zoom:
        raise GridError(f"tiles names {name!r}, expected x-y-zoom such as '3655-7318-14', below 2**zoom.")
    west, east = (360 * column / 2**zoom - 180 for column in (x, x + 1))
    north, south = (degrees(atan(sinh(pi * (1 - 2 * row / 2**zoom)))) for row in (y, y + 1))
    return shapely.box(west, south, east, north)


def _crs(crs: str | int | CRS) -> CRS:
    try:
        return CRS(crs)
    except (CRSError, ValueError) as error:
        raise GridError(f"crs={crs!r} is not a known coordinate reference system.") from error


def _resolution(resolution: SomeResolution) -> Any:
    try:
        pixel = res_(resolution)
    except ValueError as error:
        raise GridError(f"resolution={resolution!r}: expected a number in units of the CRS.") from error
    if not all(isfinite(size) and size != 0 for size in pixel.xy):
        raise GridError(f"resolution={resolution!r}: pixel sizes must be finite and not zero.")
    return res_(abs(resolution)) if isinstance(resolution, int | float) else pixel


def _area(
    bbox: BBox | None, bounds: BBox | None, geometry: SomeGeometry | None, crs: CRS | None
) -> BoundingBox:
    """Return the asked extent in the CRS of the grid."""
    if bounds is not None:
        if crs is None:
            raise OptionError("bounds are in units of a CRS: give crs= as well, or use bbox= in degrees.")
        return BoundingBox(*_check_box(bounds, "bounds"), crs=crs)
    if bbox is not None:
        west, south, east, north = _check_degrees(bbox, "bbox")
        shape: BaseGeometry = shapely.box(west, south, east, north)
    elif geometry is not None:
        shape = geometry if isinstance(geometry, BaseGeometry) else to_shape(geometry)
        if shape.is_empty:
            raise GridError("geometry is empty.")
        _check_degrees(shape.bounds, "geometry")
    else:
        raise OptionError("Give bbox, bounds or geometry.")
    middle = shape.envelope.centroid
    target = crs or utm_zone(middle.x, middle.y)
    # Densified, because the edges of a box in degrees are curves elsewhere and bulge beyond its corners.
    outline = shapely.segmentize(shape, max(shape.bounds[2] - shape.bounds[0], 1e-9) / 100)
    from pyproj import Transformer

    transform = Transformer.from_crs("EPSG:4326", str(target), always_xy=True)
    x, y = transform.transform(*shapely.get_coordinates(outline).T)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GridError(f"The area {shape.bounds} lies outside the domain of {target}: choose another crs.")
    return BoundingBox(float(x.min()), float(y.min()), float(x.max()), float(y.max()), crs=target)


def utm_zone(longitude: float, latitude: float) -> CRS:
    """Return the UTM zone of a place, or the polar stereographic CRS beyond 84° N and 80° S.

    Parameters
    ----------
    longitude, latitude : float
        Degrees, WGS 84.

    Returns
    -------
    odc.geo.crs.CRS
        EPSG:326xx in the north, EPSG:327xx in the south, EPSG:32661 and EPSG:32761 at the poles. The
        exceptions around Norway and Svalbard are not followed.
    """
    if latitude >= _UTM_NORTH_LIMIT:
        return CRS("EPSG:32661")
    if latitude < _UTM_SOUTH_LIMIT:
        return CRS("EPSG:32761")
    zone = min(int((longitude + 180) // 6) + 1, 60)
    return CRS(f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}")


def _corners(corners: BBox, name: str) -> BBox:
    try:
        left, bottom, right, top = (float(value) for value in corners)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name}={corners!r}: expected four numbers.") from error
    return left, bottom, right, top


def _check_box(corners: BBox, name: str) -> BBox:
    left, bottom, right, top = _corners(corners, name)
    if not all(isfinite(value) for value in (left, bottom, right, top)):
        raise GridError(f"{name}={corners}: every corner must be a finite number.")
    if top == bottom or left == right:
        raise GridError(f"{name}={corners} has no area: give two different corners.")
    if top < bottom or right < left:
        raise GridError(f"{name}={corners}: order is left, bottom, right, top; corners look swapped.")
    return left, bottom, right, top


def _check_degrees(corners: BBox, name: str) -> BBox:
    west, south, east, north = _corners(corners, name)
    if max(abs(south), abs(north)) > _MAX_LATITUDE:
        hint = "; latitude and longitude look swapped" if max(abs(west), abs(east)) <= _MAX_LATITUDE else ""
        raise GridError(
            f"{name}={corners}: latitudes {south} to {north} are outside -90 to 90{hint}. "
            "Order is west, south, east, north, in degrees."
        )
    if max(abs(west), abs(east)) > _MAX_LONGITUDE:
        raise GridError(
            f"{name}={corners}: longitudes {west} to {east} are outside -180 to 180. For an area across the "
            "180° meridian give bounds= in a CRS of that region, such as EPSG:3832."
        )
    if west > east:
        raise GridError(
            f"{name}={corners}: west {west} is greater than east {east}. Swap them; or, if the area "
            "crosses the 180° meridian, split it there, or give bounds= in a CRS there, such as EPSG:3832."
        )
    return _check_box((west, south, east, north), name)


def _geobox_like(like: StrPath | GeoBox | xr.Dataset | xr.DataArray) -> GeoBox:
    """Read the grid of a raster file, a grid or a cube."""
    found: object
    if isinstance(like, GeoBox):
        found = like
    elif isinstance(like, xr.Dataset | xr.DataArray):
        import odc.geo.xr  # noqa: F401  (registers the accessor)

        found = like.odc.geobox
    else:
        from odc.geo.converters import rio_geobox
        from rasterio.errors import RasterioError
        from rasterio.io import DatasetReader

        try:
            # Without a list GDAL chooses by content, and follows a VRT named .tif to other files.
            with DatasetReader(os.fspath(like), driver=list(_DRIVERS), sharing=False) as file:
                found = rio_geobox(file)
        except RasterioError as error:
            raise GridError(
                f"like={str(like)!r} cannot be read as a raster of {', '.join(_DRIVERS)}: {error}"
            ) from error
    if not isinstance(found, GeoBox) or found.crs is None:
        raise GridError(f"like={_name(like)} has no regular grid with a CRS.")
    return found


def _name(like: object) -> str:
    return type(like).__name__ if isinstance(like, xr.Dataset | xr.DataArray | GeoBox) else repr(str(like))


def _snap_like(
    model: GeoBox, bbox: BBox | None, bounds: BBox | None, geometry: SomeGeometry | None
) -> GeoBox:
    """Return the pixels of a grid, cut or extended to cover another extent."""
    area = _area(bbox, bounds, geometry, model.crs)
    return enclosing(model, area.bbox)


def enclosing(model: GeoBox, bounds: BBox) -> GeoBox:
    """Return the pixels of a grid that cover an extent, continued beyond the grid where needed.

    Parameters
    ----------
    model : odc.geo.geobox.GeoBox
        Gives CRS, resolution and pixel positions.
    bounds : tuple of float
        Left, bottom, right, top in the CRS of `model`.

    Returns
    -------
    odc.geo.geobox.GeoBox
        At least one pixel.
    """
    left, bottom, right, top = bounds
    inverse = ~model.transform
    x, y = np.array([left, right, right, left]), np.array([bottom, bottom, top, top])
    cols = inverse.a * x + inverse.b * y + inverse.c
    rows = inverse.d * x + inverse.e * y + inverse.f
    first_col, first_row = int(np.floor(cols.min() + _SNAP)), int(np.floor(rows.min() + _SNAP))
    nx = max(int(np.ceil(cols.max() - _SNAP)) - first_col, 1)
    ny = max(int(np.ceil(rows.max() - _SNAP)) - first_row, 1)
    a = model.transform
    origin = (a.a * first_col + a.b * first_row + a.c, a.d * first_col + a.e * first_row + a.f)
    return GeoBox((ny, nx), Affine(a.a, a.b, origin[0], a.d, a.e, origin[1]), model.crs)


def _check_counts(nx: float, ny: float, size: float) -> None:
    """Refuse a size before anything is made from it."""
    if nx > MAX_SIDE or ny > MAX_SIDE or nx * ny > MAX_PIXELS:
        factor = max(nx / MAX_SIDE, ny / MAX_SIDE, (nx * ny / MAX_PIXELS) ** 0.5)
        exact = abs(size) * factor
        digits = 10.0 ** (np.floor(np.log10(exact)) - 1)
        raise GridError(
            f"The grid would have {ceil(ny):,} x {ceil(nx):,} pixels; the limit is {MAX_SIDE:,} a side and "
            f"{MAX_PIXELS:,} in all. Use resolution={ceil(exact / digits) * digits:g} or coarser, or a "
            "smaller area."
        )


def check_size(found: GeoBox) -> GeoBox:
    """Refuse a grid without pixels, or of more than can be meant.

    Parameters
    ----------
    found : odc.geo.geobox.GeoBox
        Any grid.

    Returns
    -------
    odc.geo.geobox.GeoBox
        The same.

    Raises
    ------
    GridError
        Saying what is too much, and what would do.
    """
    ny, nx = found.shape
    if nx == 0 or ny == 0:
        raise GridError("The grid has no pixels: the area is smaller than a hundredth of a pixel.")
    _check_counts(nx, ny, found.resolution.x)
    return found
