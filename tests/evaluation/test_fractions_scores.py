"""Scores of shares: against scikit-learn and numpy; baselines against mixtures that are known exactly."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.evaluation.fraction_baselines import Table, endmembers, forest_shares, unmix_linearly
from cubekit.evaluation.fractions import (
    assess_fractions,
    assess_imputation,
    dominant_class,
    hide_observed,
    share_bins,
)
from cubekit.labels import ClassTable

CLASSES = ClassTable.of(["town", "field", "wood"])
TIMES = np.arange("2013-01", "2013-07", dtype="datetime64[M]").astype("datetime64[ns]")


def shares(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), n)


def mixtures(n: int, seed: int, *, noise: float = 0.0) -> Table:
    pure = np.random.default_rng(9).uniform(0, 0.5, (3, 6, 4))
    y = shares(n, seed)
    x = np.einsum("nk,ktc->ntc", y, pure) + np.random.default_rng(seed).normal(0, noise, (n, 6, 4))
    return Table(x.astype("float32"), y.astype("float32"), TIMES)


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true, found = shares(300, 0), 0.7 * shares(300, 0) + 0.3 * shares(300, 1)
    scores = assess_fractions(true, found, CLASSES)
    rmse = np.sqrt(metrics.mean_squared_error(true, found, multioutput="raw_values"))
    np.testing.assert_allclose(scores.errors.rmse, rmse)
    assert scores.overall == pytest.approx(rmse.mean())
    assert scores.overall != pytest.approx(np.sqrt(np.square(true - found).mean()), rel=1e-6)
    for index in range(3):
        expected = np.corrcoef(true[:, index], found[:, index])[0, 1]
        assert scores.errors.r[index] == pytest.approx(expected)
    labels = true.argmax(axis=1), found.argmax(axis=1)
    assert scores.dominant.overall == pytest.approx(metrics.accuracy_score(*labels))
    assert scores.dominant.macro_f1 == pytest.approx(metrics.f1_score(*labels, average="macro"))
    assert scores.off < 1e-9
    assert scores.to_dict()["reliability"].keys() == {"town", "field", "wood"}
    assert "greatest share" in scores.table()


def test_sums_that_are_not_one_and_lost_pixels_are_told() -> None:
    true = shares(20, 0)
    found = true.copy()
    found[3] *= 1.2
    found[5] = np.nan
    scores = assess_fractions(true, found, CLASSES)
    assert scores.off == pytest.approx(0.2)
    assert scores.dominant.unpredicted == 1
    assert dominant_class(found)[5] == -1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 80), bins=st.integers(1, 12), seed=st.integers(0, 999))
def test_bins_hold_every_sample_once_and_their_means(n: int, bins: int, seed: int) -> None:
    true, found = shares(n, seed), shares(n, seed + 1)
    result = share_bins(true, found, bins=bins)
    assert result.counts.sum(axis=1).tolist() == [n] * 3
    for values, means in ((true, result.true), (found, result.predicted)):
        np.testing.assert_allclose(np.nansum(means * result.counts, axis=1), values.sum(axis=0))
    inside = (result.predicted >= result.edges[:-1] - 1e-9) & (result.predicted <= result.edges[1:] + 1e-9)
    assert inside[result.counts > 0].all()
    assert (share_bins(true, true, bins=bins).error < 1e-9).all()


def test_a_tenth_is_hidden_and_scored_where_it_was() -> None:
    x = np.random.default_rng(0).random((200, 12, 7)).astype("float32")
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    hidden, where = hide_observed(x, seed=3)
    observed = np.isfinite(x)
    assert (where & ~observed).sum() == 0
    assert where.sum() / observed.sum() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(np.isfinite(hidden), observed & ~where)
    errors = assess_imputation(x, np.nan_to_num(x) + 0.5, where, tuple("abcdefg"))
    np.testing.assert_allclose(errors.rmse, 0.5, rtol=1e-5)
    assert errors.samples.sum() == where.sum()
    with pytest.raises(OptionError, match="share="):
        hide_observed(x, share=1)


def test_exact_mixtures_are_unmixed_exactly() -> None:
    train, test = mixtures(200, 1), mixtures(50, 2)
    np.testing.assert_allclose(unmix_linearly(train, test), test.y, atol=1e-4)
    pure = endmembers(train)
    np.testing.assert_allclose(np.einsum("nk,ktc->ntc", test.y, pure), test.x, atol=1e-5)


def test_unmixing_is_the_constrained_optimum() -> None:
    train, test = mixtures(200, 1, noise=0.2), mixtures(12, 2, noise=0.2)
    found = unmix_linearly(train, test)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    spread = train.x.reshape(200, -1).std(axis=0)
    pure = endmembers(train).reshape(3, -1) / spread
    for share, series in zip(found, test.x.reshape(12, -1) / spread, strict=True):

        def loss(a: np.ndarray, series: np.ndarray = series) -> float:
            return float(np.square(a @ pure - series).sum())

        best = scipy.optimize.minimize(
            loss,
            np.full(3, 1 / 3),
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            options={"ftol": 1e-12},
        )
        assert loss(share.astype("float64")) <= best.fun * (1 + 1e-4)


def test_baselines_live_with_gaps_and_never_observed_bands() -> None:
    pytest.importorskip("sklearn")
    train, test = mixtures(300, 1), mixtures(60, 2)
    test.x[np.random.default_rng(0).random(test.x.shape) < 0.2] = np.nan
    test.x[0, :, 2] = np.nan
    extra = [Table(part.x, part.y, part.times, part.y[:, :1]) for part in (train, test)]
    for found in (unmix_linearly(train, test), forest_shares(train, test, trees=20), forest_shares(*extra)):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        assert np.abs(found - test.y).mean() < 0.15
