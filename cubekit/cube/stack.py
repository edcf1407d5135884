"""One image file per date as a lazy cube, also where files do not say where they lie."""

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import odc.geo.xr
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from cubekit.cube.blocks import map_blocks, normalise, working_memory
from cubekit.cube.contract import DIMS, MAIN, Encoding
from cubekit.errors import ArchiveError, SourceError
from cubekit.sources.headers import DRIVERS
from cubekit.typing import Array

Order: TypeAlias = Literal["bands", "last", "pages"]
"""How a file holds its bands: as such; as the columns of many bands (h, w, c); as pages of one band."""

_MOST_BANDS = 6
_BLOCK = 1024
_QUIET = threading.Lock()  # catch_warnings() changes the whole process


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the header of an image file says."""

    order: Order
    shape: tuple[int, int, int]
    """Bands, rows, columns."""
    dtype: str
    nodata: float | None
    grid: GeoBox | None


def open_stack(
    files: Mapping[datetime, Path],
    bands: Sequence[str],
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    nodata: float | None = None,
    grid: GeoBox | xr.DataArray | None = None,
) -> xr.Dataset:
    """Open one image file per date as a lazy cube.

    Parameters
    ----------
    files : mapping of datetime to path
        TIFFs of one size and type.
    bands : sequence of str
        Names of the bands, in file order.
    scale : float, optional
        Number that stands for 1: ``physical = stored / scale + offset``.
    offset : float, optional
        Added after that.
    nodata : float, optional
        Stored number that means "no data". Default: what the files say.
    grid : odc.geo.geobox.GeoBox or xarray.DataArray, optional
        Where the images lie, whatever files say: a grid of their size, or an image on the same pixels.
        Default: the georeference of the first file; without any, ``y`` and ``x`` count pixels and there is no
        CRS.

    Returns
    -------
    xarray.Dataset
        ``data`` (time, band, y, x), stored numbers with CF coding, lazy; headers are read now.

    Raises
    ------
    ArchiveError
        If files differ in size or type, or hold another number of bands.
    SourceError
        If a file cannot be read.

    Notes
    -----
    Files hold their bands as such (c, h, w); some writers put them last (h, w, c), which GDAL reads as many
    bands of few columns, or into pages. The last axis is that of the bands where it has at most as many
    entries as there are bands (six, for four), else the first.
    """
    paths = [files[date] for date in sorted(files)]
    layouts = [_layout(path, max(_MOST_BANDS, len(bands))) for path in paths]
    first = layouts[0]
    for path, layout in zip(paths, layouts, strict=True):
        if layout.shape[0] != len(bands):
            raise ArchiveError(
                f"{path} holds {layout.shape[0]} bands, expected {len(bands)}: {', '.join(bands)}."
            )
        if (layout.shape, layout.dtype) != (first.shape, first.dtype):
            raise ArchiveError(
                f"{path} is {layout.dtype} of shape {layout.shape} (c, h, w), {paths[0].name} is "
                f"{first.dtype} of shape {first.shape}; images of a series must be alike."
            )
    chunks = normalise((1, -1, _BLOCK, _BLOCK), (len(paths), *first.shape), first.dtype)
    options = {
        "files": [str(path) for path in paths],
        "orders": [each.order for each in layouts],
        "chunks_of": chunks,
    }
    data = map_blocks(read_stack_block, chunks=chunks, dtype=first.dtype, options=options)
    stored = first.nodata if nodata is None else nodata
    coding = Encoding(dtype=first.dtype, nodata=stored, scale=1 / scale, offset=offset)
    times = np.array([date.replace(tzinfo=None) for date in sorted(files)], "datetime64[ns]")
    coords = {
        "time": times,
        "band": list(bands),
        **_coords(grid if grid is not None else first.grid, first, paths[0]),
    }
    return xr.Dataset({MAIN: xr.DataArray(data, dims=DIMS, coords=coords, attrs=coding.attrs())})


@working_memory(each=1)
def read_stack_block(
    *,
    files: Sequence[str],
    orders: Sequence[Order],
    chunks_of: tuple[tuple[int, ...], ...],
    block_id: tuple[int, ...],
) -> Array:
    """Read a part of one image.

    Parameters
    ----------
    files : sequence of str
        By date.
    orders : sequence of str
        How each holds its bands.
    chunks_of : tuple of tuple of int
        Sizes of the blocks along (time, band, y, x).
    block_id : tuple of int
        Number of the block along each.

    Returns
    -------
    numpy.ndarray
        ``(1, band, y, x)``, stored numbers.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    number, _, row, column = block_id
    rows, columns = (
        slice(sum(sizes[:at]), sum(sizes[: at + 1]))
        for sizes, at in ((chunks_of[2], row), (chunks_of[3], column))
    )
    path, order = files[number], orders[number]
    try:
        return _read(Path(path), order, rows, columns, count=sum(chunks_of[1]))[None]
    except RasterioError as error:
        raise SourceError(f"{path} cannot be read: {error}. Fetch the file again.") from error


def _read(path: Path, order: Order, rows: slice, columns: slice, *, count: int) -> Array:
    window = Window.from_slices(rows, columns)
    if order == "pages":
        pages = []
        for page in range(1, count + 1):
            with _open(path, page=page) as file:
                pages.append(file.read(1, window=window))
        return np.stack(pages)
    with _open(path) as file:
        if order == "bands":
            values: Array = file.read(window=window)
            return values
        wide = Window.from_slices(columns, slice(0, count))
        lines: Array = file.read(indexes=list(range(rows.start + 1, rows.stop + 1)), window=wide)
        return np.ascontiguousarray(lines.transpose(2, 0, 1))


def _open(path: Path, *, page: int | None = None) -> DatasetReader:
    """Open a TIFF or a page of one by its driver: no document in disguise leads elsewhere."""
    name = str(path) if page is None else f"GTIFF_DIR:{page}:{path}"
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # whether there is one is asked below
        return rasterio.open(name, driver=DRIVERS[path.suffix.lower()])


def _layout(path: Path, most: int) -> _Layout:
    try:
        with _open(path) as file:
            pages, shape = len(file.subdatasets) or 1, (file.count, file.height, file.width)
            order: Order = "pages" if file.count == 1 and pages > 1 else "bands"
            if order == "pages":
                shape = (pages, *shape[1:])
            elif shape[2] <= most:
                order, shape = "last", (shape[2], shape[0], shape[1])
            if shape[0] > most:
                raise ArchiveError(
                    f"{path} has axes of {shape}: neither the first nor the last is one of bands, of which "
                    f"there are {most} at most."
                )
            box = GeoBox.from_rio(file) if file.crs is not None and order == "bands" else None
            return _Layout(order=order, shape=shape, dtype=file.dtypes[0], nodata=file.nodata, grid=box)
    except RasterioError as error:
        raise SourceError(f"{path} cannot be read: {error}. Is the file whole, and a TIFF?") from error


def _coords(grid: GeoBox | xr.DataArray | None, layout: _Layout, path: Path) -> dict[str, Any]:
    """Return coordinates of rows and columns."""
    shape = layout.shape[1:]
    if grid is None:
        return {dim: np.arange(size) + 0.5 for dim, size in zip(("y", "x"), shape, strict=True)}
    found = grid.shape[-2:] if isinstance(grid, xr.DataArray) else grid.shape.yx
    if tuple(found) != shape:
        raise ArchiveError(
            f"{path} has {shape} rows and columns, the grid that it is to lie on has {tuple(found)}."
        )
    if isinstance(grid, xr.DataArray):
        names = [name for name in ("y", "x", "spatial_ref") if name in grid.coords]
        return {name: grid.coords[name].variable for name in names}
    return {str(name): coord for name, coord in odc.geo.xr.xr_coords(grid, dims=("y", "x")).items()}
