"""Whether a file is what its item says: type, size, CRS, place, nodata."""

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.io import DatasetReader

from cubekit.cube.resample import to_pixels
from cubekit.errors import MetadataMismatchError

if TYPE_CHECKING:
    from cubekit.cube.reader import Source


def check_conforms(source: "Source", file: DatasetReader) -> None:
    """Raise where a file is not what its item says."""
    form = source.form
    if form.band > file.count:
        raise _mismatch(source, "number of bands", file.count, f"at least {form.band}")
    dtype = file.dtypes[form.band - 1]
    if dtype != form.dtype:
        raise _mismatch(source, "data type", dtype, form.dtype)
    if file.shape != form.geobox.shape.yx:
        raise _mismatch(source, "size (rows, columns)", file.shape, form.geobox.shape.yx)
    if file.crs is None:
        raise _mismatch(source, "CRS", "none", form.geobox.crs)
    if not _same_crs(file.crs.to_wkt(), str(form.geobox.crs)):
        raise _mismatch(source, "CRS", file.crs.to_string(), form.geobox.crs)
    if file.transform != form.geobox.transform and not _same_place(file.transform, form.geobox):
        raise _mismatch(source, "transform", tuple(file.transform)[:6], tuple(form.geobox.transform)[:6])
    nodata = file.nodatavals[form.band - 1]
    stated = None if form.nodata_given else form.nodata
    if nodata is not None and stated is not None and not _same_number(nodata, stated, form.dtype):
        raise _mismatch(source, "nodata", nodata, form.nodata)


def _mismatch(source: "Source", what: str, found: object, expected: object) -> MetadataMismatchError:
    return MetadataMismatchError(
        f"{source.label}: the {what} of the file is {found}, its metadata says {expected}. "
        "Correct the item (or the catalog, or the arguments of open_archive), or leave this item out."
    )


@lru_cache(maxsize=256)
def _same_crs(one: str, other: str) -> bool:
    """Tell whether two CRSs are one, names and axis order aside."""
    from pyproj import CRS

    first, second = CRS(one), CRS(other)
    if first.equals(second, ignore_axis_order=True):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that PROJ strings say less than WKT
        texts = {first.to_proj4(), second.to_proj4()}
    return len(texts) == 1 and texts != {""}


def _same_place(found: Affine, box: GeoBox) -> bool:
    """Tell whether a transform puts the pixels of a grid within a hundredth of a pixel of where they are."""
    cols, rows = np.array([0.0, box.shape.x, 0.0]), np.array([0.0, 0.0, box.shape.y])
    x, y = found.a * cols + found.b * rows + found.c, found.d * cols + found.e * rows + found.f
    there = to_pixels(box, x, y)
    return bool(np.abs([there.cols - cols, there.rows - rows]).max() < 1e-2)  # noqa: PLR2004


def _same_number(one: float, other: float, dtype: str) -> bool:
    if np.isnan(one) or np.isnan(other):
        return bool(np.isnan(one) and np.isnan(other))
    if np.dtype(dtype).kind == "f":
        return bool(np.dtype(dtype).type(one) == np.dtype(dtype).type(other))
    return one == other
