"""Headers of local rasters: what a file holds, without reading a pixel."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from cubekit.errors import SourceError
from cubekit.security import redact
from cubekit.sources import hdf, hdf4
from cubekit.typing import BBox

DRIVERS: Final = {
    ".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG", ".nc": "netCDF", ".img": "HFA",
    ".hdf": hdf4.DRIVER,
}  # fmt: skip
"""Driver of each file type that an archive may hold; no other driver is tried, so a VRT named .tif is
refused."""

MEDIA_TYPES: Final = {
    "GTiff": "image/tiff; application=geotiff",
    "JP2OpenJPEG": "image/jp2",
    "netCDF": "application/netcdf",
    "HFA": "application/x-erdas-hfa",
    hdf4.DRIVER: "application/x-hdf4",
}
"""Media type of each driver."""

MAX_PIXELS: Final = 2**40
"""Largest claimed size of one layer; beyond it a header is taken for damaged."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a file lie."""

    crs: str
    """``EPSG:…`` where that says it exactly, else WKT2."""

    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]

    def properties(self) -> dict[str, Any]:
        """Return the fields of the STAC projection extension."""
        key = "proj:code" if self.crs.startswith("EPSG:") else "proj:wkt2"
        return {key: self.crs, "proj:shape": list(self.shape), "proj:transform": list(self.transform)}

    @classmethod
    def from_properties(cls, fields: Mapping[str, Any]) -> "Grid":
        """Read what `properties` wrote."""
        crs = fields.get("proj:code") or fields["proj:wkt2"]
        return cls(crs=crs, shape=tuple(fields["proj:shape"]), transform=tuple(fields["proj:transform"]))

    def bbox(self) -> BBox:
        """Return west, south, east, north in WGS 84."""
        return _bbox(self)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One band of a file, or one time step of one of its variables."""

    grid: Grid
    dtype: str
    index: int
    """Band in the file (in the variable), from 1."""

    count: int
    """Number of bands in the file (in the variable)."""

    driver: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    description: str | None = None
    variable: str | None = None
    time: datetime | None = None


def read_layers(path: Path) -> list[Layer]:
    """Read the header of a raster file.

    Parameters
    ----------
    path : pathlib.Path
        GeoTIFF, JPEG 2000, ERDAS Imagine, NetCDF, or HDF4 with grids of HDF-EOS.

    Returns
    -------
    list of Layer
        Bands in file order; for NetCDF, every time step of every variable with dimensions (time, y, x); for
        HDF4, every two-dimensional field.

    Raises
    ------
    SourceError
        If the file is damaged, of another format than its name says, or has no place on Earth; rasterio also
        warns of the last, and the caller filters that: filters are not for threads.
    """
    driver = DRIVERS[path.suffix.lower()]
    try:
        with hdf.alone([driver]):
            if driver == hdf4.DRIVER:
                return [_from_hdf4(layer, path) for layer in hdf4.list_layers(path)]
            return _read_netcdf(path) if driver == "netCDF" else _layers(str(path), path, driver)
    except SourceError:
        raise
    except (RasterioError, ValueError, OSError) as error:
        raise SourceError(f"{path.name} cannot be read as {driver}: {redact(error)}") from None


def _from_hdf4(layer: hdf4.GridLayer, path: Path) -> Layer:
    _check_size(path, layer.shape)
    return Layer(
        grid=Grid(crs=_crs_text(layer.crs), shape=layer.shape, transform=layer.transform),
        dtype=layer.dtype,
        index=1,
        count=1,
        driver=hdf4.DRIVER,
        nodata=layer.nodata,
        scale=layer.scale,
        offset=layer.offset,
        variable=layer.name,
    )


def _check_size(path: Path, shape: tuple[int, int]) -> None:
    rows, columns = shape
    if rows * columns > MAX_PIXELS:
        raise SourceError(f"{path.name} claims {rows} x {columns} pixels, expected at most {MAX_PIXELS}.")


def _layers(name: str, path: Path, driver: str) -> list[Layer]:
    with rasterio.open(name, driver=driver) as data:
        times = _times(data) if driver == "netCDF" else [None] * data.count
        if not times:
            return []
        if data.crs is None or data.transform.is_identity:
            raise SourceError(f"{path.name} has no CRS or no geotransform.")
        _check_size(path, data.shape)
        grid = Grid(crs=_crs_text(data.crs.to_wkt()), shape=data.shape, transform=tuple(data.transform)[:6])
        return [
            Layer(
                grid=grid,
                dtype=data.dtypes[index],
                index=index + 1,
                count=data.count,
                driver=driver,
                nodata=data.nodatavals[index],
                scale=data.scales[index],
                offset=data.offsets[index],
                description=data.descriptions[index],
                variable=data.tags(index + 1).get("NETCDF_VARNAME"),
                time=time,
            )
            for index, time in enumerate(times)
        ]


def _read_netcdf(path: Path) -> list[Layer]:
    """List the time steps of every variable; a file of one variable has no list of them."""
    with rasterio.open(path, driver="netCDF") as data:
        names = data.subdatasets or [str(path)]
    layers = []
    for name in names:
        layers += _layers(name, path, "netCDF")
    if not layers:
        raise SourceError(f"{path.name} has no variable with dimensions (time, y, x).")
    return layers


def _times(data: rasterio.DatasetReader) -> Sequence[datetime | None]:
    """Return the time of each band of a NetCDF variable; none where bands are not times and times alone."""
    tags = data.tags()
    dimension = tags.get("NETCDF_DIM_EXTRA", "").strip("{}")
    units = tags.get(f"{dimension}#units", "")
    if " since " not in units:
        return []
    import xarray as xr

    text = [data.tags(index)[f"NETCDF_DIM_{dimension}"] for index in data.indexes]
    steps = np.array(text, dtype="int64" if all(re.fullmatch(r"-?\d+", step) for step in text) else "float64")
    attrs = {"units": units, "calendar": tags.get(f"{dimension}#calendar", "standard")}
    times = xr.decode_cf(xr.Dataset(coords={"time": ("time", steps, attrs)}))["time"].to_numpy()
    return [time.replace(tzinfo=UTC) for time in times.astype("datetime64[us]").astype(object)]


@lru_cache(maxsize=256)
def _crs_text(wkt: str) -> str:
    """Name a CRS; answers are kept because the search for a code that is not there takes 0.1 s."""
    crs = rasterio.CRS.from_wkt(wkt)
    code = crs.to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code else str(crs.to_wkt(version="WKT2_2019"))


@lru_cache(maxsize=256)
def _bbox(grid: Grid) -> BBox:
    """Transform the corners and 21 points on each edge; files of one archive share few grids."""
    rows, columns = grid.shape
    a, b, c, d, e, f = grid.transform
    xs = [c, c + a * columns, c + b * rows, c + a * columns + b * rows]
    ys = [f, f + d * columns, f + e * rows, f + d * columns + e * rows]
    west, south, east, north = transform_bounds(
        rasterio.CRS.from_user_input(grid.crs), "EPSG:4326", min(xs), min(ys), max(xs), max(ys)
    )
    if not all(map(math.isfinite, (west, south, east, north))):
        raise SourceError(f"A grid of shape {grid.shape} with origin ({c}, {f}) has no place on Earth.")
    return west, south, east, north
