"""Labelled series from tables: one row for each sample and date, or one for each sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cubekit.batching.decode import day_of_year
from cubekit.batching.position import metric_positions
from cubekit.batching.samples import Samples
from cubekit.batching.tables import LATITUDE, LONGITUDE, by_place, check_columns, first_of, read_table, unfold
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, UnknownNameError, check_option
from cubekit.labels import ClassTable
from cubekit.typing import Array, FloatArray, IntArray, StrPath

Steps = Literal["equal", "common", "months"]

_MANY = 5  # samples listed in a message


def read_series(  # noqa: PLR0913  (tables differ in many ways; all keyword-only)
    path: StrPath,
    *,
    label: str = "label",
    date: str = "date",
    bands: Sequence[str] | None = None,
    id: str | None = "sample_id",  # noqa: A002  (what such tables call it)
    group: str | None = None,
    encoding: Encoding | None = None,
    steps: Steps = "equal",
    missing: Sequence[float] = (),
    columns: str | None = None,
    dates: Sequence[Any] | None = None,
) -> Samples:
    """Read labelled series from a table.

    Step `i` of one series is put beside step `i` of every other. Series may come from different years, as
    reference data do: then ``times`` are the dates of the first sample, ``span`` holds the first and the last
    date of each, and a step may fall on another day of the year by at most half the usual gap between dates.

    Parameters
    ----------
    path : path
        Parquet or CSV; one row for each sample and date, or, with `columns`, one for each sample. Columns
        ``longitude`` and ``latitude`` (or ``lon`` and ``lat``, degrees), or the GeoJSON points in ``.geo`` of
        exports from Earth Engine, give positions, if they are there.
    label : str, optional
        Column of the class: text or whole numbers.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Columns of the bands, in the order wanted. Default: every column of floats that has no other role.
    id : str or None, optional
        Column that tells series apart. None: the rows of one place, to 0.1 m, are one series.
    group : str, optional
        Column of what must stay together when splitting, such as the field. Default: the place, so that two
        years of one pixel are one group; without positions, the series.
    encoding : Encoding, optional
        How the numbers are coded, such as ``Encoding(dtype="uint16", nodata=65535, scale=1e-4)``. Default:
        physical values, NaN where there is no data.
    steps : {"equal", "common", "months"}, optional
        Whether all series must have the same number of dates, are cut to the dates that all have, or are put
        on the months of the table, from the first to the last: of several rows of a month the earliest
        counts, and a month without a row has no data.
    missing : sequence of float, optional
        Numbers that mean "no data", such as -999, besides empty cells. They become the encoding's nodata.
    columns : str, optional
        For wide tables: names of the band columns with ``{band}`` and ``{step}``, such as ``"{band}_{step}"``
        for ``B02_01``. `date` is then made from `dates`.
    dates : sequence, optional
        For wide tables: the date of each step.

    Returns
    -------
    Samples
        In the order in which series first appear; classes sorted; positions in metres.

    Raises
    ------
    SourceError
        If the file is missing or is neither Parquet nor CSV.
    UnknownNameError
        If a column is missing.
    LabelError
        If a series has no class, or several; or series differ in their dates.
    OptionError
        If a number does not fit the encoding, or the columns or dates of a wide table do not fit it.

    Examples
    --------
    >>> samples = read_series("cbers_samples.parquet", bands=["ndvi"])  # doctest: +SKIP
    """
    check_option("steps", steps, ["equal", "common", "months"])
    table, wide = _long_table(Path(path), columns, dates, date=date)
    needed = [label, date, *([id] if id else []), *([group] if group else []), *(bands or [])]
    check_columns(table, needed, name=Path(path).name)
    place = (first_of(LONGITUDE, table), first_of(LATITUDE, table))
    chosen = tuple(bands) if bands else wide or _band_columns(table, used={id, label, date, group, *place})
    if missing:
        table[list(chosen)] = table[list(chosen)].mask(table[list(chosen)].isin(list(missing)))
    if id is None:
        id = "place"  # noqa: A001  (the argument, filled in)
        table[id] = by_place(table, name=Path(path).name)

    series, _ = pd.factorize(table[id])
    when = pd.to_datetime(table[date], utc=True).to_numpy(dtype="datetime64[ns]")
    order = np.lexsort((when, series))
    table, series, when = table.iloc[order], series[order], when[order]
    if steps == "months":
        table, where, when = _on_months(table, series, when, list(chosen))
        series = where.astype(series.dtype)
    names = table[id].to_numpy()
    _refuse_repeats(names, series, when)
    if steps == "common":
        kept = _on_common_dates(series, when)
        table, series, when, names = table[kept], series[kept], when[kept], names[kept]
    calendar = _aligned(names, series, when)

    n, count = calendar.shape
    one_period = (calendar == calendar[0]).all()
    stored = _stored(table[list(chosen)], encoding).reshape(n, count, len(chosen))
    first = table.iloc[::count]
    y, classes = _classes(table[label], names, count)
    position, crs = _positions(first, place)
    return Samples(
        x=stored,
        y=y,
        bands=chosen,
        times=calendar[0],
        classes=classes,
        group=_groups(first, group, position),
        position=position,
        crs=crs,
        resolution=None,
        encoding=encoding or Encoding(dtype=str(stored.dtype), nodata=np.nan),
        span=None if one_period else calendar[:, [0, -1]],
    )


def _long_table(
    path: Path, columns: str | None, dates: Sequence[Any] | None, *, date: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a table as one row for each sample and date, and the bands of a wide one."""
    table = read_table(path)
    if columns is None:
        if dates is not None:
            raise OptionError("dates= goes with the wide tables that columns= describes.")
        return table, ()
    if dates is None:
        raise OptionError(f"columns={columns!r} counts steps: give the date of each with dates=.")
    return unfold(table, columns, dates, date=date)


def _on_months(
    table: pd.DataFrame, series: IntArray, when: npt.NDArray[np.datetime64], bands: list[str]
) -> tuple[pd.DataFrame, IntArray, npt.NDArray[np.datetime64]]:
    """Give every series one row for each month, the earliest there is; NaN in the months without."""
    month = when.astype("datetime64[M]")
    every = np.arange(month.min(), month.max() + np.timedelta64(1, "M"))
    first = np.r_[True, (np.diff(series) != 0) | (month[1:] != month[:-1])]  # rows are in order of time
    count = int(series[-1]) + 1
    place = series[first] * len(every) + (month[first] - every[0]).astype(int)
    heads = np.flatnonzero(np.r_[True, np.diff(series) != 0])
    full = table.iloc[np.repeat(heads, len(every))].reset_index(drop=True)
    values = np.full((count * len(every), len(bands)), np.nan)
    values[place] = table[bands].to_numpy("float64")[first]
    full[bands] = values
    return full, np.repeat(np.arange(count), len(every)), np.tile(every, count).astype("datetime64[ns]")


def _band_columns(table: pd.DataFrame, used: set[str | None]) -> tuple[str, ...]:
    """Return the float columns without another role."""
    chosen = tuple(
        str(name) for name in table.columns if name not in used and pd.api.types.is_float_dtype(table[name])
    )
    if not chosen:
        raise UnknownNameError(
            f"The table has no columns of floats: name the bands with bands=. {list(table)}"
        )
    return chosen


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


def _stored(columns: pd.DataFrame, encoding: Encoding | None) -> Array:
    """Return the numbers in the type that the encoding names."""
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


def _classes(cells: "pd.Series[Any]", names: Array, count: int) -> tuple[IntArray, ClassTable]:
    """Return the class index of each series and the classes, sorted."""
    codes, found = pd.factorize(cells, sort=True)
    by_series = codes.reshape(-1, count)
    if (by_series < 0).any():
        first = names[::count][(by_series < 0).any(axis=1)][0]
        raise LabelError(f"Series {first!r} has rows without a class in column {cells.name!r}.")
    several = (by_series != by_series[:, :1]).any(axis=1)
    if several.any():
        raise LabelError(
            f"{int(several.sum())} series have several classes in column {cells.name!r}, such as "
            f"{names[::count][several][0]!r}: a series has one."
        )
    numbers = [int(value) for value in found] if pd.api.types.is_integer_dtype(cells.dtype) else None
    return by_series[:, 0].astype("int16"), ClassTable.of([str(value) for value in found], codes=numbers)


def _positions(first: pd.DataFrame, place: tuple[str | None, str | None]) -> tuple[FloatArray, str | None]:
    """Return positions in metres and their CRS, or NaN and None."""
    east, north = place
    if east is None or north is None:
        return np.full((len(first), 2), np.nan), None
    return metric_positions(first[east].to_numpy("float64"), first[north].to_numpy("float64"), "EPSG:4326")


def _groups(first: pd.DataFrame, group: str | None, position: FloatArray) -> IntArray:
    """Give what belongs together one number."""
    if group is not None:
        return pd.factorize(first[group])[0].astype("int64")
    if np.isnan(position).any():
        return np.arange(len(first))
    return np.unique(position, axis=0, return_inverse=True)[1].reshape(-1).astype("int64")
