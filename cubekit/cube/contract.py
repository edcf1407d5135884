"""What a cube is: names of its dimensions and variables, how its numbers are coded, and the check of both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.errors import CubeError, UnknownNameError, check_kind, did_you_mean

MAIN = "data"
"""Name of the main variable."""

DIMS = ("time", "band", "y", "x")
"""Its dimensions, in this order."""

RECIPE = "recipe"
"""Attribute with the steps taken since a cube was opened, as JSON text: NetCDF has no nested attributes."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How stored numbers become physical ones: ``physical = stored * scale + offset``."""

    dtype: str
    """NumPy name of the stored type."""

    nodata: float | None = None
    """Stored value that means "no data"; NaN for floats, None where every value counts."""

    scale: float = 1.0
    """Factor; 1e-4 for Sentinel-2 reflectance."""

    offset: float = 0.0
    """Added after the factor; -0.1 for Sentinel-2 since processing baseline 04.00."""

    def attrs(self) -> dict[str, Any]:
        """Return the CF attributes that say the same."""
        attrs: dict[str, Any] = {}
        if self.nodata is not None:
            attrs["_FillValue"] = np.dtype(self.dtype).type(self.nodata)
        if (self.scale, self.offset) != (1.0, 0.0):
            attrs |= {"scale_factor": self.scale, "add_offset": self.offset}
        return attrs


def encoding_of(variable: xr.DataArray) -> Encoding:
    """Read the coding of a variable from its CF attributes.

    Parameters
    ----------
    variable : xarray.DataArray
        Opened without decoding, so that attributes describe the numbers it holds.

    Returns
    -------
    Encoding
        Floats without ``_FillValue`` get NaN as nodata; integers without it get None.
    """
    default = np.nan if variable.dtype.kind == "f" else None
    nodata = variable.attrs.get("_FillValue", default)
    return Encoding(
        dtype=str(variable.dtype),
        nodata=None if nodata is None else float(nodata),
        scale=float(variable.attrs.get("scale_factor", 1.0)),
        offset=float(variable.attrs.get("add_offset", 0.0)),
    )


def is_valid(values: xr.DataArray, nodata: float | None) -> xr.DataArray:
    """Tell which stored values are data.

    Parameters
    ----------
    values : xarray.DataArray
        Stored numbers, any shape; may be lazy.
    nodata : float or None
        Stored nodata value.

    Returns
    -------
    xarray.DataArray
        Booleans of the same shape and laziness; NaN is never data.
    """
    valid: xr.DataArray = values.notnull()
    if nodata is None or np.isnan(nodata):
        return valid
    other: xr.DataArray = valid & (values != values.dtype.type(nodata))
    return other


def to_physical(variable: xr.DataArray, *, dtype: str = "float32") -> xr.DataArray:
    """Decode stored numbers: apply scale and offset, nodata becomes NaN.

    Parameters
    ----------
    variable : xarray.DataArray
        Stored numbers with CF attributes; may be lazy.
    dtype : str, optional
        Float type of the result.

    Returns
    -------
    xarray.DataArray
        Physical values (reflectance 0-1, index, degrees), NaN where there is no data; CF coding attributes
        removed; as lazy as the input.
    """
    code = encoding_of(variable)
    values: xr.DataArray = variable.astype(dtype) * np.dtype(dtype).type(code.scale) + np.dtype(dtype).type(
        code.offset
    )
    values = values.where(is_valid(variable, code.nodata))
    values.attrs = {
        key: value
        for key, value in variable.attrs.items()
        if key not in {"_FillValue", "scale_factor", "add_offset"}
    }
    return values


def noted(cube: xr.Dataset, step: str, **options: Any) -> xr.Dataset:
    """Note beside a cube the step that made it.

    Parameters
    ----------
    cube : xarray.Dataset
        Result of the step, with the attributes of its input.
    step : str
        Name of the function.
    **options : object
        Its options; dates become text.

    Returns
    -------
    xarray.Dataset
        The same, with a longer `RECIPE`.
    """
    before = json.loads(cube.attrs.get(RECIPE, "[]"))
    return cube.assign_attrs({RECIPE: json.dumps([*before, [step, options]], default=str)})


def layers_of(cube: xr.Dataset, names: Sequence[str]) -> list[xr.DataArray]:
    """Return layers ``(y, x)`` that a cube holds beside its main variable.

    Parameters
    ----------
    cube : xarray.Dataset
        A cube.
    names : sequence of str
        Of the layers, such as ``altitude``.

    Returns
    -------
    list of xarray.DataArray
        In the order of the names; as lazy as the cube.

    Raises
    ------
    UnknownNameError
        If one is missing, with the nearest there is.
    """
    known = [str(name) for name, layer in cube.variables.items() if layer.dims == ("y", "x")]
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"The cube has no layer {name!r} (y, x). {did_you_mean(name, known)} Layers are added with "
                "cubekit.add_ancillary(cube, …)."
            )
    return [cube[name] for name in names]


def geobox_of(cube: xr.Dataset | xr.DataArray) -> GeoBox:
    """Return the grid of a cube.

    Parameters
    ----------
    cube : xarray.Dataset or xarray.DataArray
        With ``y``, ``x`` pixel-centre coordinates and a CRS.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Grid of shape (y, x).

    Raises
    ------
    CubeError
        If there is no CRS, or the coordinates are not a regular grid.
    """
    import odc.geo.xr  # noqa: F401  (registers the accessor)

    box = cube.odc.geobox
    if not isinstance(box, GeoBox) or box.crs is None:
        raise CubeError(
            "The dataset has no usable grid: it needs regular y and x coordinates and a CRS. "
            "Set one with ds.rio.write_crs('EPSG:…')."
        )
    return box


def check_cube(cube: xr.Dataset) -> None:
    """Raise unless a dataset keeps the contract of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        Candidate; nothing is computed.

    Raises
    ------
    CubeError
        Naming the first broken promise: main variable, dimensions, band names, time order, grid.
    OptionError
        If it is no dataset.
    """
    check_kind("cube", cube, xr.Dataset, "open one with cubekit.open or cubekit.open_cube")
    if MAIN not in cube:
        raise CubeError(f"A cube needs a variable {MAIN!r}; found {sorted(map(str, cube.data_vars))}.")
    if cube[MAIN].dims != DIMS:
        raise CubeError(
            f"Variable {MAIN!r} has dims {cube[MAIN].dims}, expected {DIMS}: use .transpose{DIMS}."
        )
    for dim in ("time", "band"):
        if dim not in cube.indexes:
            raise CubeError(f"Dimension {dim!r} has no coordinate; a cube names its {dim}s.")
    if not cube.indexes["band"].is_unique:
        raise CubeError(f"Band names repeat: {cube.indexes['band'].tolist()}.")
    time = cube.indexes["time"]
    if not (time.is_monotonic_increasing and time.is_unique):
        raise CubeError(
            "Times must increase without repeats: use .sortby('time') and .drop_duplicates('time')."
        )
    geobox_of(cube)
