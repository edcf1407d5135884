"""Maps of neighbouring tiles as one map."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import odc.geo.xr
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.cube.contract import encoding_of, geobox_of
from cubekit.errors import CubeError, OptionError
from cubekit.grids import check_size
from cubekit.labels import ClassTable

_TOLERANCE = 1e-3  # pixels that two grids may be shifted by: rounding, never a shift


def merge_maps(maps: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put maps of tiles together to one map of them all.

    Parameters
    ----------
    maps : sequence of xarray.Dataset
        From `cubekit.predict`, with the same layers and classes, on grids whose pixels fall together, as
        those of `cubekit.grid` with ``tiles=`` do. Where maps overlap, the first with data counts.

    Returns
    -------
    xarray.Dataset
        On the smallest grid that holds all; nodata between the tiles. Lazy where the maps are.

    Raises
    ------
    OptionError
        If there is no map.
    CubeError
        If maps differ in CRS, pixel size, layers or classes, or their pixels do not fall together.

    Examples
    --------
    >>> tiles = ["3655-7318-14", "3656-7318-14"]  # doctest: +SKIP
    >>> grids = [ck.grid(crs="EPSG:6362", resolution=10, tiles=[name]) for name in tiles]  # doctest: +SKIP
    >>> merge_maps([ck.predict(model, make_cube(each)) for each in grids])  # doctest: +SKIP
    """
    if not maps:
        raise OptionError("There is no map to merge.")
    grids = [geobox_of(each) for each in maps]
    for number, each in enumerate(maps[1:], 2):
        _check(number, each, maps[0])
    pixel = grids[0]
    shifts = [_shift(grid, pixel, number) for number, grid in enumerate(grids, 1)]
    top, left = (min(shift[axis] for shift in shifts) for axis in (0, 1))
    bottom, right = (
        max(shift[axis] + grid.shape[axis] for shift, grid in zip(shifts, grids, strict=True))
        for axis in (0, 1)
    )
    whole = check_size(
        GeoBox((bottom - top, right - left), pixel.affine * pixel.affine.translation(left, top), pixel.crs)
    )
    coords = odc.geo.xr.xr_coords(whole, always_yx=True)
    placed = [
        _placed(each, (row - top, column - left), (bottom - top, right - left))
        for each, (row, column) in zip(maps, shifts, strict=True)
    ]
    merged = reduce(_fill, placed)
    for axis in (
        "y",
        "x",
    ):  # what the maps say of their axes stays
        coords[axis].attrs = dict(maps[0].coords[axis].attrs)
    return merged.assign_coords(coords).assign_attrs(maps[0].attrs)


def _check(number: int, other: xr.Dataset, first: xr.Dataset) -> None:
    """Raise unless a map has the layers and classes of the first."""
    for what, own, found in (
        ("layers", set(first.data_vars), set(other.data_vars)),
        *(
            (f"classes of {name!r}", _names(first[name]), _names(other[name]))
            for name in first
            if name in other
        ),
    ):
        if own != found:
            raise CubeError(f"Map {number} differs from the first in its {what}: {found}, not {own}.")


def _names(layer: xr.DataArray) -> tuple[str, ...]:
    return ClassTable.from_attrs(layer.attrs).names if "classes" in layer.attrs else ()


def _shift(grid: GeoBox, first: GeoBox, number: int) -> tuple[int, int]:
    """Return the row and column of the first grid that another one begins at."""
    relative = ~first.affine * grid.affine
    row, column = round(relative.f), round(relative.c)
    apart = max(abs(relative.f - row), abs(relative.c - column), abs(relative.a - 1), abs(relative.e - 1))
    if grid.crs != first.crs or apart > _TOLERANCE or max(abs(relative.b), abs(relative.d)) > _TOLERANCE:
        raise CubeError(
            f"The pixels of map {number} do not fall on those of the first: predict cubes on grids of one "
            "CRS and resolution, such as cubekit.grid(crs=…, resolution=…, tiles=[…])."
        )
    return row, column


def _placed(each: xr.Dataset, start: tuple[int, int], shape: tuple[int, int]) -> xr.Dataset:
    """Put nodata around a map."""
    around = {
        dim: (first, size - first - each.sizes[dim])
        for dim, first, size in zip(("y", "x"), start, shape, strict=True)
    }
    bare = each.drop_vars([name for name in ("y", "x", "spatial_ref") if name in each.coords])
    return bare.map(
        lambda layer: layer.pad(around, constant_values=_nodata(layer)), keep_attrs=True
    ).assign_coords({"spatial_ref": each.coords["spatial_ref"]})


def _nodata(layer: xr.DataArray) -> float:
    nodata = encoding_of(layer).nodata
    if nodata is None:
        raise CubeError(f"Layer {layer.name!r} has no nodata value (_FillValue) for what lies between tiles.")
    return nodata


def _fill(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Take the second where the first has no data."""
    return first.map(lambda layer: _either(layer, second[str(layer.name)]), keep_attrs=True)


def _either(layer: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    nodata = _nodata(layer)
    known = layer.notnull() if np.isnan(nodata) else layer != layer.dtype.type(nodata)
    return layer.where(known, other).astype(layer.dtype).assign_attrs(layer.attrs)
