"""Folders with one file a year, zone masks, and the published NPZ and mask files, as cubes of yearly maps."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy import ndimage

from cubekit.cube.contract import DIMS, MAIN, encoding_of, geobox_of, is_valid, to_physical
from cubekit.cube.kernels import valid_in
from cubekit.cube.load import open_cube
from cubekit.cube.resample import Pixels, positions, sample_nearest, window_of
from cubekit.errors import ArchiveError, CubeError, OptionError, check_option
from cubekit.pickled_arrays import read_array_pickle
from cubekit.sources.archive import open_archive
from cubekit.typing import Array, BoolArray, StrPath

Missing = Literal["raise", "nan"]
"""What to do about years without a file: refuse, or fill in a year without data."""

ZONE = "zone_"
"""Beginning of the names of zone masks in a cube."""

MASKED = 255
"""Value of the published masks that means "outside"; 0 is inside."""

_YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")
_SUFFIXES = {".tif", ".tiff"}
_YEARS = range(1900, 2200)
_SHOWN = 8


def open_yearly(
    root: StrPath,
    index: str | Sequence[str],
    *,
    zone: str | None = None,
    pattern: str | Sequence[str] | None = None,
    outside: float | None = None,
    nodata: float | None = None,
    scale: float | None = None,
    missing: Missing = "raise",
) -> xr.Dataset:
    """Open a folder with one single-band GeoTIFF a year for each index as a cube of yearly maps.

    The year is the first group of exactly four digits in a file's name. Files of an index, and of a zone,
    are those whose path (below `root`) has the name as a word of its own, in any case:
    ``buffer/NDVI/Landsat_NDVI_2003.tif``, ``NDVI_max_2003.tif``.

    Parameters
    ----------
    root : path
        Folder.
    index : str or sequence of str
        Names of the indices; the bands of the cube.
    zone : str, optional
        Name of the zone whose files to take.
    pattern : str or sequence of str, optional
        How paths are built, for names that the rule above does not fit; see :func:`cubekit.open_archive`.
    outside : float, optional
        Stored number that means "outside" beside the file's nodata, such as 0 in the published archives.
    nodata, scale : float, optional
        Instead of what the files state.
    missing : {"raise", "nan"}, optional
        Whether years without a file between the first and the last are refused, or become maps of NaN. They
        are never left out: windows of years behind a hole would shift.

    Returns
    -------
    xarray.Dataset
        ``data (time, band, y, x)`` float32, physical, NaN where there is no data; one date a year. Lazy.

    Raises
    ------
    ArchiveError
        If no file fits, a year has two, years are missing, or files cannot be read; all are named.
    CubeError
        If indices cover other years or grids.
    OptionError
        If an option is unknown.
    """
    check_option("missing", missing, ["raise", "nan"])
    names = [index] if isinstance(index, str) else list(index)
    if not names or len(set(names)) != len(names):
        raise OptionError(f"index={index!r}: give at least one name, each once.")
    cubes = []
    for name in names:
        patterns = _patterns(Path(root), name, zone) if pattern is None else pattern
        items = open_archive(root, patterns, bands=[name], nodata=nodata, scale=scale, on_unmatched="skip")
        cubes.append(_physical(open_cube(items, bands=[name]), outside))
    for name, cube in zip(names[1:], cubes[1:], strict=True):
        if not cube.indexes["time"].equals(cubes[0].indexes["time"]) or geobox_of(cube) != geobox_of(
            cubes[0]
        ):
            raise CubeError(f"{name} and {names[0]} cover other years or another grid: open them one by one.")
    first = cubes[0]
    if len(cubes) > 1:
        data = xr.concat([cube[MAIN] for cube in cubes], "band").transpose(*DIMS)
        first = first.drop_dims("band").assign({MAIN: data})
    return with_all_years(first, missing=missing)


def with_all_years(cube: xr.Dataset, *, missing: Missing = "raise") -> xr.Dataset:
    """Refuse holes in the years, or fill them with maps of NaN.

    Parameters
    ----------
    cube : xarray.Dataset
        Physical yearly maps.
    missing : {"raise", "nan"}, optional
        What to do.

    Returns
    -------
    xarray.Dataset
        One map a year, from the first to the last; as lazy as the input.

    Raises
    ------
    ArchiveError
        Naming the years that are missing or come twice.
    """
    dates = pd.DatetimeIndex(cube["time"].to_numpy())
    twice = sorted(set(dates.year[dates.year.duplicated()]))
    wanted = range(dates.year.min(), dates.year.max() + 1)
    absent = [year for year in wanted if year not in set(dates.year)]
    if twice or (absent and missing == "raise"):
        raise ArchiveError(
            f"The files are not one a year: years missing {absent}, years with several files {twice}. "
            "missing='nan' puts maps without data where there is no file."
        )
    if not absent:
        return cube
    first = dates[0]
    every = pd.DatetimeIndex([first + pd.DateOffset(years=year - first.year) for year in wanted])
    known = {date.year: date for date in dates}
    every = pd.DatetimeIndex([known.get(date.year, date) for date in every])
    attrs = cube[MAIN].attrs
    filled = cube.reindex(time=every, fill_value={MAIN: np.float32("nan")})
    filled[MAIN].attrs = attrs
    return filled


def fill_nearest(cube: xr.Dataset, inside: xr.DataArray | None = None) -> xr.Dataset:
    """Fill pixels without data from the nearest one of the same map that has some.

    Parameters
    ----------
    cube : xarray.Dataset
        Physical float maps; NaN where there is no data.
    inside : xarray.DataArray, optional
        ``(y, x)`` bool: where to fill; the others become NaN.

    Returns
    -------
    xarray.Dataset
        Filled; maps without any data stay as they are. As lazy as the input, whole maps at a time.
    """
    data = cube[MAIN]
    filled = xr.apply_ufunc(
        _from_nearest,
        data.chunk({"y": -1, "x": -1}) if data.chunks else data,
        input_core_dims=[["y", "x"]],
        output_core_dims=[["y", "x"]],
        dask="parallelized",
        output_dtypes=[data.dtype],
        keep_attrs=True,
    )
    if inside is not None:
        filled = filled.where(inside)
    return cube.assign({MAIN: filled.transpose(*DIMS)})


def zone_mask(source: StrPath, grid: xr.Dataset | GeoBox, *, outside: float = 0.0) -> xr.DataArray:
    """Read which pixels lie in a zone: those of a raster that are neither nodata nor exactly `outside`.

    Parameters
    ----------
    source : path
        GeoTIFF, such as the index of one year; its first band is read.
    grid : xarray.Dataset or GeoBox
        Cube or grid to lay it on; other grids are resampled by nearest neighbour.
    outside : float, optional
        Stored number outside the zone.

    Returns
    -------
    xarray.DataArray
        ``(y, x)`` bool, in memory.

    Raises
    ------
    ArchiveError
        If the file cannot be read, or no pixel of the grid lies in the zone.
    """
    import rasterio
    from odc.geo.xr import xr_coords

    box = grid if isinstance(grid, GeoBox) else geobox_of(grid)
    try:
        with rasterio.open(source, driver="GTiff") as file:
            own = GeoBox(file.shape, file.transform, box.crs if file.crs is None else str(file.crs))
            where = positions(own, box)
            window = window_of(where, file.shape, 0)
            if window is None:
                raise ArchiveError(f"{source} lies beside the grid of shape {tuple(box.shape)}.")
            part = ((window.top, window.bottom), (window.left, window.right))
            values, nodata = file.read(1, window=part), file.nodata
    except rasterio.RasterioIOError as error:
        raise ArchiveError(f"{source} cannot be read as a zone: {error}") from error
    known = valid_in(values, nodata) & (values != outside) & np.isfinite(values)
    inside = sample_nearest(Pixels(values, known), window, where).valid
    if not inside.any():
        raise ArchiveError(f"{source}: no pixel of the grid of shape {tuple(box.shape)} lies in the zone.")
    return xr.DataArray(inside, xr_coords(box), ("y", "x"), attrs={"long_name": "pixels in the zone"})


def with_zones(cube: xr.Dataset, zones: Mapping[str, StrPath | Array], *, outside: float = 0.0) -> xr.Dataset:
    """Put zones beside the maps of a cube, as boolean variables that a store keeps.

    Parameters
    ----------
    cube : xarray.Dataset
        Yearly maps.
    zones : mapping
        Name to a raster (see :func:`zone_mask`) or to a ``(y, x)`` bool array.
    outside : float, optional
        Stored number outside the zone.

    Returns
    -------
    xarray.Dataset
        With ``zone_NAME (y, x)`` bool.

    Raises
    ------
    ArchiveError
        If a raster cannot be read or does not touch the grid.
    OptionError
        If an array has another shape.
    """
    shape = (cube.sizes["y"], cube.sizes["x"])
    found = {}
    for name, given in zones.items():
        inside: Any = given if isinstance(given, np.ndarray) else zone_mask(given, cube, outside=outside)
        if inside.shape != shape:
            raise OptionError(f"Zone {name!r} has shape {inside.shape}, the cube {shape}.")
        found[ZONE + name] = xr.Variable(
            ("y", "x"), np.asarray(inside, bool), {"long_name": f"pixels in zone {name}"}
        )
    return cube.assign(found)


def zones_of(cube: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the zones that lie beside the maps of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        From :func:`with_zones`, or opened from a store.

    Returns
    -------
    dict
        Name to ``(y, x)`` bool.
    """
    return {
        str(name).removeprefix(ZONE): variable.astype(bool)
        for name, variable in cube.data_vars.items()
        if str(name).startswith(ZONE)
    }


def read_yearly_npz(
    path: StrPath, index: str, *, like: xr.Dataset | GeoBox, missing: Missing = "raise"
) -> xr.Dataset:
    """Read an NPZ file of yearly maps as published (`data`, `valid_mask`, `years`) into a cube.

    Nothing in the file is run: arrays of Python objects are refused.

    Parameters
    ----------
    path : path
        File with ``data (t, h, w)`` float, ``valid_mask (t, h, w)`` bool and ``years (t,)``.
    index : str
        Name of the band.
    like : xarray.Dataset or GeoBox
        Cube or grid that tells where the pixels lie, which the file does not.
    missing : {"raise", "nan"}, optional
        What to do about holes in the years, which such files can have.

    Returns
    -------
    xarray.Dataset
        ``data (time, band, y, x)`` float32, NaN where not valid; in memory; dates are the first of January.

    Raises
    ------
    ArchiveError
        If the file cannot be read, lacks an array, or shapes do not agree.
    """
    wanted = ("data", "valid_mask", "years")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in wanted if name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{path} cannot be read as arrays: {error}") from error
    absent = [name for name in wanted if name not in found]
    if absent:
        raise ArchiveError(f"{path} lacks the arrays {absent}; expected {list(wanted)}.")
    box = like if isinstance(like, GeoBox) else geobox_of(like)
    values, valid, years = found["data"], found["valid_mask"].astype(bool), found["years"].ravel()
    if values.shape != (len(years), *box.shape) or valid.shape != values.shape:
        raise ArchiveError(
            f"{path}: data {values.shape}, valid_mask {valid.shape}, {len(years)} years; expected "
            f"({len(years)}, {box.height}, {box.width}), the grid given by like=."
        )
    order = np.argsort(years)
    dates = np.array([f"{int(year):04d}-01-01" for year in years[order]], dtype="datetime64[ns]")
    maps = np.where(valid, values, np.nan).astype("float32")[order][:, None]
    return with_all_years(_cube(maps, dates, index, box), missing=missing)


def read_mask(path: StrPath) -> BoolArray:
    """Read a pickled zone mask as published (``mask`` uint8 with 0 inside, 255 outside).

    Parameters
    ----------
    path : path
        Pickle of a dictionary with ``mask`` and ``original_shape``. It is read by a reader that knows nothing
        but NumPy arrays of numbers and plain containers, so nothing in it can run.

    Returns
    -------
    numpy.ndarray
        ``(h, w)`` bool, True inside.

    Raises
    ------
    SecurityError
        If the file holds anything else.
    ArchiveError
        If it holds no such mask.
    """
    found = read_array_pickle(path)
    mask = found.get("mask") if isinstance(found, dict) else None
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:  # noqa: PLR2004
        raise ArchiveError(f"{path} holds no dictionary with a two-dimensional array 'mask'.")
    shape = tuple(int(size) for size in found.get("original_shape", mask.shape))
    values = set(np.unique(mask).tolist())
    if shape != mask.shape or values - {0, MASKED}:
        raise ArchiveError(
            f"{path}: mask of shape {mask.shape} with values {sorted(values)[:_SHOWN]}, expected shape "
            f"{shape} with 0 inside and {MASKED} outside."
        )
    return np.asarray(mask == 0)


def _patterns(root: Path, index: str, zone: str | None) -> list[str]:
    """Return the patterns of all files of an index and zone; refuse years with two files."""
    if not root.is_dir():
        raise ArchiveError(f"No folder at {root}.")
    wanted = {word.casefold() for word in (index, zone) if word}
    by_year: dict[str, list[str]] = {}
    unread = []
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        # the folder itself may be named after the index: .../NDVI/map_2003.tif opened at .../NDVI
        words = {word.casefold() for word in re.split(r"[^A-Za-z0-9]+", f"{root.name}/{name}")}
        if file.suffix.lower() not in _SUFFIXES or not wanted <= words or "/." in f"/{name}":
            continue
        found = _YEAR.search(file.stem)
        if found is None or int(found[0]) not in _YEARS:
            unread.append(name)
        else:
            by_year.setdefault(found[0], []).append(name)
    what = f"index {index!r}" + (f" and zone {zone!r}" if zone else "")
    if unread or not by_year:
        why = f"have no year in their names: {unread[:_SHOWN]}" if unread else "are not there"
        raise ArchiveError(f"{root}: files of {what} {why}. Say how names are built with pattern=.")
    twice = {year: names for year, names in by_year.items() if len(names) > 1}
    if twice:
        raise ArchiveError(
            f"{root}: several files of {what} for {', '.join(list(twice)[:_SHOWN])}, such as "
            f"{next(iter(twice.values()))}. Give zone=, or pattern=."
        )
    patterns = []
    for year, (name,) in by_year.items():
        folder, slash, file_name = name.rpartition("/")
        place = _YEAR.search(file_name)  # not the first such digits, which may be part of a longer number
        start = 0 if place is None else place.start()
        dated = f"{file_name[:start]}{{date:%Y}}{file_name[start + len(year) :]}"
        patterns.append(folder + slash + dated)
    return list(dict.fromkeys(patterns))


def _physical(cube: xr.Dataset, outside: float | None) -> xr.Dataset:
    """Decode to float32, NaN where there is no data or the pixel lies outside."""
    data = cube[MAIN]
    values = to_physical(data)
    if outside is not None:
        values = values.where(is_valid(data, encoding_of(data).nodata) & (data != outside))
    values.attrs["_FillValue"] = np.float32("nan")
    values.encoding = {k: v for k, v in data.encoding.items() if k == "grid_mapping"}
    return cube[[MAIN]].assign({MAIN: values})


def _from_nearest(maps: Array) -> Array:
    """Fill the last two dimensions of an array from their nearest finite pixel."""
    filled = maps.copy()
    for place in np.ndindex(maps.shape[:-2]):
        empty = ~np.isfinite(maps[place])
        if empty.any() and not empty.all():
            rows, columns = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
            filled[place] = maps[place][rows, columns]
    return filled


def _cube(maps: Array, dates: Array, index: str, box: GeoBox) -> xr.Dataset:
    """Make a cube in memory."""
    from odc.geo.xr import xr_coords

    attrs = {"_FillValue": np.float32("nan"), "grid_mapping": "spatial_ref"}
    coords = {"time": dates, "band": np.array([index], dtype=object), **xr_coords(box)}
    return xr.Dataset({MAIN: (DIMS, maps, attrs)}, coords)
