"""Which dates of two cubes belong together."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cubekit.errors import OptionError
from cubekit.typing import Array, IntArray

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class DateMatch:
    """Dates that two series share, and those that one of them lacks."""

    fine: IntArray
    """Positions in the fine series, increasing."""

    coarse: IntArray
    """Position in the coarse series that each of them belongs to."""

    unmatched_fine: Array
    """Dates of the fine series without a partner, datetime64[D]."""

    unmatched_coarse: Array
    """Dates of the coarse series without a partner, datetime64[D]."""

    def __len__(self) -> int:
        return len(self.fine)

    def __repr__(self) -> str:
        lacking = [
            f"{len(dates)} {name} date(s) without a partner ({_list(dates)})"
            for name, dates in (("fine", self.unmatched_fine), ("coarse", self.unmatched_coarse))
            if len(dates)
        ]
        return "; ".join([f"{len(self)} dates of both", *lacking])


def pair_dates(
    fine: xr.Dataset | xr.DataArray | Array,
    coarse: xr.Dataset | xr.DataArray | Array,
    *,
    tolerance: float = 0,
) -> DateMatch:
    """Find the coarse date that belongs to each fine date.

    Each date has one partner at most; the closest dates find each other first, of two equally close ones the
    earlier.

    Parameters
    ----------
    fine, coarse : xarray.Dataset, xarray.DataArray or numpy.ndarray
        Cubes with a ``time``, or dates, datetime64, in increasing order. Hours are ignored.
    tolerance : float, optional
        Days that two dates may lie apart.

    Returns
    -------
    DateMatch
        With the dates that have no partner.

    Raises
    ------
    OptionError
        If the tolerance is negative.

    Examples
    --------
    >>> fine = np.array(["2020-03-08", "2020-03-17"], "datetime64[D]")
    >>> pair_dates(fine, np.array(["2020-03-08", "2020-03-16"], "datetime64[D]"), tolerance=1)
    2 dates of both
    """
    if not tolerance >= 0:
        raise OptionError(f"tolerance={tolerance!r} must be a number of days from 0 on.")
    ours, theirs = days_of(fine), days_of(coarse)
    apart = np.abs(ours[:, None] - theirs[None, :]) / np.timedelta64(1, "D")
    free_fine, free_coarse = np.ones(len(ours), bool), np.ones(len(theirs), bool)
    found: dict[int, int] = {}
    for flat in np.argsort(apart, axis=None, kind="stable"):
        i, j = divmod(int(flat), max(len(theirs), 1))
        if apart[i, j] > tolerance:
            break
        if free_fine[i] and free_coarse[j]:
            found[i] = j
            free_fine[i] = free_coarse[j] = False
    order = sorted(found)
    return DateMatch(
        fine=np.array(order, dtype=np.intp),
        coarse=np.array([found[i] for i in order], dtype=np.intp),
        unmatched_fine=ours[free_fine],
        unmatched_coarse=theirs[free_coarse],
    )


def days_of(series: xr.Dataset | xr.DataArray | Array) -> Array:
    """Return the dates of a series as days.

    Parameters
    ----------
    series : xarray.Dataset, xarray.DataArray or numpy.ndarray
        Cube with a ``time``, or dates.

    Returns
    -------
    numpy.ndarray
        datetime64[D].
    """
    times = series["time"].to_numpy() if isinstance(series, xr.Dataset | xr.DataArray) else series
    days: Array = np.asarray(times, dtype="datetime64[D]")
    return days


def _list(dates: Array) -> str:
    shown = ", ".join(str(date) for date in dates[:_SHOWN])
    return f"{shown}, …" if len(dates) > _SHOWN else shown
