from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cubekit.batching.assign import assign_samples, assign_units
from cubekit.batching.leakage import leakage
from cubekit.batching.samples import Samples
from cubekit.batching.split import split
from cubekit.batching.units import By
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, SplitError
from cubekit.labels import ClassTable

Make = Callable[..., Samples]
Parts = tuple[Samples, Samples, Samples]


def gap(one: Samples, other: Samples) -> float:
    """Least distance, the slow and sure way."""
    return float(cdist(one.position, other.position).min())


def scattered(n: int, classes: int, seed: int, *, side: float = 3000) -> Samples:
    """Clusters of samples, as polygons give."""
    random = np.random.default_rng(seed)
    group = random.integers(0, max(4, n // 8), n)
    position = random.uniform(0, side, (group.max() + 1, 2))[group] + random.uniform(0, 80, (n, 2))
    return Samples(
        x=np.arange(n, dtype="float32").reshape(n, 1, 1),
        y=((group + random.integers(0, 2, n)) % classes).astype("int16"),
        bands=("b",),
        times=np.array(["2020-01-01"], "datetime64[ns]"),
        classes=ClassTable.of([f"c{index}" for index in range(classes)]),
        group=group,
        position=np.round(position, -1),
        crs="EPSG:32633",
        resolution=10.0,
        encoding=Encoding(dtype="float32", nodata=np.nan),
    )


def ids(part: Samples) -> list[int]:
    """Return the numbers that :func:`scattered` wrote into the series."""
    return [int(number) for number in part.x[:, 0, 0]]


cases = st.builds(scattered, n=st.integers(40, 250), classes=st.integers(2, 5), seed=st.integers(0, 10_000))


@settings(max_examples=60, deadline=None)
@given(
    samples=cases,
    by=st.sampled_from(["blocks", "groups", "random"]),
    buffer=st.sampled_from([0.0, 10.0, 30.0, 75.0, 200.0]),
    seed=st.integers(0, 5),
)
def test_no_two_parts_are_nearer_than_the_buffer_and_classes_are_in_both(
    samples: Samples, by: By, buffer: float, seed: int
) -> None:
    try:
        parts = split(samples, by=by, buffer=buffer, seed=seed)
    except SplitError:
        assume(False)
    for one, other in combinations(parts, 2):
        assert gap(one, other) >= buffer
        assert not set(ids(one)) & set(ids(other))
        if by == "groups":
            assert not set(one.group) & set(other.group)
    for part in (parts[0], parts[2]):
        assert {name for name, count in part.counts().items() if count} == {
            name for name, count in samples.counts().items() if count
        }
    if not buffer:
        assert sorted(i for part in parts for i in ids(part)) == list(range(len(samples)))


@pytest.mark.parametrize("by", ["blocks", "groups", "random"])
def test_equal_seeds_give_equal_parts(by: By) -> None:
    samples = scattered(300, 3, 7)
    first, again, other = (split(samples, by=by, seed=seed) for seed in (4, 4, 5))
    assert [part.digest() for part in first] == [part.digest() for part in again]
    assert [part.digest() for part in first] != [part.digest() for part in other]


@pytest.mark.parametrize("by", ["blocks", "groups", "random"])
@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (0.7, 0.3, 0.0)])
def test_fractions_are_met_about(by: By, fractions: tuple[float, float, float]) -> None:
    samples = scattered(2000, 4, 3)
    parts = split(samples, by=by, fractions=fractions)
    np.testing.assert_allclose([len(part) / 2000 for part in parts], fractions, atol=0.06)
    for name, total in samples.counts().items():
        shares = [part.counts()[name] / total for part in parts]
        np.testing.assert_allclose(shares, fractions, atol=0.15 if by != "random" else 0.01)


def test_blocks_are_whole_squares_of_land() -> None:
    samples = scattered(1500, 3, 1)
    parts = split(samples, by="blocks", block=500)
    corner = samples.position.min(axis=0)
    squares = [{tuple(s) for s in ((part.position - corner) // 500).astype(int).tolist()} for part in parts]
    for one, other in combinations(squares, 2):
        assert not one & other


def test_without_a_buffer_random_parts_touch_and_blocks_with_one_do_not() -> None:
    samples = scattered(1500, 3, 1)
    at_random = leakage(*split(samples, by="random"))
    blocked = leakage(*split(samples, by="blocks", block=600, buffer=100))
    assert at_random.distance["train", "test"] < 10
    assert blocked.distance["train", "test"] >= 100
    assert at_random.groups["train", "test"] > 50


def test_a_rare_class_reaches_training_and_test_first() -> None:
    counts = np.array([[10, 0]] * 20 + [[0, 3], [0, 3]], float)
    for seed in range(10):
        part = assign_units(counts, np.array([0.6, 0.2, 0.2]), np.random.default_rng(seed))
        assert sorted(part[-2:].tolist()) == [0, 2]
        three = assign_units(
            counts[[0, 1, 2, 20, 20, 20]], np.array([0.6, 0.2, 0.2]), np.random.default_rng(seed)
        )
        assert sorted(three[-3:].tolist()) == [0, 1, 2]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_random_parts_hold_every_class_that_has_enough_samples(few: int, many: int, seed: int) -> None:
    y = np.repeat([0, 1], [few, many])
    part = assign_samples(np.eye(2)[y], np.array([0.6, 0.2, 0.2]), np.random.default_rng(seed))
    for index, count in enumerate((few, many)):
        present = set(part[y == index].tolist())
        assert present >= ({0}, {0}, {0, 2}, {0, 1, 2})[min(count, 3)]


def test_labels_of_a_cube_are_extracted(
    make_cube: Callable[..., xr.Dataset], make_labels: Callable[..., xr.Dataset]
) -> None:
    cube = make_cube(rows=60, columns=60)
    parts = split(cube, make_labels(cube, share=0.2), by="blocks", buffer=30)
    assert gap(parts[0], parts[2]) >= 30
    with pytest.raises(OptionError, match="labels="):
        split(cube)
    with pytest.raises(OptionError, match="theirs"):
        split(parts[0], make_labels(cube))


def test_one_class_is_refused(make_samples: Make) -> None:
    samples = make_samples(50)
    with pytest.raises(LabelError, match=r"50 samples are of one class \(class 1\)"):
        split(replace(samples, y=np.ones(50, "int16")))


def test_fewer_samples_than_parts_are_refused(make_samples: Make) -> None:
    with pytest.raises(SplitError, match="2 samples cannot fill 3 parts"):
        split(make_samples(2, classes=2), by="random")


def test_unknown_positions_are_refused_where_they_are_needed(make_samples: Make) -> None:
    samples = make_samples(60)
    lost = replace(samples, position=np.full((60, 2), np.nan))
    with pytest.raises(SplitError, match=r"60 of 60 samples have no position, which by='blocks'"):
        split(lost, by="blocks")
    with pytest.raises(SplitError, match="buffer=30"):
        split(lost, by="random", buffer=30)
    assert sum(map(len, split(lost, by="random"))) == 60


def test_a_class_in_one_block_is_named_with_the_way_out(make_samples: Make) -> None:
    samples = make_samples(100, classes=2)
    y = np.zeros(100, "int16")
    y[3] = 1
    with pytest.raises(SplitError, match=r"'class 1' lies in 1 of \d+ blocks of 250 m.*smaller blocks"):
        split(replace(samples, y=y), block=250)
    with pytest.raises(SplitError, match=r"1 blocks of 9000 m, too few for 3 parts"):
        split(samples, block=9000)


def test_a_buffer_that_takes_a_class_is_named(make_samples: Make) -> None:
    samples = make_samples(400, side=500)
    with pytest.raises(SplitError, match=r"for train.* outside a buffer of 900 m. Use a smaller buffer"):
        split(samples, by="random", buffer=900)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5, 0.2, 0.2)}, "add up to 0.9"),
        ({"fractions": (0.0, 0.5, 0.5)}, "training above 0"),
        ({"fractions": (0.5, 0.5)}, "three shares"),
        ({"by": "block"}, "'blocks'"),
        ({"buffer": -1}, "buffer=-1"),
        ({"block": 0}, "block=0"),
    ],
)
def test_options_are_checked(make_samples: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        split(make_samples(), **options)  # type: ignore[call-overload]


def test_the_report_counts_and_measures(make_samples: Make) -> None:
    samples = make_samples(90)
    parts: Parts = (samples.take(list(range(50))), samples.take(list(range(50, 90))), samples.take([]))
    report = leakage(*parts)
    assert report.sizes == {"train": 50, "valid": 40, "test": 0}
    assert report.distance["train", "valid"] == pytest.approx(gap(parts[0], parts[1]))
    assert np.isnan(report.distance["train", "test"])
    assert report.groups["train", "valid"] == len(set(parts[0].group) & set(parts[1].group)) > 0
    text = str(report)
    assert f"train and valid: least distance {gap(parts[0], parts[1]):.6g} m" in text
    assert text.splitlines()[0].split() == ["class", "train", "valid", "test"]
