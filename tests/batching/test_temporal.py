from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from cubekit.batching.folds import folds
from cubekit.batching.leakage import leakage
from cubekit.batching.patches import PatchPlan
from cubekit.batching.samples import Samples
from cubekit.batching.split import split
from cubekit.batching.temporal import days_of
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, SplitError
from cubekit.labels import ClassTable

DAY = np.timedelta64(1, "D")


def series(n: int, seed: int, *, years: int = 6, jitter: int = 10, classes: int = 2) -> Samples:
    """Series of whole years of one place each, whose dates differ by some days."""
    random = np.random.default_rng(seed)
    shift = random.integers(-jitter, jitter + 1, n) if jitter else np.zeros(n, int)
    year = random.integers(0, years, n)
    first = (np.array([f"{2015 + each}-01-15" for each in year], "datetime64[ns]") + shift * DAY).astype(
        "datetime64[ns]"
    )
    return Samples(
        x=np.arange(n, dtype="float32").reshape(n, 1, 1).repeat(2, axis=1),
        y=(np.arange(n) % classes).astype("int16"),
        bands=("b",),
        times=np.array([first[0], first[0] + 330 * DAY]),
        classes=ClassTable.of([f"c{index}" for index in range(classes)]),
        group=np.arange(n),
        position=random.uniform(0, 1000, (n, 2)),
        crs="EPSG:32633",
        resolution=10.0,
        encoding=Encoding(dtype="float32", nodata=np.nan),
        span=np.stack([first, first + 330 * DAY], axis=1),
    )


def plan(steps: int, horizon: int, *, dates: int = 40, seed: int = 0) -> PatchPlan:
    """Windows over irregular dates of a small cube without a grid."""
    random = np.random.default_rng(seed)
    times = np.datetime64("2010-01-01", "ns") + np.cumsum(random.integers(1, 60, dates)) * DAY
    data = xr.Dataset({"data": (("time", "y", "x"), np.zeros((dates, 4, 6)))}, coords={"time": times})
    return PatchPlan(data, 2, steps=steps, horizon=horizon)


def dates_of(part: PatchPlan, *, learned: bool) -> set[int]:
    """All dates in the windows of a part, or in their targets, one by one."""
    times = part.ds["time"].to_numpy().astype("int64")
    found: set[int] = set()
    for first, last in part.bounds("time").tolist():
        begin = last - part.horizon if learned and part.horizon else first
        found |= set(times[begin:last].tolist())
    return found


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 6),
    horizon=st.integers(0, 3),
    gap=st.sampled_from([0, 5, 40, 120]),
    seed=st.integers(0, 500),
)
def test_no_training_window_looks_at_a_held_out_date(steps: int, horizon: int, gap: int, seed: int) -> None:
    whole = plan(steps, horizon, seed=seed)
    try:
        train, valid, test = split(whole, by="time", gap=gap)
    except SplitError:
        assume(False)
    assert len(train)
    assert len(test)
    nanoseconds = gap * 86_400 * 10**9
    for weak, strong in ((train, valid), (train, test), (valid, test)):
        if len(strong):
            held = min(dates_of(strong, learned=True))
            assert max(dates_of(weak, learned=False)) < held
            assert held - max(dates_of(weak, learned=False)) >= nanoseconds
    everything = dates_of(whole, learned=True)
    assert max(dates_of(test, learned=True)) == max(everything)  # the end is held out


@settings(max_examples=40, deadline=None)
@given(k=st.integers(3, 5), gap=st.sampled_from([0, 30]), horizon=st.integers(0, 2), seed=st.integers(0, 99))
def test_folds_in_time_test_every_window_once_and_share_no_held_out_date(
    k: int, gap: int, horizon: int, seed: int
) -> None:
    whole = plan(3, horizon, dates=60, seed=seed)
    tested = []
    for train, valid, test in folds(whole, by="time", k=k, gap=gap):
        tested += test.windows.bounds.tolist()
        for weak, strong in ((train, valid), (train, test), (valid, test)):
            if len(weak) and len(strong):
                held = dates_of(strong, learned=True)
                low, high = min(held) - gap * 86_400 * 10**9, max(held) + gap * 86_400 * 10**9
                assert not [date for date in dates_of(weak, learned=False) if low < date < high]
    assert sorted(tested) == sorted(whole.windows.bounds.tolist())


def test_forward_folds_train_only_on_the_past() -> None:
    whole = plan(3, 1, dates=60)
    found = list(folds(whole, by="time", k=4, forward=True))
    assert len(found) == 4
    for train, valid, test in found:
        assert max(dates_of(train, learned=False)) < min(dates_of(valid, learned=True))
        assert max(dates_of(valid, learned=False)) < min(dates_of(test, learned=True))
    assert [len(train) for train, _, _ in found] == sorted(len(train) for train, _, _ in found)
    with pytest.raises(OptionError, match="forward=True goes with by='time'"):
        next(folds(whole, by="groups", k=4, forward=True))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(30, 200), jitter=st.sampled_from([0, 10]), seed=st.integers(0, 999))
def test_years_of_series_are_held_out_whole(n: int, jitter: int, seed: int) -> None:
    samples = series(n, seed, jitter=jitter)
    try:
        parts = split(samples, by="time")
    except SplitError:
        assume(False)
    years = [set((part.spans()[:, 1] - 60 * DAY).astype("datetime64[Y]").tolist()) for part in parts]
    assert sum(map(len, parts)) == n  # a boundary between years loses nothing
    for one, other in combinations(range(3), 2):
        assert not years[one] & years[other]
        assert max(years[one]) < min(years[other])


def test_cuts_say_where_validation_and_test_begin() -> None:
    samples = series(300, 1)
    train, valid, test = split(samples, by="time", cuts=("2018-01-01", "2020-01-01"))
    assert train.spans().max() < np.datetime64("2018-01-01") <= valid.spans().min()
    assert valid.spans().max() < np.datetime64("2020-01-01") <= test.spans().min()
    assert (len(train), len(valid), len(test)) == tuple(
        int(count) for count in np.histogram(samples.spans()[:, 0].astype("datetime64[Y]").astype(int),
                                             [45, 48, 50, 60])[0]
    )  # fmt: skip
    without = split(samples, by="time", cuts=("2020", "2020"))
    assert len(without[1]) == 0
    assert len(without[0]) + len(without[2]) == 300


def test_the_report_says_how_far_parts_are_apart_in_time() -> None:
    parts = split(series(200, 2, jitter=0), by="time")
    report = leakage(*parts)
    gap = float((parts[2].spans().min() - parts[0].spans().max()) / DAY)
    assert report.days["train", "test"] == gap > 0
    assert f"{gap:g} days apart" in str(report)
    assert report.dates["test"][1] == str(parts[2].spans().max().astype("datetime64[D]"))
    mixed = leakage(*split(series(200, 2), by="random"))
    assert mixed.days["train", "test"] == 0
    assert "dates in common" in str(mixed)
    windows = leakage(*split(plan(4, 1), by="time", gap=30))
    assert windows.days["train", "test"] >= 30
    assert windows.groups["train", "test"] == 6  # the same places: time is what keeps them apart


def test_samples_of_several_years_are_joined_and_parted_by_year(tmp_path: Path) -> None:
    years = []
    for year in range(2018, 2022):
        one = replace(series(20, year, jitter=0), span=None)
        years.append(replace(one, times=np.array([f"{year}-01-15", f"{year}-12-11"], "datetime64[ns]")))
    samples = Samples.join(years)
    samples.save(tmp_path / "joined.zarr")
    again = Samples.load(tmp_path / "joined.zarr")
    assert again.digest() == samples.digest()
    parts = split(again, by="time", fractions=(0.5, 0.25, 0.25))
    assert [len(part) for part in parts] == [40, 20, 20]
    assert str(parts[2].spans().min())[:4] == "2021"
    with pytest.raises(OptionError, match="Samples 1 have bands"):
        Samples.join([years[0], replace(years[1], bands=("c",))])
    with pytest.raises(OptionError, match="no samples to join"):
        Samples.join([])


def test_what_cannot_be_parted_in_time_is_refused(make_samples: Callable[..., Samples]) -> None:
    with pytest.raises(SplitError, match=r"of the same dates, 2021-01-01 to 2021-08-29.*Samples.join"):
        split(make_samples(60), by="time")
    with pytest.raises(SplitError, match="steps="):
        split(PatchPlan(plan(1, 0).ds, 2), by="time")
    with pytest.raises(SplitError, match=r"gap of 5000 days: too few dates"):
        split(plan(2, 1), by="time", gap="5000D")
    late = series(100, 3)
    early_only = replace(late, y=(late.spans()[:, 0] < np.datetime64("2016-01-01")).astype("int16"))
    with pytest.raises(SplitError, match="no sample of class 'c1' for test"):
        split(early_only, by="time")
    with pytest.raises(OptionError, match="use gap="):
        split(series(50, 0), by="time", buffer=10)
    with pytest.raises(OptionError, match="go with by='time'"):
        split(series(50, 0), by="random", gap=3)
    with pytest.raises(OptionError, match="must be the first dates"):
        split(series(50, 0), by="time", cuts=("2020-01-01", "2019-01-01"))
    with pytest.raises(SplitError, match="too few for 12"):
        next(folds(series(100, 0, jitter=0, years=6), by="time", k=12))


@pytest.mark.parametrize("gap", [-1, "soon", float("nan"), float("inf")])
def test_lengths_of_time_are_checked(gap: float | str) -> None:
    with pytest.raises(OptionError, match="must be a number of days"):
        days_of(gap)


def test_patches_are_parted_by_blocks_of_land_with_their_whole_area(
    make_cube: Callable[..., xr.Dataset], make_labels: Callable[..., xr.Dataset]
) -> None:
    cube = make_cube(rows=120, columns=160)
    patches = PatchPlan(cube, 8, stride=4)
    for labels in (None, make_labels(cube)):
        parts = split(patches, labels, by="blocks", block=400, buffer=20)
        assert min(map(len, parts)) > 0
        taken = [np.zeros((120, 160), bool) for _ in parts]
        for part, pixels in zip(parts, taken, strict=True):
            for top, bottom, left, right in part.windows.bounds.tolist():
                pixels[top:bottom, left:right] = True
        for one, other in combinations(taken, 2):
            spread = binary_dilation(one, np.ones((5, 5)))  # 20 m are two pixels
            assert not (spread & other).any()
        assert leakage(*parts).distance["train", "test"] >= 20
