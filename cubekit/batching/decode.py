"""Stored numbers to physical ones, and dates to days of the year, for plain arrays."""

import numpy as np
import numpy.typing as npt

from cubekit.cube.contract import Encoding
from cubekit.typing import Array, BoolArray, IntArray


def valid_values(stored: Array, encoding: Encoding) -> BoolArray:
    """Tell which stored numbers are data.

    Parameters
    ----------
    stored : numpy.ndarray
        Any shape.
    encoding : Encoding
        Its ``nodata``.

    Returns
    -------
    numpy.ndarray
        Same shape; NaN is never data.
    """
    valid = ~np.isnan(stored) if stored.dtype.kind == "f" else np.ones(stored.shape, bool)
    if encoding.nodata is not None and not np.isnan(encoding.nodata):
        valid &= stored != stored.dtype.type(encoding.nodata)
    return valid


def decode(stored: Array, encoding: Encoding) -> npt.NDArray[np.float32]:
    """Turn stored numbers into physical ones.

    Parameters
    ----------
    stored : numpy.ndarray
        Any shape.
    encoding : Encoding
        Scale, offset and nodata.

    Returns
    -------
    numpy.ndarray
        Same shape, float32, NaN where there is no data.
    """
    values = stored.astype("float32") * np.float32(encoding.scale) + np.float32(encoding.offset)
    values[~valid_values(stored, encoding)] = np.nan
    return values


def day_of_year(times: npt.NDArray[np.datetime64]) -> IntArray:
    """Return days of the year.

    Parameters
    ----------
    times : numpy.ndarray
        datetime64, any shape.

    Returns
    -------
    numpy.ndarray
        Same shape, int16, 1 to 366.
    """
    days = times.astype("datetime64[D]") - times.astype("datetime64[Y]").astype("datetime64[D]")
    ordinal: IntArray = (days.astype("int64") + 1).astype("int16")
    return ordinal
