"""Two cubes on one grid, with the same bands."""

from collections.abc import Mapping, Sequence

import dask
import xarray as xr

from cubekit.cube.blocks import is_lazy
from cubekit.cube.contract import DIMS, MAIN, geobox_of, to_physical
from cubekit.cube.regrid import Kernel, regrid
from cubekit.errors import CubeError, OptionError, UnknownNameError, did_you_mean
from cubekit.store.open import open_store
from cubekit.typing import FloatArray, StrPath


def align(
    coarse: xr.Dataset | xr.DataArray | StrPath,
    fine: xr.Dataset | xr.DataArray | StrPath,
    *,
    bands: Sequence[str] | Mapping[str, str] | None = None,
    resampling: Kernel = "cubic",
) -> xr.DataArray:
    """Bring all dates of a coarse cube onto the grid of a fine one.

    Parameters
    ----------
    coarse, fine : xarray.Dataset, xarray.DataArray or path
        Cubes, or stores of them: dims ``(time, band, y, x)``, stored numbers with CF coding or physical
        values.
    bands : sequence of str or mapping, optional
        Names that both have, or fine name to coarse name. Default: all that both have, in the order of the
        fine cube.
    resampling : {"cubic", "bilinear", "nearest"}, optional
        Kernel.

    Returns
    -------
    xarray.DataArray
        ``(time, band, y, x)`` float32, physical, NaN where there is no data; lazy where a grid had to be
        changed, else as lazy as `coarse`. Bands have the fine cube's names. Cubes without a CRS are taken as
        they are where sizes agree.

    Raises
    ------
    OptionError
        If the cubes share no band.
    UnknownNameError
        If a band is not there.
    CubeError
        If grids differ and one of them has no CRS.
    """
    far, near = as_array(coarse, "coarse"), as_array(fine, "fine")
    names = _names(near, far, bands)
    far = far.sel(band=list(names.values())).assign_coords(band=list(names))
    grids = [_has_grid(cube) for cube in (near, far)]
    if not all(grids) and near.shape[2:] == far.shape[2:]:
        return to_physical(far).assign_coords({dim: near[dim] for dim in ("y", "x") if dim in near.coords})
    far = far.chunk({"time": 1})  # a block of the fine grid is large: no more than a date of it at once
    chunks = near.chunks[2:] if is_lazy(near.data) and near.chunks else None
    return regrid(far, geobox_of(near), resampling=resampling, chunks=chunks)


def fit_lines(coarse: xr.DataArray, fine: xr.DataArray) -> tuple[FloatArray, FloatArray]:
    """Fit ``fine = slope * coarse + intercept`` for each band, by least squares.

    Parameters
    ----------
    coarse, fine : xarray.DataArray
        Physical values of the same dates on the same grid ``(time, band, y, x)``, NaN where there is no data.

    Returns
    -------
    slope, intercept : numpy.ndarray
        ``(band,)`` float64, over all pixels with data in both; computed now.

    Raises
    ------
    OptionError
        If the coarse images of a band hold one value only, or nothing.
    """
    fine = coarse.copy(data=fine.data)  # place by place: hours and rounding of coordinates may differ
    known = coarse.notnull() & fine.notnull()
    x, y = (cube.astype("float64").where(known) for cube in (coarse, fine))
    over = ("time", "y", "x")
    moments = xr.Dataset({"x": x.mean(over), "y": y.mean(over)})
    mean = dask.compute(moments)[0]  # type: ignore[no-untyped-call,attr-defined]
    dx, dy = x - mean["x"], y - mean["y"]
    sums = dask.compute(xr.Dataset({"xx": (dx * dx).sum(over), "xy": (dx * dy).sum(over)}))[0]  # type: ignore[no-untyped-call,attr-defined]
    if not (sums["xx"] > 0).all():
        flat = [str(name) for name in coarse["band"].to_numpy()[~(sums["xx"] > 0).to_numpy()]]
        raise OptionError(
            f"No line can be fitted for {', '.join(flat)}: the coarse images are constant or empty."
        )
    slope = (sums["xy"] / sums["xx"]).to_numpy()
    return slope, mean["y"].to_numpy() - slope * mean["x"].to_numpy()


def on_lines(coarse: xr.DataArray, slope: FloatArray, intercept: FloatArray) -> xr.DataArray:
    """Put a coarse cube on its lines to a fine one.

    Parameters
    ----------
    coarse : xarray.DataArray
        Physical values with a dimension ``band``.
    slope, intercept : numpy.ndarray
        ``(band,)``, as :func:`fit_lines` gives them.

    Returns
    -------
    xarray.DataArray
        ``slope * coarse + intercept`` float32, as lazy as `coarse`.
    """
    a, b = (xr.DataArray(line.astype("float32"), dims="band") for line in (slope, intercept))
    return (coarse * a + b).transpose(*coarse.dims)


def as_array(cube: xr.Dataset | xr.DataArray | StrPath, what: str) -> xr.DataArray:
    """Return the main variable of a cube, a store or itself.

    Parameters
    ----------
    cube : xarray.Dataset, xarray.DataArray or path
        With dims ``(time, band, y, x)``.
    what : str
        Name of the argument, for messages.

    Returns
    -------
    xarray.DataArray
        As stored: not decoded.

    Raises
    ------
    CubeError
        If dimensions or coordinates are missing.
    """
    opened = cube if isinstance(cube, xr.Dataset | xr.DataArray) else open_store(cube)
    if isinstance(opened, xr.Dataset):
        if MAIN not in opened:
            raise CubeError(
                f"The {what} cube needs a variable {MAIN!r}; found {sorted(map(str, opened.data_vars))}."
            )
        opened = opened[MAIN]
    if opened.dims != DIMS or not {"time", "band"} <= set(opened.coords):
        raise CubeError(
            f"The {what} cube has dims {opened.dims} and coordinates {sorted(map(str, opened.coords))}; "
            f"expected dims {DIMS}, with coordinates time and band."
        )
    return opened


def _names(
    fine: xr.DataArray, coarse: xr.DataArray, bands: Sequence[str] | Mapping[str, str] | None
) -> dict[str, str]:
    """Return which coarse band belongs to each fine one."""
    have = {
        what: [str(name) for name in cube["band"].to_numpy()]
        for what, cube in (("fine", fine), ("coarse", coarse))
    }
    if bands is None:
        wanted = {name: name for name in have["fine"] if name in have["coarse"]}
    else:
        wanted = dict(bands) if isinstance(bands, Mapping) else {name: name for name in bands}
    if not wanted:
        raise OptionError(
            f"The fine cube has bands {have['fine']}, the coarse one {have['coarse']}: no name is the same. "
            "Say which belong together with bands={'fine name': 'coarse name'}."
        )
    for what, names in (("fine", list(wanted)), ("coarse", list(wanted.values()))):
        if missing := [name for name in names if name not in have[what]]:
            raise UnknownNameError(
                f"The {what} cube has no band {missing[0]!r}. {did_you_mean(missing[0], have[what])}"
            )
    return wanted


def _has_grid(cube: xr.DataArray) -> bool:
    try:
        geobox_of(cube)
    except CubeError:
        return False
    return True
