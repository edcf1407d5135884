import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.evaluation.map_baselines import (
    bicubic_coarse,
    climatology,
    linear_trend,
    mean_shares,
    nearest_date,
    persistence,
)


def maps(values: list[float]) -> np.ndarray:
    return np.array(values, dtype="float64").reshape(1, -1, 1, 1, 1)


def test_simple_forecasts_of_one_pixel() -> None:
    past = maps([1.0, np.nan, 3.0, np.nan])
    assert persistence(past).item() == 3
    assert climatology(past).item() == 2
    assert linear_trend(past).item() == pytest.approx(5)
    nothing = maps([np.nan, np.nan])
    for forecast in (persistence, climatology, linear_trend):
        assert np.isnan(forecast(nothing)).all()
    assert linear_trend(maps([np.nan, 7.0])).item() == 7


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=8))
def test_the_trend_is_that_of_polyfit(values: list[float]) -> None:
    line = np.polyfit(np.arange(len(values)), values, 1)
    np.testing.assert_allclose(linear_trend(maps(values)).item(), np.polyval(line, len(values)), atol=1e-8)


def test_bicubic_keeps_a_plane_away_from_borders_and_any_size() -> None:
    rows, columns = np.mgrid[:70, :90]
    plane = (0.01 * rows + 0.02 * columns)[None, None]
    found = bicubic_coarse(plane, ratio=8)
    assert found.shape == plane.shape
    np.testing.assert_allclose(found[..., 24:48, 24:64], plane[..., 24:48, 24:64], atol=0.01)
    with pytest.raises(OptionError, match="lower ratio"):
        bicubic_coarse(plane, ratio=80)


def test_copies_and_means() -> None:
    fine = np.random.default_rng(0).random((1, 2, 4, 4))
    assert nearest_date(fine) is fine
    np.testing.assert_allclose(mean_shares(np.array([[1.0, 0], [0.5, 0.5]]), 3), [[0.75, 0.25]] * 3)
