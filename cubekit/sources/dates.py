"""Dates that file names do not say: sidecar lists, stacks of regular steps; and dates that are missing."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, Day, Tick

from cubekit.errors import ArchiveError, OptionError
from cubekit.typing import StrPath

DatesLike: TypeAlias = StrPath | Sequence[str | datetime]
"""A CSV file, or the dates of the layers of each file."""

_SHOWN: Final = 10
_YEAR: Final = pd.Timedelta(days=365)


@dataclass(frozen=True, kw_only=True)
class Dates:
    """When files, or the layers in them, were taken."""

    files: Mapping[str, tuple[datetime, datetime | None]] = field(default_factory=dict)
    """First day and, where a file covers a period, last day; by path relative to the archive."""

    layers: tuple[datetime, ...] = ()
    """Of the layers of each file, in file order."""

    every: str | None = None
    """Step between the layers of each file, from the file's own date on."""

    @property
    def of_layers(self) -> bool:
        """Whether the layers of one file are dates, not bands."""
        return bool(self.layers) or self.every is not None

    def layer(self, index: int, count: int, start: datetime | None, *, year: bool = False) -> datetime:
        """Return the date of a layer.

        Parameters
        ----------
        index : int
            From 1.
        count : int
            Number of layers in the file.
        start : datetime or None
            Date that the file's name says.
        year : bool, optional
            Whether that is a year alone, which the layers must not leave.

        Returns
        -------
        datetime.datetime
            UTC.

        Raises
        ------
        ValueError
            Saying what does not fit.
        """
        if self.layers:
            if count != len(self.layers):
                raise ValueError(f"{count} layers, but {len(self.layers)} dates")
            return self.layers[index - 1]
        if start is None:
            raise ValueError("the pattern has no {date} to count from")
        first = pd.Timestamp(start)
        step = _offset(self.every or "")
        time = first + (index - 1) * step
        if year and time.year != first.year and first + step < first + _YEAR:
            raise ValueError(
                f"layer {index} of {count}, every {self.every}, would leave the year {first.year}"
            )
        return time.to_pydatetime()


def read_dates(dates: DatesLike | None, *, every: str | None = None) -> Dates:
    """Read dates from a sidecar file or a sequence.

    Parameters
    ----------
    dates : path, sequence of str or datetime, or None
        CSV with a column ``date`` and either a column ``file`` (and ``end``, for periods), or nothing else:
        then, as a sequence, the dates of the layers of each file. Dates are ISO, ``20130914`` or ``2013257``
        (day of the year).
    every : str, optional
        Step between the layers of each file instead.

    Returns
    -------
    Dates
        UTC.

    Raises
    ------
    ArchiveError
        If the file cannot be read; naming rows that are no dates, and what comes twice.
    OptionError
        For `every` that is no step, or both arguments at once.
    """
    if every is not None:
        if dates is not None:
            raise OptionError("Give either dates= or every=: both say when layers were taken.")
        _offset(every)
        return Dates(every=every)
    if dates is None:
        return Dates()
    if isinstance(dates, Sequence) and not isinstance(dates, str):
        return Dates(layers=_once(_all([[str(date)] for date in dates], "dates=", 1), "dates="))
    return _read_csv(Path(dates))


def _read_csv(path: Path) -> Dates:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{path} cannot be read as a list of dates: {error}") from None
    if not rows:
        raise ArchiveError(f"{path} holds no dates.")
    names = [cell.lower() for cell in rows[0]]
    if "date" not in names:
        return Dates(layers=_once(_all(rows, str(path), 1), str(path)))
    column, body = names.index("date"), [row + [""] * len(names) for row in rows[1:]]
    times = _all([[row[column]] for row in body], str(path), 2)
    if "file" not in names:
        return Dates(layers=_once(times, str(path)))
    files = [row[names.index("file")].replace("\\", "/").removeprefix("./") for row in body]
    if twice := sorted({name for name in files if files.count(name) > 1}):
        raise ArchiveError(f"{path} names files twice: {', '.join(twice[:_SHOWN])}.")
    ends: list[datetime | None] = [None] * len(files)
    if "end" in names:
        stated = [row[names.index("end")] for row in body]
        ends = [_all([[text]], f"{path}, column end", 2)[0] if text else None for text in stated]
    return Dates(files={name: pair for name, *pair in zip(files, times, ends, strict=True)})  # type: ignore[misc]


def _once(times: Sequence[datetime], where: str) -> tuple[datetime, ...]:
    """Refuse dates of layers that come twice."""
    if twice := sorted({f"{time:%Y-%m-%d}" for time in times if times.count(time) > 1}):
        raise ArchiveError(f"{where}: dates come twice: {', '.join(twice[:_SHOWN])}.")
    return tuple(times)


def _all(rows: Sequence[Sequence[str]], where: str, first: int) -> list[datetime]:
    """Read one date from each row; one error lists all that cannot be read."""
    times, wrong = [], []
    for number, row in enumerate(rows, first):
        try:
            times.append(parse_date(row[0]))
        except ValueError:
            wrong.append(f"{row[0]!r} (row {number})")
    if wrong:
        more = ", …" if len(wrong) > _SHOWN else ""
        raise ArchiveError(f"{where}: no dates: {', '.join(wrong[:_SHOWN])}{more}. Write 2013-09-14.")
    return times


def parse_date(text: str) -> datetime:
    """Read a date or time.

    Parameters
    ----------
    text : str
        ISO 8601, ``20130914``, or year and day of the year as ``2013257`` or ``A2013257``.

    Returns
    -------
    datetime.datetime
        UTC.

    Raises
    ------
    ValueError
        If it is none.
    """
    day = text.removeprefix("A")
    if day.isdigit() and len(day) == 7:  # noqa: PLR2004  (year and day of the year)
        return datetime.strptime(day, "%Y%j").replace(tzinfo=UTC)
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _offset(every: str) -> "BaseOffset":
    try:
        return to_offset(every)
    except (ValueError, AttributeError):
        raise OptionError(f"every={every!r} is no step in time; write '16D', '1MS' or '1YS'.") from None


def missing_dates(times: Sequence[datetime], every: str) -> tuple[datetime, ...]:
    """Tell which dates of a regular series are not there; see `cubekit.sources.items.Items.missing_dates`.

    Parameters
    ----------
    times : sequence of datetime
        Dates that are there; times of day are passed over.
    every : str
        Step.

    Returns
    -------
    tuple of datetime.datetime
        UTC, increasing.

    Raises
    ------
    OptionError
        For a step that is none, or dates that do not lie on such a series.
    """
    step = _offset(every)
    days = pd.DatetimeIndex(sorted({pd.Timestamp(time).tz_localize(None).normalize() for time in times}))
    if len(days) == 0:
        return ()
    for series in (_by_year(days, step), pd.date_range(days[0], days[-1], freq=step)):
        if series is not None and days.isin(series).all():
            return tuple(day.to_pydatetime().replace(tzinfo=UTC) for day in series.difference(days))
    off = [str(day.date()) for day in days.difference(pd.date_range(days[0], days[-1], freq=step))]
    raise OptionError(
        f"The dates are no series of every={every!r}: {', '.join(off[:_SHOWN])} do not lie on it."
    )


def _by_year(days: pd.DatetimeIndex, step: "BaseOffset") -> pd.DatetimeIndex | None:
    """Return a series of days that starts again each 1 January; None for other steps."""
    if not isinstance(step, Day | Tick):
        return None
    years = [
        pd.date_range(f"{year}-01-01", f"{year}-12-31", freq=step)
        for year in range(days[0].year, days[-1].year + 1)
    ]
    series = pd.DatetimeIndex([day for year in years for day in year])
    return series[(series >= days[0]) & (series <= days[-1])]
