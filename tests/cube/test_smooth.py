"""Smooth curves against SciPy's banded and least-squares solvers, series by series."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solveh_banded
from scipy.optimize import lsq_linear

from cubekit.cube.smooth import YEAR, harmonic, whittaker

Array = npt.NDArray[Any]


def some(seed: int, dates: int, pixels: int = 8, step: int = 20) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    days = np.cumsum(rng.integers(1, step, dates)).astype(float)
    values = rng.normal(3000, 900, (dates, pixels))
    valid = rng.random((dates, pixels)) < 0.6
    return np.where(valid, values, 0), valid, days


@given(st.integers(0, 10_000), st.integers(3, 40), st.sampled_from([0.1, 10.0, 1e4]))
@settings(max_examples=40, deadline=None)
def test_whittaker_solves_its_equations(seed: int, dates: int, smoothness: float) -> None:
    values, valid, days = some(seed, dates)
    found = whittaker(values, valid, days, smoothness)
    unit = days / np.diff(days).mean()
    # Second divided differences, as the derivatives of Newton's polynomials.
    rows = np.zeros((dates - 2, dates))
    for row in range(dates - 2):
        a, b, c = unit[row : row + 3]
        rows[row, row : row + 3] = (
            2 / ((a - b) * (a - c)), 2 / ((b - a) * (b - c)), 2 / ((c - a) * (c - b)),
        )  # fmt: skip
    penalty = smoothness * rows.T @ rows
    for pixel in range(values.shape[1]):
        if valid[:, pixel].sum() < 2:
            only = values[valid[:, pixel], pixel]
            assert (found[:, pixel] == (only[0] if only.size else 0)).all()
            continue
        system = np.diag(valid[:, pixel].astype(float)) + penalty
        bands = np.zeros((3, dates))
        for upper in range(3):
            bands[2 - upper, upper:] = np.diagonal(system, upper)
        expected = solveh_banded(bands, values[:, pixel])
        np.testing.assert_allclose(found[:, pixel], expected, rtol=1e-4, atol=1)


def test_whittaker_equals_the_package_whittaker_eilers_for_even_steps() -> None:
    eilers = pytest.importorskip("whittaker_eilers")
    values, valid, _ = some(3, 30)
    found = whittaker(values, valid, np.arange(30.0), 50.0)
    for pixel in range(values.shape[1]):
        smoother = eilers.WhittakerSmoother(
            lmbda=50.0, order=2, data_length=30, weights=valid[:, pixel].astype(float).tolist()
        )
        np.testing.assert_allclose(found[:, pixel], smoother.smooth(values[:, pixel].tolist()), rtol=1e-6)


def test_two_observations_give_a_straight_line() -> None:
    days = np.array([0.0, 1, 5, 10, 40])
    values, valid = np.zeros((5, 1)), np.zeros((5, 1), bool)
    values[1], values[3], valid[1], valid[3] = 100, 190, True, True
    np.testing.assert_allclose(whittaker(values, valid, days, 10.0)[:, 0], [90, 100, 140, 190, 490])


@pytest.mark.parametrize(("dates", "step"), [(30, 20), (60, 40)])
@pytest.mark.parametrize("harmonics", [1, 3])
def test_harmonics_are_the_least_squares(dates: int, step: int, harmonics: int) -> None:
    values, valid, days = some(5, dates, step=step)
    found = harmonic(values, valid, days, harmonics)
    columns = [np.ones(dates), *([days] if days[-1] - days[0] >= 2 * YEAR else [])]
    level = len(columns)
    for wave in range(1, harmonics + 1):
        columns += [np.sin(2 * np.pi * wave * days / YEAR), np.cos(2 * np.pi * wave * days / YEAR)]
    for pixel in range(values.shape[1]):
        seen = valid[:, pixel]
        waves = min(harmonics, (int(seen.sum()) - 1 - level) // 2)
        used = np.stack(columns[: level + 2 * waves], axis=1)
        fit = lsq_linear(used[seen], values[seen, pixel])
        np.testing.assert_allclose(found[:, pixel], used @ fit.x, rtol=1e-4, atol=1)


def test_few_observations_get_fewer_waves_and_at_last_their_mean() -> None:
    days = np.arange(0.0, 360, 30)
    values, valid = np.zeros((12, 3)), np.zeros((12, 3), bool)
    valid[[1, 4], 0], values[[1, 4], 0] = True, [10, 30]
    valid[6, 1], values[6, 1] = True, 7
    found = harmonic(values, valid, days, 2)
    np.testing.assert_allclose(found, np.broadcast_to([20, 7, 0], (12, 3)), rtol=1e-6)
