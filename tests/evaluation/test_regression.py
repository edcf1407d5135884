import numpy as np
import pytest

from cubekit.errors import OptionError
from cubekit.evaluation.calibration import reliability
from cubekit.evaluation.regression import assess_values


def test_errors_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true = rng.normal(size=(200, 3))
    predicted = true + rng.normal(0.1, 0.5, size=(200, 3))
    found = assess_values(true, predicted, ("a", "b", "c"), axis=1)
    np.testing.assert_allclose(
        found.rmse**2, metrics.mean_squared_error(true, predicted, multioutput="raw_values")
    )
    np.testing.assert_allclose(
        found.mae, metrics.mean_absolute_error(true, predicted, multioutput="raw_values")
    )
    np.testing.assert_allclose(found.r2, metrics.r2_score(true, predicted, multioutput="raw_values"))
    np.testing.assert_allclose(found.bias, (predicted - true).mean(axis=0))
    for index in range(3):
        assert found.r[index] == pytest.approx(np.corrcoef(true[:, index], predicted[:, index])[0, 1])
    assert found.overall == pytest.approx(found.rmse.mean())
    assert found.to_dict()["variables"][1]["name"] == "b"
    assert "mean" in found.table()


def test_unknown_truth_is_left_out_and_lost_predictions_are_counted() -> None:
    true = np.array([1.0, 2.0, np.nan, 4.0])
    predicted = np.array([1.0, np.nan, 3.0, 5.0])
    found = assess_values(true, predicted)
    assert (found.samples.tolist(), found.unpredicted) == ([2], 1)
    assert found.mae[0] == 0.5
    assert "1 more without a prediction" in found.table()
    assert assess_values(np.ones(3), np.ones(3)).to_dict()["r2"] is None
    with pytest.raises(OptionError, match="nothing to compare"):
        assess_values(true, np.full(4, np.nan))
    with pytest.raises(OptionError, match=r"\(4,\), y_pred \(3,\)"):
        assess_values(true, predicted[:3])
    with pytest.raises(OptionError, match="2 names for 1"):
        assess_values(true, predicted, ("a", "b"))


@pytest.mark.torch
def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    rng = np.random.default_rng(1)
    likely = rng.dirichlet((0.5, 0.5, 0.5), 500)
    y = rng.integers(0, 3, 500)
    expected = multiclass_calibration_error(
        torch.from_numpy(likely), torch.from_numpy(y), num_classes=3, n_bins=10
    )
    found = reliability(y, likely, bins=10)
    assert found.error == pytest.approx(float(expected), abs=1e-6)
    assert found.counts.sum() == 500
    hidden = np.where(np.arange(500) < 100, -1, y)
    assert reliability(hidden, likely).counts.sum() == 400
    assert "expected calibration error" in found.table()


def test_honest_probabilities_have_no_error() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.5, 1, 200_000)
    y = (rng.random(200_000) >= p).astype(int)
    assert reliability(y, np.stack([p, 1 - p], axis=1)).error < 0.01
    with pytest.raises(OptionError, match="no labelled"):
        reliability(np.full(3, -1), np.full((3, 2), 0.5))
    with pytest.raises(OptionError, match="expected"):
        reliability(np.zeros(3, int), np.full((2, 2), 0.5))
