"""Geometric medians against a general minimiser, and against what must hold for them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from cubekit.cube.geomedian import geomedian

Array = npt.NDArray[Any]


@pytest.fixture(params=["0", "1"], ids=["numpy", "numba"], autouse=True)
def _compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "1":
        pytest.importorskip("numba")
    monkeypatch.setenv("CUBEKIT_NUMBA", request.param)


def cost(point: Array, observed: Array) -> float:
    return float(np.sqrt(((observed - point) ** 2).sum(axis=1)).sum())


def observations(seed: int = 0, dates: int = 9, pixels: int = 6) -> Array:
    rng = np.random.default_rng(seed)
    values = rng.integers(500, 3000, (dates, 4, pixels)).astype("uint16")
    values[rng.random((dates, 1, pixels)).repeat(4, axis=1) < 0.3] = 0
    values[0] = 1000
    return values


def test_the_sum_of_distances_is_as_small_as_a_minimiser_finds() -> None:
    values = observations().astype("float64")
    values[values == 0] = np.nan
    found = geomedian(values, np.nan)
    for pixel in range(values.shape[2]):
        seen = values[~np.isnan(values[:, 0, pixel]), :, pixel]
        best = minimize(cost, seen.mean(axis=0), (seen,), method="Nelder-Mead", options={"maxiter": 4000})
        assert cost(found[:, pixel], seen) <= best.fun * (1 + 1e-5)


def test_integers_are_rounded_and_dates_that_lack_a_band_do_not_count() -> None:
    values = observations()
    floats = np.where(values == 0, np.nan, values)
    np.testing.assert_array_equal(geomedian(values, 0), np.rint(geomedian(floats, np.nan)))
    lacking = values.copy()
    lacking[1, 2] = 0
    assert (geomedian(lacking, 0) == geomedian(np.delete(values, 1, axis=0), 0)).all()


def test_few_observations() -> None:
    values = np.zeros((3, 2, 4), "int16")
    values[1, :, 1] = (7, 9)  # one
    values[:2, :, 2] = ((10, 20), (20, 40))  # two: their mean
    values[:, 0, 3] = 5  # the other band is never seen
    assert geomedian(values, 0).T.tolist() == [[0, 0], [7, 9], [15, 30], [0, 0]]


def test_an_observation_that_holds_more_than_the_others_pull_is_the_median() -> None:
    # (0, 0) three times against three corners: Weiszfeld's own step divides by zero here.
    points = np.array([[0, 0], [0, 0], [0, 0], [9, 0], [0, 9], [-9, -9]], "float64")
    np.testing.assert_allclose(geomedian(points[:, :, None], np.nan)[:, 0], 0, atol=1e-2)
    line = np.array([[0, 0], [5, 5], [10, 10]], "float64")  # starts at the middle one, and stays
    np.testing.assert_allclose(geomedian(line[:, :, None], np.nan)[:, 0], [5, 5])


def test_a_result_equal_to_nodata_stays_data() -> None:
    values = np.array([[[4]], [[6]]], "int16")
    assert geomedian(values, 5).item() == 6


@given(arrays("uint16", (6, 3, 4), elements=st.integers(0, 4000)), st.permutations(range(6)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_scenes_does_not_matter(values: Array, order: list[int]) -> None:
    one, other = geomedian(values, 0), geomedian(values[order], 0)
    for pixel in range(4):
        seen = values[(values[:, :, pixel] > 0).all(axis=1), :, pixel].astype(float)
        if len(seen):
            costs = cost(one[:, pixel], seen), cost(other[:, pixel], seen)
            assert abs(costs[0] - costs[1]) <= 2 * len(seen)  # rounding, where several points are as good
        assert ((one[:, pixel] == 0) == (len(seen) == 0)).all()


def test_blocks_do_not_matter() -> None:
    values = observations(pixels=300)
    whole = geomedian(values, 0)
    parts = [geomedian(values[:, :, part : part + 7], 0) for part in range(0, 300, 7)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
