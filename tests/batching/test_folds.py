"""Folds, footprints, and how far likeness reaches."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from cubekit.batching.autocorrelation import autocorrelation_range
from cubekit.batching.folds import folds
from cubekit.batching.leakage import leakage
from cubekit.batching.samples import Samples
from cubekit.batching.split import split
from cubekit.batching.units import By
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, SplitError
from cubekit.labels import ClassTable


def pixels(side: int, seed: int = 0, *, classes: int = 3) -> Samples:
    """Every pixel of a square of 10 m pixels in patches of 5 x 5; the series says which pixel it is."""
    rows, columns = np.indices((side, side)).reshape(2, -1)
    group = (rows // 5) * side + columns // 5
    return Samples(
        x=np.arange(side * side, dtype="float32").reshape(-1, 1, 1),
        y=np.random.default_rng(seed).integers(0, classes, group.max() + 1)[group].astype("int16"),
        bands=("b",),
        times=np.array(["2020-01-01"], "datetime64[ns]"),
        classes=ClassTable.of([f"c{index}" for index in range(classes)]),
        group=group,
        position=np.column_stack([columns, rows]) * 10.0,
        crs="EPSG:32633",
        resolution=10.0,
        encoding=Encoding(dtype="float32", nodata=np.nan),
    )


def numbers(part: Samples) -> list[int]:
    return [int(number) for number in part.x[:, 0, 0]]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    k=st.integers(3, 6),
    by=st.sampled_from(["blocks", "groups", "random"]),
)
def test_every_sample_tests_once_and_parts_share_nothing(seed: int, k: int, by: By) -> None:
    samples = pixels(30, seed)
    parts = list(folds(samples, k=k, by=by, block=50, seed=seed))
    assert len(parts) == k
    assert sorted(number for *_, test in parts for number in numbers(test)) == list(range(900))
    for each in parts:
        assert sum(map(len, each)) == 900
        for one, other in combinations(each, 2):
            assert not set(numbers(one)) & set(numbers(other))
            if by != "random":
                assert not set(one.group) & set(other.group)
        assert len(each[2]) == pytest.approx(900 / k, abs=120)


def test_no_fold_lets_a_training_pixel_lie_within_the_buffer() -> None:
    for train, valid, test in folds(pixels(40), k=4, by="blocks", block=100, buffer=25):
        report = leakage(train, valid, test)
        assert min(report.distance.values()) >= 25


@settings(max_examples=15, deadline=None)
@given(footprint=st.sampled_from([30.0, 50.0]), buffer=st.sampled_from([0.0, 20.0]), seed=st.integers(0, 20))
def test_patches_of_two_parts_never_overlap(footprint: float, buffer: float, seed: int) -> None:
    parts = split(pixels(40, 3), by="blocks", block=130, footprint=footprint, buffer=buffer, seed=seed)
    for one, other in combinations(parts, 2):
        gaps = np.abs(one.position[:, None] - other.position[None]).max(axis=2) - footprint
        assert gaps.min() >= buffer


def test_too_few_units_and_wrong_options_are_refused() -> None:
    with pytest.raises(SplitError, match="too few for 5 folds"):
        next(folds(pixels(10), k=5, by="groups"))
    with pytest.raises(OptionError, match="3 or more"):
        next(folds(pixels(10), k=2))
    lone = pixels(20)
    lone = replace(lone, y=np.where(lone.group == 0, 2, lone.y % 2).astype("int16"))
    with pytest.raises(SplitError, match="'c2' has no training sample"):
        list(folds(lone, k=4, by="groups"))


def test_likeness_reaches_as_far_as_it_was_made_to() -> None:
    """A mean over a window of noise is alike up to the window's side, and no further."""
    window, side = 9, 120
    noise = np.random.default_rng(2).normal(size=(side + window, side + window))
    field = uniform_filter(noise, window)[window // 2 : window // 2 + side, window // 2 : window // 2 + side]
    samples = pixels(side)
    samples = replace(samples, x=field.astype("float32").reshape(-1, 1, 1))
    near = samples.take(np.flatnonzero((samples.position < 400).all(axis=1)))
    assert autocorrelation_range(near) == pytest.approx(window * 10, rel=0.35)
    assert (
        autocorrelation_range(replace(samples, x=noise[:side, :side].astype("float32").reshape(-1, 1, 1)))
        < 25
    )
    report = leakage(*split(near, by="random"))
    assert report.reach > 40
    assert "are nearer than that" in str(report)
