"""Rasters of class codes onto a grid, and the connected patches of one class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import odc.geo.xr
import scipy.ndimage
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.errors import RasterioError

from cubekit.errors import CubekitError, LabelError, OptionError, UnknownNameError, did_you_mean
from cubekit.labels.classes import UNLABELLED, ClassTable
from cubekit.labels.vector import crs_of
from cubekit.sources.headers import DRIVERS
from cubekit.typing import FloatArray, IntArray, StrPath

_SUFFIXES = {".tif", ".tiff", ".jp2", ".img", ".nc", ".nc4", ".h5", ".hdf5"}
_NETCDF = {".nc", ".nc4", ".h5", ".hdf5"}
NONE = int(np.iinfo("int32").min)
"""Code of "nothing here": no source writes it, so it passes through resampling."""


@dataclass(frozen=True)
class Codes:
    """Codes on a grid."""

    values: IntArray
    """(y, x) int32; the least int32 where there is no label."""

    found: list[int]
    """Sorted codes that occur."""

    names: dict[int, str] | None
    """Names from the file's CF flags, or None."""

    def to_index(self, table: ClassTable) -> IntArray:
        """Replace codes by class indices.

        Parameters
        ----------
        table : ClassTable
            Knows every code found.

        Returns
        -------
        numpy.ndarray
            (y, x) int16, -1 where there is no label.
        """
        codes = np.array(table.codes)
        order = np.argsort(codes)
        place = np.searchsorted(codes[order], self.values).clip(max=len(codes) - 1)
        return np.where(self.values == NONE, UNLABELLED, order[place]).astype("int16")


def is_raster(path: StrPath) -> bool:
    """Tell by its suffix whether a label file is a raster.

    Parameters
    ----------
    path : path
        Need not exist.

    Returns
    -------
    bool
        True for GeoTIFF, JPEG 2000, Erdas Imagine, NetCDF and HDF5.
    """
    return Path(path).suffix.lower() in _SUFFIXES


def place_codes(
    source: "StrPath | xr.DataArray",
    grid: GeoBox,
    *,
    variable: str = "class",
    ignore: Sequence[int | str] = (),
) -> Codes:
    """Bring class codes onto a grid by nearest neighbour.

    Parameters
    ----------
    source : path or xarray.DataArray
        Whole numbers with dims (y, x) and a CRS; only the part near the grid is read.
    grid : odc.geo.geobox.GeoBox
        Target grid.
    variable : str, optional
        Variable of a NetCDF file that has several.
    ignore : sequence, optional
        Codes that mean "no label", besides nodata.

    Returns
    -------
    Codes
        In memory; at least one pixel has a code.

    Raises
    ------
    LabelError
        If the raster has no CRS, is not near the grid, holds fractions, or no pixel of the grid gets a code.
    UnknownNameError
        If the variable does not exist.
    """
    values, names = read_codes(source, grid, variable=variable, ignore=ignore)
    if values.odc.geobox != grid:
        values = values.odc.reproject(grid, resampling="nearest", dst_nodata=NONE)
    found = sorted({int(code) for code in np.unique(values)} - {NONE})
    if not found:
        raise LabelError("No pixel of the grid gets a label: all are nodata, ignored, or off the raster.")
    return Codes(values.to_numpy(), found, names)


def read_codes(
    source: "StrPath | xr.DataArray",
    grid: GeoBox,
    *,
    variable: str = "class",
    ignore: Sequence[int | str] = (),
) -> tuple[xr.DataArray, dict[int, str] | None]:
    """Read class codes around a grid, on the raster's own pixels.

    Parameters
    ----------
    source : path or xarray.DataArray
        Whole numbers with dims (y, x) and a CRS.
    grid : odc.geo.geobox.GeoBox
        Whose surroundings are read.
    variable : str, optional
        Variable of a NetCDF file that has several.
    ignore : sequence, optional
        Codes that mean "no label", besides nodata.

    Returns
    -------
    values : xarray.DataArray
        (y, x) int32, `NONE` where there is no label.
    names : dict or None
        Names from the file's CF flags.

    Raises
    ------
    LabelError
        If the raster has no CRS, is not near the grid, or holds fractions.
    UnknownNameError
        If the variable does not exist.
    """
    raster = source if isinstance(source, xr.DataArray) else _open(Path(source), variable, grid)
    raster = raster.squeeze(drop=True)
    box = raster.odc.geobox if raster.ndim == 2 else None  # noqa: PLR2004
    if not isinstance(box, GeoBox) or box.crs is None:
        raise LabelError(
            f"A raster of labels needs dims (y, x) and a CRS; found dims {raster.dims} of sizes "
            f"{raster.shape}. Set the CRS with array.rio.write_crs('EPSG:…')."
        )
    rows, columns = _window(box, grid)
    near = raster.isel(dict(zip(raster.odc.spatial_dims, (rows, columns), strict=True)))
    return _whole_numbers(near, ignore), _flag_names(raster)


def connected_patches(label: IntArray) -> IntArray:
    """Give each connected patch of one class a number.

    Parameters
    ----------
    label : numpy.ndarray
        Class index (y, x), -1 without a label.

    Returns
    -------
    numpy.ndarray
        (y, x) int32, -1 without a label. Pixels that touch at a corner are connected, so that samples of one
        field are not parted.
    """
    group = np.full(label.shape, UNLABELLED, "int32")
    start = 0
    for index in np.unique(label[label >= 0]):
        patches, count = scipy.ndimage.label(label == index, structure=np.ones((3, 3)))
        inside = patches > 0
        group[inside] = patches[inside] - 1 + start
        start += count
    return group


def _open(path: Path, variable: str, grid: GeoBox) -> xr.DataArray:
    """Open the part of a raster near the grid, with its stored numbers."""
    if not path.is_file():
        raise LabelError(f"No label file {str(path)!r}.")
    try:
        return _read_raster(path, variable, grid)
    except CubekitError:
        raise
    except (RasterioError, OSError, ValueError) as error:
        raise LabelError(
            f"{str(path)!r} cannot be read as a raster of labels: {str(error).rstrip('.')}. Is it whole, and "
            "of the format that its ending says?"
        ) from error


def _read_raster(path: Path, variable: str, grid: GeoBox) -> xr.DataArray:
    """Read a raster by its suffix."""
    if path.suffix.lower() not in _NETCDF:
        return _read_window(path, grid)
    with xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, decode_coords="all") as dataset:
        names = [str(name) for name in dataset.data_vars]
        if variable not in names and len(names) != 1:
            raise UnknownNameError(
                f"{path.name!r} has no variable {variable!r}; name one with column=. "
                f"{did_you_mean(variable, names)}"
            )
        return dataset[variable if variable in names else names[0]].load()


def _read_window(path: Path, grid: GeoBox) -> xr.DataArray:
    """Read the part of a GeoTIFF or the like that lies near the grid."""
    import rasterio
    from rasterio.windows import Window

    # by its suffix, so that no VRT or other document in disguise leads elsewhere
    with rasterio.open(path, driver=DRIVERS[path.suffix.lower()]) as file:
        box = GeoBox.from_rio(file)
        if file.count != 1 or box.crs is None:
            raise LabelError(
                f"{path.name!r} must hold one georeferenced band of codes; found {file.count} bands and CRS "
                f"{file.crs}. Select the band and pass it as a DataArray with a CRS."
            )
        rows, columns = _window(box, grid)
        values = file.read(1, window=Window.from_slices(rows, columns))
        return odc.geo.xr.wrap_xr(values, box[rows, columns], nodata=file.nodata)


def _window(box: GeoBox, grid: GeoBox) -> tuple[slice, slice]:
    """Return the rows and columns of a raster around a grid, so that no world map is read for one scene."""
    margin = 2  # pixels, for the curvature between the points along the edge
    x, y = _outline(grid, crs_of(box))
    to_pixel = ~box.transform
    column, row = (
        (to_pixel.a * x + to_pixel.b * y + to_pixel.c),
        (to_pixel.d * x + to_pixel.e * y + to_pixel.f),
    )
    starts = (math.floor(row.min()) - margin, math.floor(column.min()) - margin)
    stops = (math.ceil(row.max()) + margin, math.ceil(column.max()) + margin)
    rows, columns = (
        slice(max(start, 0), min(stop, size))
        for start, stop, size in zip(starts, stops, box.shape, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise LabelError(
            f"The raster of labels does not reach the grid. In its CRS it spans {_bounds(box.boundingbox)}, "
            f"the grid {_bounds((x.min(), y.min(), x.max(), y.max()))} (left, bottom, right, top)."
        )
    return rows, columns


def _outline(grid: GeoBox, crs: CRS) -> tuple[FloatArray, FloatArray]:
    """Return points along the edge of a grid in another CRS."""
    step = np.linspace(0, 1, 33)
    column = np.concatenate([step, np.ones(33), step, np.zeros(33)]) * grid.shape.x
    row = np.concatenate([np.zeros(33), step, np.ones(33), step]) * grid.shape.y
    to_world = grid.transform
    x, y = (
        (to_world.a * column + to_world.b * row + to_world.c),
        (to_world.d * column + to_world.e * row + to_world.f),
    )
    x, y = Transformer.from_crs(crs_of(grid).proj, crs.proj, always_xy=True).transform(x, y)
    return x, y


def _whole_numbers(raster: xr.DataArray, ignore: Sequence[int | str]) -> xr.DataArray:
    """Read codes as int32 and mark nodata and ignored codes."""
    values = raster.to_numpy()
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for nodata in (
        raster.attrs.get("_FillValue"),
        raster.attrs.get("nodata"),
        raster.encoding.get("_FillValue"),
    ):
        if nodata is not None:
            missing |= values == nodata
    numbers = np.where(missing, 0, values)
    if (numbers != np.floor(numbers)).any() or (np.abs(numbers.astype("float64")) > -float(NONE) - 1).any():
        raise LabelError(
            f"Class codes must be whole numbers of 32 bits; found {values.dtype} {numbers.max()}."
        )
    codes = numbers.astype("int32")
    if not all(isinstance(code, int) for code in ignore):
        raise OptionError(f"ignore={list(ignore)!r} must hold whole numbers, as rasters of labels do.")
    missing |= np.isin(codes, list(ignore))
    marked = raster.copy(data=np.where(missing, NONE, codes).astype("int32"))
    marked.attrs = {key: value for key, value in raster.attrs.items() if key == "grid_mapping"} | {
        "nodata": NONE
    }
    return marked


def _flag_names(raster: xr.DataArray) -> dict[int, str] | None:
    """Read class names from CF flags."""
    values, meanings = raster.attrs.get("flag_values"), raster.attrs.get("flag_meanings")
    if values is None or not isinstance(meanings, str):
        return None
    return dict(zip((int(v) for v in np.atleast_1d(values)), meanings.split(), strict=False))


def _bounds(box: Iterable[float]) -> str:
    """Write bounds with enough digits for metres and degrees."""
    return "(" + ", ".join(f"{edge:.8g}" for edge in box) + ")"
