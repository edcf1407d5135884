"""Shares of each class in every pixel: polygons by exact coverage, fine maps averaged onto a coarse grid."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import odc.geo.xr
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.cube.contract import geobox_of
from cubekit.errors import LabelError, OptionError
from cubekit.labels.classes import UNLABELLED, ClassTable
from cubekit.labels.load import Classes, Source, resolve_classes
from cubekit.labels.raster import NONE, is_raster, read_codes
from cubekit.labels.vector import crs_of, read_features
from cubekit.typing import Array, FloatArray, IntArray, StrPath

_BLOCK = 2**25  # fine pixels averaged at once
_ZOOM = 2500  # fine pixels in a coarse one where that cannot be looked up: 10 m in 500 m
_SLACK = 1e-3  # rounding in outlines that touch

Shares = dict[int | str, FloatArray]
"""Covered share of each pixel (y, x), by class value."""


def load_fractions(
    source: Source,
    like: xr.Dataset | xr.DataArray | GeoBox,
    *,
    column: str = "class",
    classes: Classes | None = None,
    colours: Mapping[str, str] | Sequence[str] | None = None,
    ignore: Sequence[int | str] = (),
    min_coverage: float = 0.95,
) -> xr.Dataset:
    """Measure which share of every pixel each class takes.

    Polygons and pixels are intersected exactly (exactextract), as are rasters of codes in another CRS than
    the grid's; those in the same are averaged by area. Pixels without a code count neither as a class nor as
    covered land.

    Parameters
    ----------
    source : path, geopandas.GeoDataFrame or xarray.DataArray
        Polygon file, raster of codes finer than the grid, table of polygons, or codes with dims (y, x) and a
        CRS. Of files, only the part near the grid is read; large rasters block by block.
    like : xarray.Dataset, xarray.DataArray or odc.geo.geobox.GeoBox
        Cube or grid to measure on.
    column : str, optional
        Column that holds the class; for NetCDF files with several variables, the variable.
    classes : ClassTable, mapping or sequence, optional
        As for :func:`cubekit.load_labels`. Default: every value found, sorted.
    colours : mapping or sequence of str, optional
        ``"#rrggbb"`` by class name, or one for each class.
    ignore : sequence, optional
        Values of the source that mean "no label", besides nodata and empty cells.
    min_coverage : float, optional
        Pixels of which less is covered by classes have no label.

    Returns
    -------
    xarray.Dataset
        In memory: ``fraction`` (category, y, x) float32, 1 together, NaN without a label; ``coverage`` (y, x)
        float32, the share of the pixel that any class covers; ``label`` (y, x) int16, the index of the
        greatest share or -1; ``group`` (y, x) int32, a number for each pixel or -1. Where polygons of
        different classes overlap there is no label.

    Raises
    ------
    LabelError
        If the source cannot be read, nothing lies on the grid, the polygons are points, or no pixel is
        covered enough.
    UnknownNameError
        If the column or variable does not exist.
    OptionError
        If `min_coverage` is no share, or the grid does not go north up.

    Examples
    --------
    >>> shares = load_fractions("landcover_10m.tif", modis_grid)  # doctest: +SKIP
    """
    if not 0 < min_coverage <= 1:
        raise OptionError(f"min_coverage={min_coverage!r} must be a share above 0, up to 1.")
    grid = like if isinstance(like, GeoBox) else geobox_of(like)
    crs_of(grid)
    names = None
    if isinstance(source, xr.DataArray) or (isinstance(source, str | PathLike) and is_raster(source)):
        shares, names = _average(source, grid, column, ignore)
    else:
        shares = _cover(source, grid, column, ignore)
    found = sorted(shares)
    table = resolve_classes(found, names if classes is None else classes, colours)  # type: ignore[arg-type]
    return _dataset(shares, table, grid, min_coverage)


def _average(
    source: "StrPath | xr.DataArray", grid: GeoBox, variable: str, ignore: Sequence[int | str]
) -> tuple[Shares, dict[int, str] | None]:
    """Average a raster of codes onto a grid, one block after the other."""
    shares: Shares = {}
    names = None
    for rows, columns in _blocks(source, grid, variable):
        part = grid[rows, columns]
        try:
            fine, names = read_codes(source, part, variable=variable, ignore=ignore)
        except LabelError:
            if part.shape == grid.shape:
                raise
            continue  # a block beside the raster
        measure = _averages if fine.odc.geobox.crs == part.crs else _intersections
        for code, share in measure(fine, part):
            whole = shares.setdefault(code, np.zeros(grid.shape, "float32"))
            whole[rows, columns] = share
    if not shares:
        raise LabelError("No pixel of the grid gets a label: all are nodata, ignored, or off the raster.")
    return shares, names


def _averages(fine: xr.DataArray, coarse: GeoBox) -> Iterator[tuple[int, FloatArray]]:
    """Return the share of each code where fine and coarse pixels have parallel edges: GDAL weighs by area."""
    box: GeoBox = fine.odc.geobox
    # beyond the raster is no class either: an average would leave it out
    across = math.ceil(abs(coarse.resolution.x / box.resolution.x)) + 1
    down = math.ceil(abs(coarse.resolution.y / box.resolution.y)) + 1
    wide = box.pad(across, down)
    codes = np.pad(fine.to_numpy(), ((down, down), (across, across)), constant_values=NONE)
    for code in _codes(codes):
        mask = odc.geo.xr.wrap_xr((codes == code).astype("float32"), wide)
        share = mask.odc.reproject(coarse, resampling="average", dst_nodata=np.nan)
        yield code, np.nan_to_num(share.to_numpy())


def _intersections(fine: xr.DataArray, coarse: GeoBox) -> Iterator[tuple[int, FloatArray]]:
    """Return the share of each code where coarse pixels are askew on the raster: by their outlines on it."""
    import geopandas as gpd
    from exactextract import exact_extract

    box: GeoBox = fine.odc.geobox
    rows, columns = np.indices(coarse.shape)
    left, top = coarse.transform @ (columns.ravel(), rows.ravel())
    right, bottom = coarse.transform @ (columns.ravel() + 1, rows.ravel() + 1)
    cells = gpd.GeoDataFrame(geometry=shapely.box(left, bottom, right, top), crs=str(crs_of(coarse)))
    cells = cells.to_crs(str(crs_of(box)))
    found = exact_extract(
        _pixels(fine.to_numpy(), box, nodata=NONE), cells, ["unique", "frac", "count"], output="pandas"
    )
    area = cells.area.to_numpy() / abs(box.resolution.x * box.resolution.y)
    covered = found["count"].to_numpy("float64") / area
    for code in _codes(fine.to_numpy()):
        shares = [
            np.sum(share[values == code])
            for values, share in zip(found["unique"], found["frac"], strict=True)
        ]
        yield code, (np.array(shares) * covered).reshape(coarse.shape).astype("float32")


def _codes(values: IntArray) -> list[int]:
    return sorted({int(value) for value in np.unique(values)} - {NONE})


def _blocks(source: "StrPath | xr.DataArray", grid: GeoBox, variable: str) -> Iterator[tuple[slice, slice]]:
    """Cut a grid so that the fine pixels of a part fit in memory."""
    middle = grid[grid.shape.y // 2 : grid.shape.y // 2 + 1, grid.shape.x // 2 : grid.shape.x // 2 + 1]
    try:
        zoom = read_codes(source, middle, variable=variable)[0].size
    except LabelError:  # the middle lies beside the raster
        zoom = _ZOOM
    rows = max(1, int(_BLOCK / zoom / grid.shape.x))
    columns = min(grid.shape.x, max(1, int(_BLOCK / zoom)))
    for top in range(0, grid.shape.y, rows):
        for left in range(0, grid.shape.x, columns):
            yield (
                slice(top, min(top + rows, grid.shape.y)),
                slice(left, min(left + columns, grid.shape.x)),
            )


def _cover(source: Source, grid: GeoBox, column: str, ignore: Sequence[int | str]) -> Shares:
    """Intersect polygons with pixels, the polygons of one class as one area."""
    features = read_features(source, grid, column=column, ignore=ignore)
    if (shapely.get_dimensions(features.geometry) == 0).any():
        raise LabelError("Points cover no land, so they give no shares: use cubekit.load_labels.")
    of_class = pd.Series(list(features.geometry)).groupby(features.classes)
    values = [value for value, _ in of_class]
    outlines = [shapely.union_all(part.to_numpy()) for _, part in of_class]
    return dict(zip(values, _coverage(outlines, grid), strict=True))  # type: ignore[arg-type]


def _coverage(outlines: Sequence[shapely.Geometry], grid: GeoBox) -> list[FloatArray]:
    """Return the exact share of each pixel that each outline covers, (y, x) float32."""
    import geopandas as gpd
    from exactextract import exact_extract

    frame = gpd.GeoDataFrame(geometry=list(outlines), crs=str(crs_of(grid)))
    pixels = _pixels(np.zeros(grid.shape, "uint8"), grid)
    cells = exact_extract(pixels, frame, ["cell_id", "coverage"], output="pandas")
    shares = []
    for index, coverage in zip(cells["cell_id"], cells["coverage"], strict=True):
        share = np.zeros(grid.shape.y * grid.shape.x, "float32")
        share[np.asarray(index, int)] = coverage
        shares.append(share.reshape(grid.shape))
    return shares


def _pixels(values: Array, box: GeoBox, *, nodata: float | None = None) -> Any:
    """Return pixels as exactextract takes them."""
    from exactextract.raster import NumPyRasterSource

    if box.transform.e > 0 or box.transform.b or box.transform.d:
        raise OptionError("Shares are measured on grids that go north up and are not turned.")
    left, bottom, right, top = box.boundingbox
    crs = crs_of(box).to_wkt()
    return NumPyRasterSource(values, left, bottom, right, top, nodata=nodata, srs_wkt=crs)


def _dataset(shares: Shares, table: ClassTable, grid: GeoBox, min_coverage: float) -> xr.Dataset:
    """Scale shares to 1 where enough is covered, and name the greatest."""
    fraction = np.zeros((len(table), *grid.shape), "float32")
    for value, share in shares.items():
        names: tuple[int, ...] | tuple[str, ...] = table.codes if isinstance(value, int) else table.names
        fraction[names.index(value)] = share
    coverage = fraction.sum(axis=0)
    overlap = coverage > 1 + _SLACK
    if overlap.any():
        warnings.warn(
            f"{int(overlap.sum())} pixels are covered more than once, by different classes, and stay "
            "unlabelled.",
            UserWarning,
            stacklevel=3,
        )
    known = (coverage >= min_coverage - _SLACK) & ~overlap
    if not known.any():
        raise LabelError(
            f"No pixel is covered by classes to {min_coverage:.0%}; the most is {coverage.max():.0%}. Use a "
            "smaller min_coverage, or a finer grid."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = np.where(known, fraction / coverage, np.nan).astype("float32")
    label = np.where(known, np.nan_to_num(fraction).argmax(axis=0), UNLABELLED).astype("int16")
    group = np.where(known, np.arange(label.size).reshape(label.shape), UNLABELLED).astype("int32")
    attrs = table.attrs()
    return xr.Dataset(
        {
            "fraction": (("category", "y", "x"), fraction, {"units": "1", "long_name": "share of the pixel"}),
            "coverage": (("y", "x"), np.minimum(coverage, 1), {"units": "1", "long_name": "covered share"}),
            "label": (
                ("y", "x"),
                label,
                {"_FillValue": np.int16(UNLABELLED), "long_name": "greatest share", **attrs},
            ),
            "group": (("y", "x"), group, {"_FillValue": np.int32(UNLABELLED), "long_name": "pixel"}),
        },
        coords={"category": list(table.names), **odc.geo.xr.xr_coords(grid, always_yx=True)},
    )
