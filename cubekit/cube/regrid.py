"""A cube of one pixel size on the grid of another, lazily: a coarse image beside a fine one."""

from typing import Any, Literal, TypeAlias

import dask.array as da
import numpy as np
import odc.geo.xr
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.cube.blocks import Chunks, is_lazy, normalise, working_memory
from cubekit.cube.contract import geobox_of, to_physical
from cubekit.cube.places import Positions
from cubekit.cube.resample import Pixels, Window, positions, sample_bilinear, sample_nearest, window_of
from cubekit.errors import check_option
from cubekit.typing import Array, FloatArray, IntArray

Kernel: TypeAlias = Literal["nearest", "bilinear", "cubic"]
"""How values between the centres of pixels are found."""

KERNELS = ("nearest", "bilinear", "cubic")

_REACH = 2  # pixels that the widest kernel looks at on each side
_BLOCK = 512


def regrid(
    values: xr.DataArray, grid: GeoBox, *, resampling: Kernel = "cubic", chunks: Chunks | None = None
) -> xr.DataArray:
    """Bring an array onto a finer grid.

    Parameters
    ----------
    values : xarray.DataArray
        Dims ``(…, y, x)`` with a CRS, stored numbers with CF coding or physical ones; lazy or in memory. Each
        layer of y and x becomes one Dask block: meant for images that are small beside the grid.
    grid : odc.geo.geobox.GeoBox
        Wanted grid, in any CRS.
    resampling : {"cubic", "bilinear", "nearest"}, optional
        Kernel between the centres of pixels. Cubic is that of Keys (1981) with a = -0.5, as GDAL's; next to a
        pixel without data it is bilinear.
    chunks : tuple of tuple of int, optional
        Sizes of the blocks of the result along y and x. Default: 512.

    Returns
    -------
    xarray.DataArray
        Physical values, float32, on `grid`; NaN where the pixel that a place falls into holds no data. As
        lazy as `values`, and the same to the last bit for any chunks.

    Raises
    ------
    OptionError
        If the kernel is not known.
    CubeError
        If `values` have no grid.

    References
    ----------
    Keys 1981, doi:10.1109/TASSP.1981.1163711.
    """
    check_option("resampling", resampling, KERNELS)
    source, physical = geobox_of(values), to_physical(values)
    if source == grid:
        return physical
    dims = (*physical.dims[:-2], "y", "x")
    options: dict[str, Any] = {"source": source, "target": grid, "kernel": resampling}
    data, rows, cols = physical.data, np.arange(grid.shape.y), np.arange(grid.shape.x)
    if is_lazy(data):
        sizes = chunks or normalise((_BLOCK, _BLOCK), grid.shape.yx, "float32")
        lines = [da.from_array(a, chunks=(n,)) for a, n in zip((rows, cols), sizes, strict=True)]  # type: ignore[no-untyped-call]
        outer, (y, x, row, column) = tuple(range(data.ndim - 2)), range(data.ndim, data.ndim + 4)
        found: Any = da.blockwise(  # type: ignore[no-untyped-call]
            regrid_block,
            (*outer, y, x),
            data.rechunk({data.ndim - 2: -1, data.ndim - 1: -1}),
            (*outer, row, column),
            lines[0],
            (y,),
            lines[1],
            (x,),
            dtype="float32",
            concatenate=True,
            align_arrays=False,
            meta=np.empty((0,) * data.ndim, "float32"),
            **options,
        )
    else:
        found = regrid_block(data, rows, cols, **options)
    spatial = {str(name): value for name, value in odc.geo.xr.xr_coords(grid, dims=("y", "x")).items()}
    kept = {
        str(name): coord
        for name, coord in physical.coords.items()
        if not set(coord.dims) & set(physical.dims[-2:]) and name not in spatial and coord.dims
    }
    return xr.DataArray(found, dims=dims, coords=kept | spatial, attrs=physical.attrs, name=values.name)


@working_memory(each=16)
def regrid_block(
    values: Array, rows: IntArray, cols: IntArray, *, source: GeoBox, target: GeoBox, kernel: Kernel
) -> FloatArray:
    """Bring layers of one image onto a part of a grid.

    Parameters
    ----------
    values : numpy.ndarray
        ``(…, y, x)`` on the whole of `source`, NaN where there is no data.
    rows, cols : numpy.ndarray
        Consecutive rows and columns of `target`.
    source, target : odc.geo.geobox.GeoBox
        Grids.
    kernel : {"cubic", "bilinear", "nearest"}
        As in :func:`regrid`.

    Returns
    -------
    numpy.ndarray
        ``(…, rows, cols)`` float32.
    """
    out = np.full((*values.shape[:-2], len(rows), len(cols)), np.nan, "float32")
    if not rows.size or not cols.size:
        return out
    part = target[int(rows[0]) : int(rows[-1]) + 1, int(cols[0]) : int(cols[-1]) + 1]
    where = positions(source, part)
    window = window_of(where, source.shape.yx, _REACH + 1)
    if window is None:
        return out
    near = values[..., window.top : window.bottom, window.left : window.right]
    sample = {"nearest": sample_nearest, "bilinear": sample_bilinear, "cubic": sample_cubic}[kernel]
    for layer in np.ndindex(*values.shape[:-2]):
        found = sample(Pixels(near[layer], np.isfinite(near[layer])), window, where)
        out[layer] = np.where(found.valid, found.values, np.nan)
    return out


def sample_cubic(pixels: Pixels, window: Window, where: Positions) -> Pixels:
    """Weigh the sixteen pixels around each position; where one of them is no data, the nearest four.

    Parameters
    ----------
    pixels : Pixels
        Of the window.
    window : Window
        Its place in the source.
    where : Positions
        In pixels of the source.

    Returns
    -------
    Pixels
        Floats; valid where the pixel that the position falls into is. Beyond the rim its pixels are repeated.
    """
    smooth = sample_bilinear(pixels, window, where)
    values = np.where(pixels.valid, pixels.values, 0).astype("float64")
    hole = (~pixels.valid).astype("float64")
    rows = _taps(where.rows - 0.5 - window.top, values.shape[0])
    cols = _taps(where.cols - 0.5 - window.left, values.shape[1])
    total, touched = np.zeros(smooth.values.shape), np.zeros(smooth.values.shape, bool)
    for row, down in rows:
        for col, right in cols:
            total += down * right * values[row, col]
            touched |= hole[row, col] > 0
    return Pixels(np.where(touched, smooth.values, total).astype(smooth.values.dtype), smooth.valid)


def _taps(places: FloatArray, size: int) -> list[tuple[IntArray, FloatArray]]:
    """Return the four pixels around each place along an axis, and their weights."""
    first = np.floor(np.nan_to_num(places, posinf=0.0, neginf=0.0))
    t = places - first
    weights = (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    return [
        (np.clip(first + step, 0, size - 1).astype(np.intp), weight)
        for step, weight in zip((-1, 0, 1, 2), weights, strict=True)
    ]
