"""Scores of forecasts against scikit-learn and SciPy."""

import json

import numpy as np
import pytest
from scipy.stats import linregress

from cubekit.errors import OptionError
from cubekit.evaluation.forecast import BASELINES, TOTAL, assess_forecasts, baseline_maps
from cubekit.evaluation.map_baselines import damped_persistence
from cubekit.typing import FloatArray

YEARS = (2019, 2020)


def case(seed: int = 0) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Two years of truth with a gap, a good forecast and the baselines."""
    dice = np.random.default_rng(seed)
    truth: FloatArray = dice.random((2, 12, 15))
    truth[0, 0, :3] = np.nan
    found: dict[str, FloatArray] = {"network": truth + dice.normal(0, 0.05, truth.shape)}
    found |= {name: dice.random(truth.shape) for name in BASELINES}
    found["climatology"][1, 4, 4] = np.nan
    found["network"][0, 0, :3] = 0.5
    return truth, found


def test_every_number_of_the_table_has_an_oracle() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, found = case()
    zone = np.zeros((12, 15), bool)
    zone[2:7, 3:9] = True
    scores = assess_forecasts(truth, found, years=YEARS, zones={"mine": zone})
    assert len(scores.rows) == 3 * 2 * 5  # two years and both, a zone and the whole, five forecasters
    assert scores.lost == 1
    counted = np.isfinite(truth) & np.isfinite(found["climatology"])
    for year, when in (("2019", [0]), ("2020", [1]), ("all", [0, 1])):
        for place, inside in (("mine", zone), (TOTAL, np.ones_like(zone))):
            use = np.zeros_like(counted)
            use[when] = counted[when] & inside
            for name, maps in found.items():
                row = scores.of(name, year=year, zone=place)
                true, predicted = truth[use], maps[use]
                line = linregress(true, predicted)
                assert row.pixels == use.sum()
                assert row.mse == pytest.approx(metrics.mean_squared_error(true, predicted))
                assert row.rmse == pytest.approx(row.mse**0.5)
                assert row.mae == pytest.approx(metrics.mean_absolute_error(true, predicted))
                assert row.r2 == pytest.approx(metrics.r2_score(true, predicted))
                assert (row.slope, row.intercept) == pytest.approx((line.slope, line.intercept))
                assert (row.mean_true, row.std_true) == pytest.approx((true.mean(), true.std()))
                assert (row.mean_predicted, row.std_predicted) == pytest.approx(
                    (predicted.mean(), predicted.std())
                )
                other = metrics.mean_squared_error(true, found["persistence"][use])
                assert row.skill["persistence"] == pytest.approx(1 - row.mse / other)
    assert scores.name == scores.best == "network"
    assert scores.overall == scores.of("network").rmse


def test_table_and_json_hold_every_forecaster() -> None:
    truth, found = case()
    truth[1] = 0.5  # constant: no R²
    scores = assess_forecasts(truth, found, years=YEARS)
    text = scores.table()
    assert all(name in text for name in found)
    assert "1 known pixels without a forecast" in text
    told = json.loads(json.dumps(scores.to_dict()))
    rows = [row for row in told["rows"] if row["year"] == "2020"]
    assert all(row["r2"] is None for row in rows)
    one = assess_forecasts(truth[:1], {k: v[:1] for k, v in found.items()}, years=[2019])
    assert one.of().year == "2019"  # a single year is all of them
    with pytest.raises(OptionError, match="no score of"):
        one.of("nobody")


def test_what_cannot_be_compared_is_refused() -> None:
    truth, found = case()
    with pytest.raises(OptionError, match="persistence"):
        assess_forecasts(truth, {"network": found["network"]}, years=YEARS)
    with pytest.raises(OptionError, match="shape"):
        assess_forecasts(truth, found | {"network": truth[:1]}, years=YEARS)
    with pytest.raises(OptionError, match="nothing to compare"):
        assess_forecasts(truth * np.nan, found, years=YEARS)


def test_baselines_look_at_no_later_year() -> None:
    maps = np.random.default_rng(0).random((9, 4, 5))
    before = baseline_maps(maps, 6, window=3)
    changed = maps.copy()
    changed[6:] = 99
    after = baseline_maps(changed, 6, window=3)
    assert set(before) == set(BASELINES)
    for name in BASELINES:
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_allclose(before["climatology"], maps[:6].mean(axis=0))
    np.testing.assert_array_equal(before["persistence"], maps[5])


@pytest.mark.parametrize("share", [0.0, 0.6, 0.95])
def test_the_damping_is_found_again(share: float) -> None:
    dice = np.random.default_rng(0)
    maps = [dice.standard_normal((40, 40))]
    for _ in range(59):
        maps.append(share * maps[-1] + (1 - share**2) ** 0.5 * dice.standard_normal((40, 40)))
    x = np.stack(maps)[None, :, None]
    mean = x[0, :, 0].mean(axis=0)
    found = (damped_persistence(x)[0] - mean) / (x[0, -1, 0] - mean)
    # the mean of few years holds the anomaly itself, so the estimate lies a little below
    assert share - 0.12 < float(np.median(found)) < share + 0.05
    x[0, -1, 0, 0, 0] = np.nan
    assert damped_persistence(x)[0, 0, 0] == pytest.approx(np.nanmean(x[0, :, 0, 0, 0]))
