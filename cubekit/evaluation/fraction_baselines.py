"""Shares of classes by simpler means than a network: a random forest, and linear unmixing."""

from typing import NamedTuple

import numpy as np
import scipy.optimize

from cubekit.errors import MissingDependencyError, OptionError
from cubekit.evaluation.baselines import interpolate_gaps
from cubekit.typing import Array, FloatArray

ONE = 1e3
"""Weight of "sums to one" beside one standard deviation of reflectance: shares then miss 1 by some 1e-6."""


class Table(NamedTuple):
    """Series with their shares."""

    x: FloatArray
    """Physical series ``(n, t, c)``, NaN where there is no data."""

    y: FloatArray
    """Shares ``(n, k)``, 1 together."""

    times: Array
    """Dates ``(t,)``."""

    ancillary: FloatArray | None = None
    """Ancillary variables ``(n, a)``."""


def forest_shares(train: Table, test: Table, *, seed: int = 0, trees: int = 100) -> FloatArray:
    """Predict shares with a random forest on all dates, bands and ancillary variables side by side.

    Each leaf holds the mean shares of its samples, so predictions are shares: not negative, 1 together. Gaps
    are filled in time; a band that was never observed gets its mean over the training samples.

    Parameters
    ----------
    train, test : Table
        Of the same bands, dates and classes.
    seed : int, optional
        Makes the forest repeatable.
    trees : int, optional
        Number of trees.

    Returns
    -------
    numpy.ndarray
        Shares ``(n, k)`` of the test samples, float32.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError as error:
        raise MissingDependencyError(
            "The random forest baseline needs scikit-learn: pip install 'cubekit[torch]'."
        ) from error
    known, asked = _features(train, test)
    extra = [part.ancillary for part in (train, test)]
    if extra[0] is not None and extra[1] is not None:
        known, asked = np.hstack([known, extra[0]]), np.hstack([asked, extra[1]])
    forest = RandomForestRegressor(n_estimators=trees, min_samples_leaf=2, random_state=seed, n_jobs=-1)
    return np.asarray(forest.fit(known, train.y).predict(asked), "float32")


def endmembers(train: Table) -> FloatArray:
    """Estimate the series of pure classes from mixed samples of known shares, by least squares.

    Parameters
    ----------
    train : Table
        Training samples.

    Returns
    -------
    numpy.ndarray
        ``(k, t, c)``, in the unit of the series: what a pixel of that class alone would show if mixing is
        linear.
    """
    known, _ = _features(train, train)
    pure, *_ = np.linalg.lstsq(train.y.astype("float64"), known, rcond=None)
    return np.asarray(pure.reshape(-1, *train.x.shape[1:]))


def unmix_linearly(train: Table, test: Table) -> FloatArray:
    """Unmix by fully constrained least squares: shares are not negative, sum to one, explain the series.

    Endmembers come from the training samples (:func:`endmembers`); every band and date counts by its standard
    deviation there. Each pixel is solved by :func:`scipy.optimize.nnls` with the sum to one as a heavy row.

    Parameters
    ----------
    train, test : Table
        Of the same bands, dates and classes. Ancillary variables do not mix, and are not used.

    Returns
    -------
    numpy.ndarray
        Shares ``(n, k)`` of the test samples, float32.

    Raises
    ------
    OptionError
        If the samples are of different bands or dates.

    References
    ----------
    Heinz and Chang 2001, IEEE TGRS 39(3), https://doi.org/10.1109/36.911111
    """
    known, asked = _features(train, test)
    spread = known.std(axis=0)
    spread[spread == 0] = 1.0
    pure = endmembers(train).reshape(train.y.shape[1], -1) / spread
    # all that a least-squares problem knows of its k unknowns fits in k rows
    basis, small = np.linalg.qr(pure.T)
    system = np.vstack([small, np.full(len(pure), ONE)])
    targets = np.hstack([(asked / spread) @ basis, np.full((len(asked), 1), ONE)])
    shares = np.stack([scipy.optimize.nnls(system, target)[0] for target in targets])
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), "float32")


def _features(train: Table, test: Table) -> tuple[FloatArray, FloatArray]:
    """Return series without gaps ``(n, t * c)`` float64, of both parts."""
    if train.x.shape[1:] != test.x.shape[1:]:
        raise OptionError(f"Series of shape {train.x.shape[1:]} and {test.x.shape[1:]} do not compare.")
    filled = [_filled(part) for part in (train, test)]
    usual = np.nan_to_num(_mean(filled[0]))
    known, asked = (np.where(np.isnan(part), usual, part).reshape(len(part), -1) for part in filled)
    return known, asked


def _filled(part: Table) -> FloatArray:
    """Fill gaps in time; NaN in bands that were never observed."""
    seen = ~np.isnan(part.x).all(axis=1, keepdims=True)
    return np.where(seen, interpolate_gaps(part.x.astype("float64"), part.times), np.nan)


def _mean(values: FloatArray) -> FloatArray:
    """Mean of what is known."""
    counts = (~np.isnan(values)).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / np.maximum(counts, 1))
