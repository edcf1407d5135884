"""What is exported: one variable of a dataset, and for class maps their table, colours and bytes."""

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, encoding_of
from cubekit.errors import UnknownNameError, did_you_mean
from cubekit.labels import ClassTable

NODATA = 255
"""Stored value of unclassified pixels in an exported class map."""

TIME_TAGS = ("time_coverage_start", "time_coverage_end")
"""Attributes that say which time a map stands for."""


def choose(data: xr.Dataset | xr.DataArray, variable: str | None = None) -> xr.DataArray:
    """Return the variable to export, with the time and title of its dataset in its attributes.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        Candidate variables.
    variable : str, optional
        Name. Default: ``class``, else the only one, else ``data``.

    Returns
    -------
    xarray.DataArray
        As lazy as it was.

    Raises
    ------
    UnknownNameError
        If there is no such variable, or no default among several.
    """
    if isinstance(data, xr.DataArray):
        return data
    names = [str(name) for name in data.data_vars]
    defaults = ["class", *(names if len(names) == 1 else []), MAIN]
    name = variable or next((name for name in defaults if name in names), None)
    if name is None:
        raise UnknownNameError(
            f"Say which variable to export: variable= one of {', '.join(names) or 'none'}."
        )
    if name not in names:
        raise UnknownNameError(f"There is no variable {name!r}. {did_you_mean(name, names)}")
    told = {key: data.attrs[key] for key in (*TIME_TAGS, "title", "model") if key in data.attrs}
    return data[name].assign_attrs(told | data[name].attrs)


def classes_of(variable: xr.DataArray) -> ClassTable | None:
    """Read the class table of a variable.

    Parameters
    ----------
    variable : xarray.DataArray
        Candidate.

    Returns
    -------
    ClassTable or None
        None where the variable is no class map.

    Raises
    ------
    OptionError
        If the attributes do not fit each other, or a colour is malformed.
    """
    return ClassTable.from_attrs(variable.attrs) if "classes" in variable.attrs else None


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Return a colour as numbers.

    Parameters
    ----------
    colour : str
        Written ``#rrggbb``.

    Returns
    -------
    tuple of int
        Red, green, blue, 0-255.
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def class_bytes(variable: xr.DataArray) -> xr.DataArray:
    """Return a class map as uint8 with nodata 255, which is what colour tables need.

    Parameters
    ----------
    variable : xarray.DataArray
        Class indices, any integer type; its own nodata and negative numbers mean "no class". May be lazy.

    Returns
    -------
    xarray.DataArray
        uint8, as lazy as the input.
    """
    code = encoding_of(variable)
    if variable.dtype == np.uint8 and code.nodata == NODATA:
        return variable
    known = variable >= 0
    if code.nodata is not None:
        known &= variable != variable.dtype.type(code.nodata)
    result = variable.where(known, NODATA).astype("uint8")
    result.attrs = variable.attrs | {"_FillValue": np.uint8(NODATA)}
    return result
