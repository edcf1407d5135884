"""Curves through series with gaps, many pixels at a time: Whittaker's smoother and harmonics of the year.

Eilers (2003), A perfect smoother, Analytical Chemistry 75, doi:10.1021/ac034173t;
Zhu and Woodcock (2014), Continuous change detection and classification of land cover using all available
Landsat data, Remote Sensing of Environment 144, doi:10.1016/j.rse.2014.01.011.
"""

import numpy as np

from cubekit.typing import BoolArray, FloatArray

YEAR = 365.2425
"""Days."""

_LONG = 2 * YEAR  # days from which on a slope and the seasons can be told apart
_TINY = 1e-9  # added to normal equations, whose columns are about 1, so that they can be solved


def whittaker(values: FloatArray, valid: BoolArray, days: FloatArray, smoothness: float) -> FloatArray:
    """Return the smooth curve through each series.

    The curve z has the least sum of (y - z)² over the observations plus `smoothness` times the sum of squared
    second differences of z over all dates. Differences are divided ones: true distances count, in units
    of the mean step, so that `smoothness` means what it does for even steps.

    Parameters
    ----------
    values : numpy.ndarray
        float64, shape (time, pixel); any finite number where there is no data.
    valid : numpy.ndarray of bool
        Same shape.
    days : numpy.ndarray
        Shape (time,), increasing.
    smoothness : float
        Eilers' lambda, above 0.

    Returns
    -------
    numpy.ndarray
        float64, same shape: straight beyond the first and last observation; a single observation everywhere
        where there is only one; 0 without any.
    """
    weights = valid.astype(np.float64)
    seen = weights * values
    count = weights.sum(axis=0)
    few = count < 2  # noqa: PLR2004  (a straight line needs two)
    level = seen.sum(axis=0) / np.maximum(count, 1)
    if len(days) < 3 or few.all():  # noqa: PLR2004  (a second difference needs three)
        return np.where(few, level, values)
    weights[:, few] = 1.0  # so that their equations can be solved as well
    curve = _solved(weights, seen, smoothness * _roughness(days))
    return np.where(few, level, curve)


def _roughness(days: FloatArray) -> FloatArray:
    """Return the three upper bands of D'D, shape (3, time), D taking second divided differences."""
    steps = np.diff(days) / np.diff(days).mean()
    before, after = steps[:-1], steps[1:]
    double = np.stack(
        [2 / (before * (before + after)), -2 / (before * after), 2 / (after * (before + after))]
    )
    bands = np.zeros((3, len(days)))
    for one in range(3):
        for other in range(one, 3):
            bands[other - one, one : len(days) - 2 + one] += double[one] * double[other]
    return bands


def _solved(weights: FloatArray, seen: FloatArray, rough: FloatArray) -> FloatArray:
    """Solve (W + R) z = W y for all pixels, by an LDL' decomposition of five bands."""
    last = len(weights)
    pivot, one, two, z = (np.zeros((last + 2, weights.shape[1])) for _ in range(4))  # [-1], [-2] stay zero
    for t in range(last):
        pivot[t] = weights[t] + rough[0, t] - one[t - 1] ** 2 * pivot[t - 1] - two[t - 2] ** 2 * pivot[t - 2]
        one[t] = (rough[1, t] - two[t - 1] * one[t - 1] * pivot[t - 1]) / pivot[t]
        two[t] = rough[2, t] / pivot[t]
        z[t] = seen[t] - one[t - 1] * z[t - 1] - two[t - 2] * z[t - 2]
    for t in range(last - 1, -1, -1):
        z[t] = z[t] / pivot[t] - one[t] * z[t + 1] - two[t] * z[t + 2]
    return z[:last]


def harmonic(values: FloatArray, valid: BoolArray, days: FloatArray, harmonics: int) -> FloatArray:
    """Return the sum of waves of a year, half a year and so on that comes nearest to each series.

    Parameters
    ----------
    values : numpy.ndarray
        float64, shape (time, pixel); any finite number where there is no data.
    valid : numpy.ndarray of bool
        Same shape.
    days : numpy.ndarray
        Shape (time,), increasing.
    harmonics : int
        Most waves. A series gets fewer where it has not one observation more than there are coefficients:
        a level, two for each wave, and a slope where `days` span two years or more.

    Returns
    -------
    numpy.ndarray
        float64, same shape; 0 for series without data.
    """
    angle = 2 * np.pi * days / YEAR
    span = days[-1] - days[0]
    columns = [np.ones_like(angle)] + ([2 * (days - days[0]) / span - 1] if span >= _LONG else [])
    level = len(columns)
    for wave in range(1, harmonics + 1):
        columns += [np.cos(wave * angle), np.sin(wave * angle)]
    count = valid.sum(axis=0)
    waves = np.clip((count - 1 - level) // 2, -1, harmonics)
    out = np.zeros_like(values)
    for number in np.unique(waves):
        chosen = waves == number
        # Too short for a slope: the level alone.
        used = np.stack(columns[: level + 2 * number] if number >= 0 else columns[:1], axis=1)
        out[:, chosen] = _least_squares(used, values[:, chosen], valid[:, chosen])
    return out


def _least_squares(columns: FloatArray, values: FloatArray, valid: BoolArray) -> FloatArray:
    """Fit columns (time, k) to each series, and return the fits."""
    weights = valid.astype(np.float64)
    size = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
    normal = (weights.T @ products).reshape(-1, size, size) + _TINY * np.eye(size)
    right = (weights * values).T @ columns
    fitted: FloatArray = columns @ np.linalg.solve(normal, right[..., None])[..., 0].T
    return fitted
