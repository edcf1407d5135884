"""Labelled series from long tables: one row for each sample and date."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet

from cubekit.batching.decode import day_of_year
from cubekit.batching.position import metric_positions
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, SourceError, UnknownNameError, check_option, did_you_mean
from cubekit.labels import ClassTable
from cubekit.typing import Array, FloatArray, IntArray, StrPath

Steps = Literal["equal", "common"]

_LONGITUDE, _LATITUDE = ("longitude", "lon"), ("latitude", "lat")
_MANY = 5  # samples listed in a message


def read_series(
    path: StrPath,
    *,
    label: str = "label",
    date: str = "date",
    bands: Sequence[str] | None = None,
    id: str = "sample_id",  # noqa: A002  (what such tables call it)
    group: str | None = None,
    encoding: Encoding | None = None,
    steps: Steps = "equal",
) -> Samples:
    """Read labelled series from a long table.

    Step `i` of one series is put beside step `i` of every other. Series may come from different years, as
    reference data do: then ``times`` are the dates of the first sample, and a step may fall on another day of
    the year by at most half the usual gap between dates.

    Parameters
    ----------
    path : path
        Parquet or CSV; one row for each sample and date. Columns ``longitude`` and ``latitude`` (or ``lon``
        and ``lat``, degrees) give positions, if they are there.
    label : str, optional
        Column of the class: text or whole numbers.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Columns of the bands, in the order wanted. Default: every column of floats that has no other role.
    id : str, optional
        Column that tells series apart.
    group : str, optional
        Column of what must stay together when splitting, such as the field. Default: the place, so that two
        years of one pixel are one group; without positions, the series.
    encoding : Encoding, optional
        How the numbers are coded, such as ``Encoding(dtype="uint16", nodata=65535, scale=1e-4)``. Default:
        physical values, NaN where there is no data.
    steps : {"equal", "common"}, optional
        Whether all series must have the same number of dates, or are cut to the dates that all have.

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
        If a number does not fit the encoding.

    Examples
    --------
    >>> samples = read_series("cbers_samples.parquet", bands=["ndvi"])  # doctest: +SKIP
    """
    check_option("steps", steps, ["equal", "common"])
    table = _read_table(Path(path), [id, label, date, *([group] if group else []), *(bands or [])])
    place = (_first_of(_LONGITUDE, table), _first_of(_LATITUDE, table))
    chosen = tuple(bands) if bands else _band_columns(table, used={id, label, date, group, *place})

    series, _ = pd.factorize(table[id])
    when = pd.to_datetime(table[date], utc=True).to_numpy(dtype="datetime64[ns]")
    order = np.lexsort((when, series))
    table, series, when = table.iloc[order], series[order], when[order]
    names = table[id].to_numpy()
    _refuse_repeats(names, series, when)
    if steps == "common":
        kept = _on_common_dates(series, when)
        table, series, when, names = table[kept], series[kept], when[kept], names[kept]
    dates = _aligned(names, series, when)

    n, count = dates.shape
    stored = _stored(table[list(chosen)], encoding).reshape(n, count, len(chosen))
    first = table.iloc[::count]
    y, classes = _classes(table[label], names, count)
    position, crs = _positions(first, place)
    return Samples(
        x=stored,
        y=y,
        bands=chosen,
        times=dates[0],
        classes=classes,
        group=_groups(first, group, position),
        position=position,
        crs=crs,
        resolution=None,
        encoding=encoding or Encoding(dtype=str(stored.dtype), nodata=np.nan),
    )


def _read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Read a table, or only the columns needed where they can be told beforehand."""
    if not path.is_file():
        raise SourceError(f"No table at {str(path)!r}.")
    if path.suffix.lower() == ".csv":
        table = pd.read_csv(path)
    elif path.suffix.lower() in {".parquet", ".geoparquet", ".pq"}:
        schema = pyarrow.parquet.read_schema(path)
        plain = [name for name in schema.names if name != "geometry"]
        table = pyarrow.parquet.read_table(path, columns=plain).to_pandas(ignore_metadata=True)
    else:
        raise SourceError(f"{path.name!r} is neither Parquet nor CSV by its suffix.")
    for column in needed:
        if column not in table:
            raise UnknownNameError(
                f"{path.name!r} has no column {column!r}. {did_you_mean(column, table.columns)}"
            )
    if table.empty:
        raise LabelError(f"{path.name!r} has no rows.")
    return table


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


def _first_of(names: Sequence[str], table: pd.DataFrame) -> str | None:
    """Return the first name that is a column."""
    return next((name for name in names if name in table), None)


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
