"""Labels on a grid: one entry for polygons, points and rasters."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import odc.geo.xr
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.cube.contract import geobox_of
from cubekit.errors import LabelError, OptionError, did_you_mean
from cubekit.labels.classes import UNLABELLED, ClassTable
from cubekit.labels.raster import connected_patches, is_raster, place_codes
from cubekit.labels.vector import burn, read_features
from cubekit.typing import IntArray, StrPath

if TYPE_CHECKING:
    import geopandas as gpd

Classes: TypeAlias = ClassTable | Mapping[int, str] | Sequence[str]
"""Ways to say which classes there are, and in which order."""

Source: TypeAlias = "StrPath | gpd.GeoDataFrame | xr.DataArray"
"""What labels may come from."""

MAX_CLASSES = 254
"""Most classes: maps hold them in a byte beside nodata."""

_MANY = 10  # values listed in a message before the rest is counted


def load_labels(
    source: Source,
    like: xr.Dataset | xr.DataArray | GeoBox,
    *,
    column: str = "class",
    inward: float = 0.0,
    all_touched: bool = False,
    classes: Classes | None = None,
    colours: Mapping[str, str] | Sequence[str] | None = None,
    ignore: Sequence[int | str] = (),
) -> xr.Dataset:
    """Bring reference labels onto a grid.

    Polygons are reprojected to the grid's CRS, shrunk by `inward` and burned; points label the pixel they lie
    in; rasters of codes are resampled by nearest neighbour. Where features of one class overlap, the first in
    the file owns the pixel; where features of different classes do, the pixel stays unlabelled and is counted
    in the attribute ``conflicting_pixels``.

    Parameters
    ----------
    source : path, geopandas.GeoDataFrame or xarray.DataArray
        Polygon or point file, raster file, table of geometries, or codes with dims (y, x) and a CRS.
    like : xarray.Dataset, xarray.DataArray or odc.geo.geobox.GeoBox
        Cube or grid that the labels shall lie on.
    column : str, optional
        Column that holds the class; for NetCDF files with several variables, the variable.
    inward : float, optional
        Metres to shrink polygons by, so that mixed border pixels stay out. Polygons only.
    all_touched : bool, optional
        Label every pixel that a polygon touches instead of those whose centre it covers.
    classes : ClassTable, mapping or sequence, optional
        ``{code: name}`` where the source holds numbers, names where it holds names. The order given is the
        order of class indices. Default: every value found, sorted.
    colours : mapping or sequence of str, optional
        ``"#rrggbb"`` by class name, or one for each class. Default: fitting ones.
    ignore : sequence, optional
        Values of the source that mean "no label", besides nodata and empty cells.

    Returns
    -------
    xarray.Dataset
        In memory, on the grid: ``label`` (y, x) int16, the class index or -1; ``group`` (y, x) int32, the
        feature's id in its file (position in a GeoDataFrame) or, for rasters, the connected patch; -1 without
        a label. ``label`` carries ``classes``, ``colours`` and ``codes``; the dataset says what was left out.

    Raises
    ------
    LabelError
        If the file cannot be read, nothing lies on the grid (both extents are given), the inward buffer
        leaves nothing, a value has no class, there are more classes than a map can hold, or metres are asked
        for on a grid in degrees.
    UnknownNameError
        If the column or variable does not exist.
    OptionError
        If an option does not fit the kind of source.
    SecurityError
        If a file of polygons or points is a virtual one that names others.

    Examples
    --------
    >>> labels = load_labels("fields.gpkg", cube, column="crop", inward=20)  # doctest: +SKIP
    """
    grid = like if isinstance(like, GeoBox) else geobox_of(like)
    if isinstance(source, xr.DataArray) or (isinstance(source, str | PathLike) and is_raster(source)):
        if inward or all_touched:
            raise OptionError(
                "inward and all_touched apply to polygons, and these labels are a raster: erode the raster "
                "first, or give its polygons."
            )
        codes = place_codes(source, grid, variable=column, ignore=ignore)
        table = resolve_classes(codes.found, codes.names if classes is None else classes, colours)
        label = codes.to_index(table)
        return _dataset(label, connected_patches(label), table, grid)

    features = read_features(source, grid, column=column, ignore=ignore)
    table = resolve_classes(features.found, classes, colours)
    burnt = burn(features, table, grid, inward=inward, all_touched=all_touched)
    return _dataset(burnt.label, burnt.group, table, grid).assign_attrs(burnt.counts)


def resolve_classes(
    found: Sequence[int] | Sequence[str],
    classes: Classes | None,
    colours: Mapping[str, str] | Sequence[str] | None,
) -> ClassTable:
    """Make the class table from the values found and what the caller says about them.

    Parameters
    ----------
    found : sequence
        Sorted class values of the source: all whole numbers, or all names.
    classes : ClassTable, mapping or sequence, optional
        As :func:`load_labels` takes it.
    colours : mapping or sequence of str, optional
        As :func:`load_labels` takes it.

    Returns
    -------
    ClassTable
        Knows every value found.

    Raises
    ------
    LabelError
        If a value is no class, or there are too many.
    OptionError
        If `classes` does not fit the values.
    """
    if classes is None and len(found) > MAX_CLASSES:
        raise LabelError(
            f"The labels hold {len(found)} different values ({_shown(found)}), at most {MAX_CLASSES} can be "
            "classes. Is this an image, or an id in place of a class? Name the column, or give classes=."
        )
    if isinstance(classes, ClassTable):
        table = classes
    elif isinstance(classes, Mapping):
        if not all(isinstance(code, int) for code in classes):
            raise OptionError(
                f"classes must map whole numbers to names; found the keys {_shown(list(classes))}."
            )
        table = ClassTable.of(tuple(classes.values()), colours=colours, codes=tuple(classes))
    else:
        numbers = [value for value in found if isinstance(value, int)]
        if classes is not None and numbers:
            raise OptionError(
                f"The labels hold numbers ({_shown(found)}): give classes as {{number: name}}, since a list "
                "of names leaves open which is which."
            )
        names = classes if classes is not None else [str(value) for value in found]
        table = ClassTable.of(names, colours=colours, codes=numbers or None)
    known = {*table.names, *table.codes}
    unknown = [value for value in found if value not in known]
    if unknown:
        options = table.codes if isinstance(unknown[0], int) else table.names
        raise LabelError(
            f"The labels hold values that are no class: {_shown(unknown)}. "
            f"{did_you_mean(unknown[0], options)} Add them to classes or to ignore."
        )
    return table


def _shown(values: Sequence[object]) -> str:
    """List the first few values."""
    more = f" and {len(values) - _MANY} more" if len(values) > _MANY else ""
    return ", ".join(repr(value) for value in values[:_MANY]) + more


def _dataset(label: IntArray, group: IntArray, table: ClassTable, grid: GeoBox) -> xr.Dataset:
    """Wrap index and group arrays as a dataset on the grid."""
    label_attrs = {"_FillValue": np.int16(UNLABELLED), "long_name": "class index", **table.attrs()}
    group_attrs = {"_FillValue": np.int32(UNLABELLED), "long_name": "feature or connected patch"}
    return xr.Dataset(
        {"label": (("y", "x"), label, label_attrs), "group": (("y", "x"), group, group_attrs)},
        coords=odc.geo.xr.xr_coords(grid, always_yx=True),
    )
