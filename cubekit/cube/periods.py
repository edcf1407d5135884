"""Calendars of composites: which dates belong to which period."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from cubekit.errors import OptionError, check_option
from cubekit.typing import FloatArray, IntArray

Reference: TypeAlias = Literal["start", "middle", "end"]
"""Point of a period that ages are counted from."""

Date: TypeAlias = str | np.datetime64 | None
"""One end of a calendar."""

Groups: TypeAlias = tuple[tuple[int, ...], ...]
"""For each block along time, how many dates each of its periods has."""

MAX_PERIODS = 10_000
"""Longest calendar: over 27 years of days."""

_HINT = "write '1MS', '14D', 'QS', 'season', 'dekad', '16D/year', or a list of dates"
_TEN_DAYS = (1, 11, 21)
_LEAP_DAY = (2, 29)
_SEASONS = {12: "DJF", 3: "MAM", 6: "JJA", 9: "SON"}


@dataclass(frozen=True)
class Calendar:
    """Periods without a gap between them."""

    edges: pd.DatetimeIndex
    """Starts of the periods, and the end of the last."""

    every: str
    """How it was asked for."""

    pooled: bool = False
    """Whether dates of any year count, in the periods of one."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def starts(self) -> pd.DatetimeIndex:
        """Starts of the periods."""
        return self.edges[:-1]

    def placed(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Return where dates lie in the calendar.

        Parameters
        ----------
        times : pandas.DatetimeIndex
            Dates of the cube.

        Returns
        -------
        pandas.DatetimeIndex
            As they are; in a pooled calendar, moved to its one year.
        """
        if not self.pooled:
            return times
        return pd.DatetimeIndex([_moved(time, self.edges[0]) for time in times])

    def ages(self, times: pd.DatetimeIndex, reference: Reference) -> FloatArray:
        """Return how many days before the reference point of its period each date lies.

        Parameters
        ----------
        times : pandas.DatetimeIndex
            Dates inside the calendar.
        reference : {"start", "middle", "end"}
            Point of the period.

        Returns
        -------
        numpy.ndarray
            float32 days, negative for later dates.

        Raises
        ------
        OptionError
            For an unknown `reference`.
        """
        check_option("reference", reference, get_args(Reference))
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[reference]
        places = self.placed(times)
        period = self.edges.searchsorted(places, side="right") - 1
        points = self.starts + (self.edges[1:] - self.starts) * share
        return ((points[period] - places) / np.timedelta64(1, "D")).to_numpy("float32")

    def names(self) -> list[str] | None:
        """Name seasons by their months and the year that they end in; None for other calendars."""
        if self.every != "season":
            return None
        ends = self.edges[1:] - pd.Timedelta(days=1)
        names = [_SEASONS[start.month] for start in self.starts]
        return names if self.pooled else [f"{name} {end.year}" for name, end in zip(names, ends, strict=True)]


def make_calendar(
    every: str | Iterable[Any],
    times: pd.DatetimeIndex,
    *,
    start: Date = None,
    end: Date = None,
    pool_years: bool = False,
) -> Calendar:
    """Make the calendar that a composite follows.

    Parameters
    ----------
    every : str or iterable of dates
        A pandas offset (``"1MS"``, ``"14D"``), ``"season"``, ``"dekad"``, days that start anew each year
        (``"16D/year"``), or the edges of all periods.
    times : pandas.DatetimeIndex
        Dates of the cube, increasing.
    start, end : str or numpy.datetime64, optional
        First and last date of interest. Default: those of `times`.
    pool_years : bool, optional
        One year of periods, into which the dates of all years fall.

    Returns
    -------
    Calendar
        From the period that holds `start` to the one that holds `end`.

    Raises
    ------
    OptionError
        For an unknown period, `end` before `start`, edges that do not increase, or periods that do not repeat
        from year to year where years are to be pooled.
    """
    begin = pd.Timestamp(times[0] if start is None else start).normalize()
    stop = pd.Timestamp(times[-1] if end is None else end)
    if stop < begin:
        raise OptionError(f"start={start!r} lies after end={end!r}.")
    name = every if isinstance(every, str) else "edges given"
    if not isinstance(every, str):
        if start is not None or end is not None:
            raise OptionError("every is a list of dates already: leave start and end out.")
        edges = _given(every)
    elif pool_years:
        first = pd.Timestamp(begin.year, 1, 1)
        edges = _edges(every, first, first + pd.DateOffset(months=12, days=-1))
        edges = edges[edges <= edges[0] + pd.DateOffset(years=1)]
    else:
        edges = _edges(every, begin, stop)
    if pool_years and edges[-1] != edges[0] + pd.DateOffset(years=1):
        raise OptionError(
            f"every={name!r} does not repeat from year to year, which pool_years=True needs: write '1MS', "
            "'season', 'dekad' or '16D/year'."
        )
    return Calendar(edges, name, pool_years)


def _given(every: Iterable[Any]) -> pd.DatetimeIndex:
    """Check edges that the user lists."""
    try:
        edges = pd.DatetimeIndex([pd.Timestamp(edge) for edge in every])
    except (TypeError, ValueError) as error:
        raise OptionError(f"every={every!r} is not a list of dates; {_HINT}.") from error
    if len(edges) < 2 or not (edges.is_monotonic_increasing and edges.is_unique):  # noqa: PLR2004
        raise OptionError(f"every={list(map(str, edges))}: give at least two dates, increasing.")
    return edges


def _edges(every: str, begin: pd.Timestamp, stop: pd.Timestamp) -> pd.DatetimeIndex:
    """List edges from the period that holds one date to the one that holds another."""
    name, _, anew = every.partition("/")
    if anew not in {"", "year"}:
        raise OptionError(f"every={every!r} is not a period; {_HINT}.")
    if every == "dekad" or anew:
        years = range(begin.year, stop.year + 1)
        yearly = _dekads if every == "dekad" else _yearly(every, _offset(name, every))
        all_edges = pd.DatetimeIndex(
            [edge for year in years for edge in yearly(year)] + [pd.Timestamp(stop.year + 1, 1, 1)]
        )
        first = max(all_edges.searchsorted(begin, side="right") - 1, 0)
        last = all_edges.searchsorted(stop, side="right")
        edges = all_edges[first : last + 1]
        _check_number(len(edges), every, begin, stop)
        return edges
    offset = pd.tseries.frequencies.to_offset("QS-DEC") if every == "season" else _offset(every, every)
    found: list[Any] = [offset.rollback(begin)]
    while found[-1] <= stop:
        _check_number(len(found), every, begin, stop)
        found.append(found[-1] + offset)
    return pd.DatetimeIndex(found)


def _check_number(count: int, every: str, begin: pd.Timestamp, stop: pd.Timestamp) -> None:
    if count > MAX_PERIODS:
        raise OptionError(f"every={every!r} from {begin} to {stop} gives over {MAX_PERIODS} periods.")


def _offset(text: str, every: str) -> Any:
    try:
        offset = pd.tseries.frequencies.to_offset(text)
    except ValueError as error:
        raise OptionError(f"every={every!r} is not a period; {_HINT}.") from error
    if offset.n < 1:
        raise OptionError(f"every={every!r} is not a period; {_HINT}.")
    return offset


def _dekads(year: int) -> list[pd.Timestamp]:
    return [pd.Timestamp(year, month, day) for month in range(1, 13) for day in _TEN_DAYS]


def _yearly(every: str, offset: Any) -> Any:
    """Return a function that lists the starts of the periods of one year."""
    if not isinstance(offset, pd.tseries.offsets.Day):
        raise OptionError(f"every={every!r}: only days start anew each year, as in '16D/year'.")

    def starts(year: int) -> list[pd.Timestamp]:
        return list(pd.date_range(f"{year}-01-01", f"{year}-12-31", freq=offset))

    return starts


def _moved(time: pd.Timestamp, first: pd.Timestamp) -> pd.Timestamp:
    """Move a date into the year that starts at a date; 29 February becomes the 28th where there is none."""
    if (time.month, time.day) == _LEAP_DAY:
        time -= pd.Timedelta(days=1)
    moved = time.replace(year=first.year)
    return moved if moved >= first else moved.replace(year=first.year + 1)


def members(calendar: Calendar, times: pd.DatetimeIndex) -> tuple[IntArray, list[int]]:
    """Sort dates into periods.

    Parameters
    ----------
    calendar : Calendar
        Periods.
    times : pandas.DatetimeIndex
        Dates of the cube, increasing.

    Returns
    -------
    numpy.ndarray, list of int
        Which dates lie in the calendar, period by period, in each the earlier ones first; and how many belong
        to each period.
    """
    places = calendar.placed(times)
    period = calendar.edges.searchsorted(places, side="right") - 1
    inside = (places >= calendar.edges[0]) & (places < calendar.edges[-1])
    order = np.argsort(period, kind="stable")
    order = order[inside[order]]
    counts = np.bincount(period[order], minlength=len(calendar))
    return order, counts.tolist()


def groups_of(counts: Sequence[int], size: int) -> Groups:
    """Put whole periods together into blocks; none is without any date.

    Parameters
    ----------
    counts : sequence of int
        Dates of each period.
    size : int
        How many dates a block has, about.

    Returns
    -------
    tuple of tuple of int
        Dates of the periods of each block.
    """
    groups: list[list[int]] = [[]]
    for count in counts:
        if count and sum(groups[-1]) and sum(groups[-1]) + count > size:
            groups.append([])
        groups[-1].append(count)
    return tuple(tuple(group) for group in groups)


def spans(counts: Iterable[int]) -> Iterator[tuple[int, slice]]:
    """Find the dates of each period of a block that has any.

    Parameters
    ----------
    counts : iterable of int
        Dates of each period.

    Yields
    ------
    tuple
        Number of the period, and its dates within the block.
    """
    start = 0
    for step, count in enumerate(counts):
        if count:
            yield step, slice(start, start + count)
        start += count
