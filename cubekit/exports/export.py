"""One door for every form of a result: the suffix of the path says which."""

from os import PathLike
from pathlib import Path

import xarray as xr

from cubekit.cube.contract import MAIN, geobox_of
from cubekit.errors import CubekitError, ExportError, OptionError, did_you_mean
from cubekit.exports.cog import refuse_existing, write_cog
from cubekit.exports.variable import choose

SUFFIXES = (".tif", ".tiff", ".zarr", ".png", ".json")


def export(
    data: xr.Dataset | xr.DataArray,
    path: str | PathLike[str],
    *,
    variable: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write a prediction, a cube or one of their variables in a form that others read.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        On a grid, lazy or not; computed block by block, once.
    path : path
        The suffix chooses the form: ``.tif`` a Cloud-Optimised GeoTIFF with colours and class names,
        ``.zarr`` a store, ``.png`` a figure with legend, ``.json`` a STAC item that describes the GeoTIFF of
        the same name beside it, which is written where it is missing.
    variable : str, optional
        Which variable. Default: ``class``, else the only one, else ``data``; all of them for ``.zarr``.
    overwrite : bool, optional
        Whether to replace what lies there; it stays whole until the new is.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.

    Returns
    -------
    pathlib.Path
        What was written.

    Raises
    ------
    OptionError
        For an unknown suffix.
    UnknownNameError
        If there is no such variable.
    ExportError
        If the target exists or cannot be written, or the variable does not fit the form.

    Examples
    --------
    >>> import cubekit as ck
    >>> ck.export(prediction, "landcover.tif")  # doctest: +SKIP
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"{target} ends in {suffix!r}. {did_you_mean(suffix, SUFFIXES)}")
    if suffix == ".zarr":
        return _export_store(data, target, variable, overwrite=overwrite, progress=progress)
    refuse_existing(target, overwrite=overwrite)
    chosen = choose(data, variable)
    try:
        if suffix == ".png":
            return _export_figure(chosen, target)
        if suffix == ".json":
            return _export_item(chosen, target, progress=progress)
        return write_cog(chosen, target, overwrite=overwrite, progress=progress)
    except OSError as error:
        if isinstance(error, CubekitError):
            raise
        raise ExportError(
            f"Cannot write {target}: {error.strerror or error}. Choose another path."
        ) from error


def _export_store(
    data: xr.Dataset | xr.DataArray,
    target: Path,
    variable: str | None,
    *,
    overwrite: bool,
    progress: bool | None,
) -> Path:
    """Write a store."""
    from cubekit.store.write import write

    whole = data if isinstance(data, xr.Dataset) and variable is None else None
    chosen = whole if whole is not None else _as_dataset(choose(data, variable))
    write(chosen, target, layout="maps", overwrite=overwrite, progress=progress)
    return target


def _as_dataset(variable: xr.DataArray) -> xr.Dataset:
    """Return a dataset of one variable."""
    return variable.to_dataset(name=variable.name if variable.name is not None else MAIN)


def _export_figure(variable: xr.DataArray, target: Path) -> Path:
    """Write a figure: a map, or a quicklook of a cube."""
    from cubekit.exports.figures import map_figure, rgb_figure, save_figure

    is_cube = "band" in variable.dims
    figure = rgb_figure(_as_dataset(variable.rename(MAIN))) if is_cube else map_figure(variable)
    written: Path = save_figure(figure, target)
    return written


def _export_item(variable: xr.DataArray, target: Path, *, progress: bool | None) -> Path:
    """Write a STAC item, and the GeoTIFF it describes where there is none."""
    import rasterio

    from cubekit.exports.stac import save_item, stac_item

    file = target.with_suffix(".tif")
    if not file.exists():
        write_cog(variable, file, progress=progress)
    box = geobox_of(variable)
    with rasterio.open(file) as raster:
        if raster.shape != box.shape or not raster.transform.almost_equals(box.transform):
            raise ExportError(
                f"{file} lies on another grid ({raster.shape[0]} x {raster.shape[1]} pixels) than the data "
                f"({box.height} x {box.width}), so {target.name} cannot describe both. Give another name."
            )
    return save_item(stac_item(file), target)
