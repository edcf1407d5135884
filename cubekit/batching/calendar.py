"""Rows of a table become series on one calendar: equal dates, dates in common, or calendar months."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cubekit.batching.decode import day_of_year
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, check_option
from cubekit.typing import Array, IntArray

Steps = Literal["equal", "common", "months"]
Dates = npt.NDArray[np.datetime64]

_MANY = 5  # samples listed in a message


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesTable:
    """Series of a table on one calendar. Nothing is lazy."""

    x: Array
    """(n, time, band), stored numbers: see `encoding`."""

    bands: tuple[str, ...]
    """Band names, in the order of `x`."""

    times: Dates
    """(time,) datetime64[ns] UTC; where series are from different years, the dates of the first."""

    names: Array
    """(n,) what tells the series apart."""

    about: pd.DataFrame
    """(n,) rows: the columns that are no bands, such as position and class, from the first row of each."""

    encoding: Encoding
    """How stored numbers become physical ones."""

    span: Dates | None = None
    """(n, 2) first and last date of each series; None where `times` holds for all of them."""

    def __len__(self) -> int:
        return len(self.x)


def series_of(
    table: pd.DataFrame,
    *,
    id: str,  # noqa: A002  (what such tables call it)
    date: str,
    bands: Sequence[str],
    constant: Sequence[str] = (),
    steps: Steps = "equal",
    months: tuple[Any, Any] | None = None,
    encoding: Encoding | None = None,
) -> SeriesTable:
    """Put the rows of a table onto one calendar.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each series and date; NaN where there is no data.
    id : str
        Column that tells series apart.
    date : str
        Column of the date.
    bands : sequence of str
        Columns of the bands.
    constant : sequence of str, optional
        Columns that must not change within a series, such as the class.
    steps : {"equal", "common", "months"}, optional
        As for :func:`cubekit.read_series`.
    months : tuple, optional
        First and last month, such as ``("2022-01", "2022-12")``; with ``steps="months"`` only. Default: those
        of the table.
    encoding : Encoding, optional
        How the numbers are coded. Default: physical values.

    Returns
    -------
    SeriesTable
        In the order in which series first appear.

    Raises
    ------
    LabelError
        If there are no rows, or rows without a series or a date; if series differ in their dates, or a
        constant column changes or is empty.
    OptionError
        If a number does not fit the encoding, or `months` is no span of months.
    """
    check_option("steps", steps, ["equal", "common", "months"])
    if months is not None and steps != "months":
        raise OptionError(f"months={months!r} goes with steps='months', not with steps={steps!r}.")
    series, names = pd.factorize(table[id])
    when = pd.to_datetime(table[date], utc=True, errors="coerce").to_numpy(dtype="datetime64[ns]")
    _refuse_empty({id: series < 0, date: np.isnat(when)})
    order = np.lexsort((when, series))
    table, series, when = table.iloc[order], series[order], when[order]
    heads = np.flatnonzero(np.r_[True, np.diff(series) != 0])
    for column in constant:
        _refuse_changes(table[column], np.asarray(names), series, heads)
    about = table.iloc[heads].drop(columns=list(bands)).reset_index(drop=True)
    span = None
    if steps == "months":
        values, times = _on_months(table[list(bands)], series, when, months)
    else:
        _refuse_repeats(np.asarray(names)[series], series, when)
        if steps == "common":
            kept = _on_common_dates(series, when)
            table, series, when = table[kept], series[kept], when[kept]
        calendar = _aligned(np.asarray(names)[series], series, when)
        values, times = table[list(bands)], calendar[0]
        span = None if (calendar == times).all() else calendar[:, [0, -1]]
    stored = stored_numbers(values, encoding)
    return SeriesTable(
        x=stored.reshape(len(heads), len(times), len(bands)),
        bands=tuple(bands),
        times=times,
        names=np.asarray(names),
        about=about,
        encoding=encoding or Encoding(dtype=str(stored.dtype), nodata=np.nan),
        span=span,
    )


def stored_numbers(columns: pd.DataFrame, encoding: Encoding | None) -> Array:
    """Return numbers in the type that an encoding names.

    Parameters
    ----------
    columns : pandas.DataFrame
        Of numbers; NaN where there is no data.
    encoding : Encoding or None
        None: physical values, float32 or wider as they are.

    Returns
    -------
    numpy.ndarray
        (row, column).

    Raises
    ------
    OptionError
        If a number does not fit the encoding.
    """
    values = columns.to_numpy()
    if encoding is None:
        return values.astype(np.result_type(np.float32, *[d for d in columns.dtypes if d.kind == "f"]))
    dtype = np.dtype(encoding.dtype)
    if dtype.kind in "iu":
        if encoding.nodata is not None and values.dtype.kind == "f":
            values = np.where(np.isnan(values), encoding.nodata, values)  # empty cells
        limits = np.iinfo(dtype)
        wrong = ~((values >= limits.min) & (values <= limits.max) & (values == np.floor(values)))
        if wrong.any():
            raise OptionError(
                f"{int(wrong.sum())} numbers do not fit the encoding's {dtype}, such as {values[wrong][0]!r}."
            )
    return values.astype(dtype)


def _refuse_empty(cells: Mapping[str, Array]) -> None:
    """Raise if there are no rows, or any that belong to no series or to no date."""
    for column, lacking in cells.items():
        if not len(lacking):
            raise LabelError("The table has no rows.")
        if lacking.any():
            raise LabelError(
                f"{int(lacking.sum())} of {len(lacking)} rows have nothing readable in column {column!r}, "
                f"the first is row {int(lacking.argmax())}: fill or drop them."
            )


def _refuse_changes(cells: "pd.Series[Any]", names: Array, series: IntArray, heads: IntArray) -> None:
    """Raise if a series has rows without a class, or several classes."""
    codes, _ = pd.factorize(cells)
    if (codes < 0).any():
        raise LabelError(
            f"Series {names[series[codes < 0][0]]!r} has rows without a class in column {cells.name!r}."
        )
    changed = np.unique(series[codes != codes[heads][series]])
    if changed.size:
        raise LabelError(
            f"{changed.size} series have several classes in column {cells.name!r}, such as "
            f"{names[changed[0]]!r}: a series has one."
        )


def _on_months(
    values: pd.DataFrame, series: IntArray, when: Dates, months: tuple[Any, Any] | None
) -> tuple[pd.DataFrame, Dates]:
    """Give every series one row for each month, the earliest that has data; NaN in the months without."""
    month = when.astype("datetime64[M]")
    first, last = (month.min(), month.max()) if months is None else _span(months)
    every = np.arange(first, last + np.timedelta64(1, "M"))
    numbers = values.to_numpy(np.result_type(np.float32, *[d for d in values.dtypes if d.kind == "f"]))
    counted = (month >= first) & (month <= last) & ~np.isnan(numbers).all(axis=1)
    slot = series[counted] * len(every) + (month[counted] - first).astype(int)
    place, row = np.unique(slot, return_index=True)  # rows are in order of time: the first is the earliest
    full = np.full(((int(series[-1]) + 1) * len(every), values.shape[1]), np.nan, numbers.dtype)
    full[place] = numbers[counted][row]
    return pd.DataFrame(full, columns=values.columns), every.astype("datetime64[ns]")


def _span(months: tuple[Any, Any]) -> tuple[np.datetime64, np.datetime64]:
    """Read two months."""
    try:
        first, last = (np.datetime64(pd.Timestamp(month), "M") for month in months)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"months={months!r} should be a first and a last month: ('2022-01', '2022-12')."
        ) from error
    if last < first:
        raise OptionError(f"months={months!r} ends before it begins.")
    return first, last


def _refuse_repeats(names: Array, series: IntArray, when: npt.NDArray[np.datetime64]) -> None:
    """Raise if a series has two rows for one date."""
    repeated = (np.diff(series) == 0) & (when[1:] == when[:-1])
    if repeated.any():
        raise LabelError(
            f"{int(repeated.sum())} rows repeat the date of another row of their series, first in series "
            f"{names[1:][repeated][0]!r} on {when[1:][repeated][0].astype('datetime64[D]')}: "
            "average or drop them."
        )


def _on_common_dates(series: IntArray, when: npt.NDArray[np.datetime64]) -> Array:
    """Tell which rows are on dates that every series has."""
    dates, place, count = np.unique(when, return_inverse=True, return_counts=True)
    common = count == series[-1] + 1
    if not common.any():
        raise LabelError(
            f"The {series[-1] + 1} series share none of {len(dates)} dates: steps='common' needs series "
            "of one period."
        )
    return common[place]  # type: ignore[no-any-return]


def _aligned(names: Array, series: IntArray, when: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
    """Return dates (n, time) of series of equal length whose steps fall on like days of the year."""
    lengths = np.bincount(series)
    usual = int(np.bincount(lengths).argmax())
    if (lengths != usual).any():
        odd = np.flatnonzero(lengths != usual)
        starts = np.searchsorted(series, odd[:_MANY])
        shown = ", ".join(f"{names[start]!r} has {lengths[series[start]]}" for start in starts)
        raise LabelError(
            f"{len(odd)} of {len(lengths)} series do not have {usual} dates as the others do: {shown}"
            f"{', …' if len(odd) > _MANY else ''}. steps='common' keeps the dates that all have."
        )
    dates = when.reshape(-1, usual)
    if usual > 1:
        gap = float(np.median(np.diff(dates[0])) / np.timedelta64(1, "D"))
        shift = np.abs(day_of_year(dates).astype("float64") - day_of_year(dates[0]))
        shift = np.minimum(shift, 365.25 - shift).max(axis=1)
        if shift.max() > gap / 2:
            worst = int(shift.argmax())
            raise LabelError(
                f"The steps of {int((shift > gap / 2).sum())} series fall on other days of the year than "
                f"those of the first, by up to {shift.max():.0f} days (series {names[worst * usual]!r}), "
                f"while dates are {gap:.0f} days apart: bring the series to one calendar first."
            )
    return dates
