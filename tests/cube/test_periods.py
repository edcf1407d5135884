"""Calendars against pandas' own periods and against dates counted by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubekit.cube.periods import make_calendar, members
from cubekit.errors import OptionError


def days(*texts: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(texts)


def starts(every: str, first: str, last: str) -> list[str]:
    return [str(day.date()) for day in make_calendar(every, days(first, last)).starts]


def test_dekads_start_on_the_1st_11th_and_21st() -> None:
    assert starts("dekad", "2024-02-12", "2024-03-01") == ["2024-02-11", "2024-02-21", "2024-03-01"]
    year = make_calendar("dekad", days("2023-01-01", "2023-12-31"))
    assert len(year) == 36
    assert (year.edges[0], year.edges[-1]) == (pd.Timestamp("2023-01-01"), pd.Timestamp("2024-01-01"))


# First days of the composites of MOD13Q1 (16 days) in 2023, and in the leap year 2024.
def test_days_start_anew_each_year_as_those_of_modis() -> None:
    found = make_calendar("16D/year", days("2023-01-01", "2024-12-31")).starts
    assert len(found) == 46
    assert found[:3].day_of_year.tolist() == [1, 17, 33]
    assert [str(day.date()) for day in found[22:25]] == ["2023-12-19", "2024-01-01", "2024-01-17"]


def test_winter_carries_the_year_that_it_ends_in() -> None:
    calendar = make_calendar("season", days("2022-12-30", "2023-09-01"))
    assert calendar.names() == ["DJF 2023", "MAM 2023", "JJA 2023", "SON 2023"]
    assert calendar.starts[0] == pd.Timestamp("2022-12-01")
    assert make_calendar("season", days("2024-02-29", "2024-02-29")).names() == ["DJF 2024"]
    assert make_calendar("1MS", days("2024-02-29", "2024-02-29")).names() is None


def test_edges_of_ones_own() -> None:
    times = days("2023-01-01", "2023-03-10", "2023-04-01", "2023-09-01")
    calendar = make_calendar(["2023-03-01", np.datetime64("2023-04-01"), "2023-05-15"], times)
    order, counts = members(calendar, times)
    assert (order.tolist(), counts) == ([1, 2], [1, 1])


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=30, unique=True).map(sorted),
    st.sampled_from(["1MS", "season", "dekad", "16D/year", "QS", "11D"]),
)
def test_every_date_lies_in_exactly_the_period_that_holds_it(numbers: list[int], every: str) -> None:
    times = pd.Timestamp("2015-06-01") + pd.to_timedelta(numbers, unit="D")
    calendar = make_calendar(every, times)
    order, counts = members(calendar, times)
    assert order.tolist() == list(range(len(times)))
    assert len(counts) == len(calendar)
    assert counts[0] > 0
    assert counts[-1] > 0
    bounds = np.repeat(np.arange(len(calendar)), counts)
    assert (calendar.edges[bounds] <= times).all()
    assert (times < calendar.edges[bounds + 1]).all()


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=30, unique=True).map(sorted),
    st.sampled_from(["1MS", "season", "dekad"]),
)
def test_years_are_pooled_by_month_and_day(numbers: list[int], every: str) -> None:
    times = pd.Timestamp("2015-06-01") + pd.to_timedelta(numbers, unit="D")
    calendar = make_calendar(every, times, pool_years=True)
    order, counts = members(calendar, times)
    assert len(calendar) == {"1MS": 12, "season": 4, "dekad": 36}[every]
    assert sorted(order.tolist()) == list(range(len(times)))
    start = calendar.starts[np.repeat(np.arange(len(calendar)), counts)]
    found = times[order]
    if every == "1MS":
        assert (start.month == found.month).all()
    elif every == "season":
        assert (start.month % 12 // 3 == found.month % 12 // 3).all()
    else:
        leap = (found.month == 2) & (found.day == 29)
        assert (start.month == found.month)[~leap].all()
        assert (start.day <= found.day).all()
    for period in np.split(order, np.cumsum(counts)[:-1]):
        assert (np.diff(period) > 0).all()


def test_ages_count_from_a_point_of_the_period() -> None:
    times = days("2023-01-01", "2023-01-31")
    calendar = make_calendar("1MS", times)
    assert calendar.ages(times, "middle").tolist() == [15.5, -14.5]
    assert calendar.ages(times, "start").tolist() == [0, -30]
    assert calendar.ages(times, "end").tolist() == [31, 1]


@pytest.mark.parametrize(
    ("every", "message"),
    [
        ("1fortnight", "every='1fortnight' is not a period"),
        ("16D/month", "is not a period"),
        ("1MS/year", "only days start anew"),
        ("", "is not a period"),
        (["2023-01-01"], "at least two dates, increasing"),
        (["2023-02-01", "2023-01-01"], "increasing"),
        (["yesteryear", "2023-01-01"], "not a list of dates"),
    ],
)
def test_wrong_wishes_are_refused(every: str | list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_calendar(every, days("2023-01-01", "2023-05-01"))


def test_wrong_combinations_are_refused() -> None:
    times = days("2023-01-01", "2023-05-01")
    with pytest.raises(OptionError, match="leave start and end out"):
        make_calendar(["2023-01-01", "2023-05-01"], times, start="2023-01-01")
    with pytest.raises(OptionError, match="does not repeat from year to year"):
        make_calendar("11D", times, pool_years=True)
    with pytest.raises(OptionError, match="reference='centre'"):
        make_calendar("1MS", times).ages(times, "centre")  # type: ignore[arg-type]


def test_bins_closed_right_are_those_that_begin_a_day_later() -> None:
    """Composites of 14 days from 2021-10-30, closed on the right, as pandas makes them, with 13 steps."""
    times = pd.date_range("2021-11-01", "2022-04-30", freq="D")
    found = make_calendar("14D", times, start="2021-10-31", end="2022-04-30")
    order, counts = members(found, times)
    values = pd.Series(np.arange(len(times)), index=times)
    bins = values.resample("14D", closed="right", origin="2021-10-30")
    expected = {start: part.tolist() for start, part in bins}
    assert len(found) == len(expected) == 13
    parts = [part.tolist() for part in np.split(order, np.cumsum(counts)[:-1])]
    assert parts == [*expected.values()]
    assert ((found.starts - pd.DatetimeIndex([*expected])) == pd.Timedelta(days=1)).all()
