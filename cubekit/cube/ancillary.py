"""Layers beside a cube: where a pixel lies, how high and how steep it is, what climate it has."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr
import scipy.ndimage
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.errors import RasterioError

from cubekit.cube.contract import geobox_of, to_physical
from cubekit.errors import CubeError, OptionError, SourceError
from cubekit.sources.headers import DRIVERS
from cubekit.typing import FloatArray, StrPath

Raster = StrPath | xr.DataArray
"""A file of one band, or an array ``(y, x)`` with a CRS."""

_BLOCK = 2**24  # fine pixels read at once
_MARGIN = 3  # fine pixels around a block: one for slopes, the others for resampling
_POINTS = 33  # along each edge of a grid, which may be bent in another CRS
_FINER = 1.5  # so many pixels of a raster in one of the grid are averaged; fewer are interpolated


def add_ancillary(
    cube: xr.Dataset,
    *,
    elevation: Raster | None = None,
    layers: Mapping[str, Raster] | None = None,
    place: bool = True,
) -> xr.Dataset:
    """Add what is known of each pixel beside its series.

    Rasters finer than the grid are averaged onto it, coarser ones interpolated linearly; the part near the
    grid is read, block by block. Slopes are those of the elevation model's own pixels (Horn 1981, as GDAL and
    GIS do), averaged: a slope of averaged heights would be far too gentle.

    Parameters
    ----------
    cube : xarray.Dataset
        A cube, or anything on a grid.
    elevation : path or xarray.DataArray, optional
        Elevation model in metres; gives ``altitude`` (m) and ``slope`` (degrees).
    layers : mapping, optional
        Name to raster, such as ``{"precipitation": "precipitation.tif"}``; values are kept as they are, with
        scale and offset of the file applied.
    place : bool, optional
        Whether to add ``longitude`` and ``latitude`` (degrees, of the pixel's middle).

    Returns
    -------
    xarray.Dataset
        The cube with a layer ``(y, x)`` float32 for each, in memory, NaN where there is no data.

    Raises
    ------
    SourceError
        If a raster cannot be read or does not reach the grid.
    OptionError
        If a name is taken, or nothing is to be added.
    CubeError
        If the cube has no grid.

    References
    ----------
    Horn 1981, Proceedings of the IEEE 69(1), https://doi.org/10.1109/PROC.1981.11918

    Examples
    --------
    >>> cube = add_ancillary(cube, elevation="dem.tif", layers={"rain": "rain.tif"})  # doctest: +SKIP
    """
    grid = geobox_of(cube)
    if grid.crs is None:
        raise CubeError("The cube has no CRS, so nothing can be laid beside it.")
    found: dict[str, tuple[FloatArray, dict[str, str]]] = {}
    if place:
        longitude, latitude = _place(grid)
        found["longitude"] = longitude, {"units": "degrees_east", "long_name": "longitude"}
        found["latitude"] = latitude, {"units": "degrees_north", "long_name": "latitude"}
    if elevation is not None:
        found["altitude"] = _laid(elevation, grid, _same), {"units": "m", "long_name": "altitude"}
        found["slope"] = _laid(elevation, grid, _slopes), {"units": "degree", "long_name": "slope"}
    for name, source in (layers or {}).items():
        found[name] = _laid(source, grid, _same), {"long_name": name}
    taken = [name for name in found if name in cube.variables]
    if taken or not found:
        raise OptionError(f"The cube has {taken} already." if taken else "There is nothing to add.")
    mapping = cube["data"].attrs.get("grid_mapping", "spatial_ref") if "data" in cube else "spatial_ref"
    coded = {"_FillValue": np.float32(np.nan), "grid_mapping": mapping}
    return cube.assign(
        {name: (("y", "x"), values, {**attrs, **coded}) for name, (values, attrs) in found.items()}
    )


def slope(heights: FloatArray, *, resolution: tuple[float, float]) -> FloatArray:
    """Return the slope of each pixel by the weights of Horn (1981).

    Parameters
    ----------
    heights : numpy.ndarray
        ``(y, x)`` in the unit of `resolution`; NaN where not known.
    resolution : tuple of float
        Size of a pixel along x and y, above 0.

    Returns
    -------
    numpy.ndarray
        Degrees, 0 to 90; NaN at the edges and beside unknown heights.
    """
    east, north = (
        scipy.ndimage.sobel(heights.astype("float64"), axis=axis, mode="constant", cval=np.nan) / (8 * size)
        for axis, size in ((1, resolution[0]), (0, resolution[1]))
    )
    angle: FloatArray = np.degrees(np.arctan(np.hypot(east, north))).astype("float32")
    return angle


def _place(grid: GeoBox) -> tuple[FloatArray, FloatArray]:
    """Return longitude and latitude of the middle of each pixel."""
    rows, columns = np.indices(grid.shape) + 0.5
    to = grid.transform
    x, y = to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f
    degrees = Transformer.from_crs(_proj(grid), "EPSG:4326", always_xy=True).transform(x, y)
    return degrees[0].astype("float32"), degrees[1].astype("float32")


def _proj(box: GeoBox) -> Any:
    return None if box.crs is None else box.crs.proj


def _laid(source: Raster, grid: GeoBox, change: Callable[[xr.DataArray], xr.DataArray]) -> FloatArray:
    """Read a raster around each block of a grid, change it on its own pixels, and bring it onto the grid."""
    values = np.full(grid.shape, np.nan, "float32")
    near = (
        partial(_near_file, Path(source)) if not isinstance(source, xr.DataArray) else partial(_near, source)
    )
    for rows, columns in _blocks(near, grid):
        part = grid[rows, columns]
        fine = near(part)
        if fine is None:
            continue
        many = fine.size > _FINER * (part.shape.y + 2 * _MARGIN) * (part.shape.x + 2 * _MARGIN)
        laid = change(fine).odc.reproject(
            part, resampling="average" if many else "bilinear", dst_nodata=np.nan
        )
        values[rows, columns] = laid.to_numpy()
    if not np.isfinite(values).any():
        shown = "the array" if isinstance(source, xr.DataArray) else source
        raise SourceError(f"{shown} does not reach the grid, or holds no data there.")
    return values


def _same(fine: xr.DataArray) -> xr.DataArray:
    return fine


def _slopes(heights: xr.DataArray) -> xr.DataArray:
    """Return slopes on the pixels of an elevation model, which are laid out in metres first."""
    box: GeoBox = heights.odc.geobox
    if not box.crs.projected or box.crs.proj.axis_info[0].unit_conversion_factor != 1:  # type: ignore[union-attr]
        box = _metric(box)
        heights = heights.odc.reproject(box, resampling="bilinear", dst_nodata=np.nan)
    size = abs(box.resolution.x), abs(box.resolution.y)
    return odc.geo.xr.wrap_xr(slope(heights.to_numpy(), resolution=size), box, nodata=np.nan)


def _metric(box: GeoBox) -> GeoBox:
    """Return a grid in metres over the same land, with pixels of about the same size."""
    from rasterio.warp import calculate_default_transform

    x, y = box.transform @ (box.shape.x / 2, box.shape.y / 2)
    east, north = Transformer.from_crs(_proj(box), "EPSG:4326", always_xy=True).transform(x, y)
    crs = f"+proj=laea +lon_0={east:.4f} +lat_0={north:.4f} +datum=WGS84 +units=m"
    transform, columns, rows = calculate_default_transform(
        str(box.crs), crs, box.shape.x, box.shape.y, *box.boundingbox
    )
    return GeoBox((rows, columns), transform, crs)


def _blocks(near: Callable[[GeoBox], xr.DataArray | None], grid: GeoBox) -> Iterator[tuple[slice, slice]]:
    """Cut a grid so that the fine pixels of a part fit in memory."""
    row, column = grid.shape.y // 2, grid.shape.x // 2
    probe = near(grid[row : row + 1, column : column + 1])
    zoom = 1 if probe is None else probe.size
    side = max(1, int(np.sqrt(_BLOCK / zoom)))
    for top in range(0, grid.shape.y, side):
        for left in range(0, grid.shape.x, side):
            yield slice(top, min(top + side, grid.shape.y)), slice(left, min(left + side, grid.shape.x))


def _near_file(path: Path, grid: GeoBox) -> xr.DataArray | None:
    """Read the part of a file around a grid; None where they do not meet."""
    import rasterio
    from rasterio.windows import Window

    driver = DRIVERS.get(path.suffix.lower())
    if driver is None or not path.is_file():
        raise SourceError(f"{path} is no raster file that can be read; expected {', '.join(DRIVERS)}.")
    try:
        # by its suffix, so that no VRT or other document in disguise leads elsewhere
        with rasterio.open(path, driver=driver) as file:
            box = GeoBox.from_rio(file)
            if file.count != 1 or box.crs is None:
                raise SourceError(
                    f"{path} holds {file.count} bands and the CRS {file.crs}; expected one band and a CRS."
                )
            window = _window(box, grid)
            if window is None:
                return None
            read = file.read(1, window=Window.from_slices(*window), masked=True)
            values = read.astype("float32").filled(np.nan) * file.scales[0] + file.offsets[0]
            return odc.geo.xr.wrap_xr(values.astype("float32"), box[window], nodata=np.nan)
    except RasterioError as error:
        raise SourceError(f"{path} cannot be read as a raster: {error}") from error


def _near(raster: xr.DataArray, grid: GeoBox) -> xr.DataArray | None:
    """Cut the part of an array around a grid; None where they do not meet."""
    box = raster.odc.geobox if raster.ndim == 2 else None  # noqa: PLR2004  (y, x)
    if not isinstance(box, GeoBox) or box.crs is None:
        raise SourceError(f"An ancillary array needs dims (y, x) and a CRS; found dims {raster.dims}.")
    window = _window(box, grid)
    if window is None:
        return None
    part = raster.isel(dict(zip(raster.odc.spatial_dims, window, strict=True)))
    return odc.geo.xr.wrap_xr(to_physical(part).to_numpy(), box[window], nodata=np.nan)


def _window(box: GeoBox, grid: GeoBox) -> tuple[slice, slice] | None:
    """Return rows and columns of a raster around a grid."""
    x, y = _outline(grid, box)
    to = ~box.transform
    column, row = to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f
    first, last, above, below = column.min(), column.max(), row.min(), row.max()
    rows, columns = (
        slice(max(0, math.floor(start) - _MARGIN), min(size, math.ceil(stop) + _MARGIN))
        for start, stop, size in zip((above, first), (below, last), box.shape, strict=True)
    )
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _outline(grid: GeoBox, box: GeoBox) -> tuple[FloatArray, FloatArray]:
    """Return points along the edge of a grid in the CRS of another."""
    along = np.linspace(0, 1, _POINTS)
    none, all_ = np.zeros(_POINTS), np.ones(_POINTS)
    column = np.concatenate([along, all_, along, none]) * grid.shape.x
    row = np.concatenate([none, along, all_, along]) * grid.shape.y
    to = grid.transform
    x, y = to.a * column + to.b * row + to.c, to.d * column + to.e * row + to.f
    found: tuple[FloatArray, FloatArray] = Transformer.from_crs(
        _proj(grid), _proj(box), always_xy=True
    ).transform(x, y)
    return found
