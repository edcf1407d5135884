"""Predictions that any trained network has to beat, on the same split."""

from typing import TYPE_CHECKING

import numpy as np

from cubekit.errors import MissingDependencyError
from cubekit.evaluation.accuracy import MISSING
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from cubekit.batching.samples import Samples


def majority(train: "Samples", test: "Samples") -> IntArray:
    """Predict the commonest class of the training samples everywhere.

    Parameters
    ----------
    train, test : Samples
        Pixel series of the same classes.

    Returns
    -------
    numpy.ndarray
        Class indices ``(n,)`` int64 for the test samples.
    """
    commonest = int(np.bincount(train.y).argmax())
    return np.full(len(test), commonest, dtype=np.int64)


def random_forest(train: "Samples", test: "Samples", *, seed: int = 0, trees: int = 100) -> IntArray:
    """Predict with a random forest on the values of all dates and bands side by side.

    Gaps are filled as they are for networks: linear in time, nearest at the edges.

    Parameters
    ----------
    train, test : Samples
        Pixel series of the same bands, dates and classes.
    seed : int, optional
        Makes the forest repeatable.
    trees : int, optional
        Number of trees.

    Returns
    -------
    numpy.ndarray
        Class indices ``(n,)`` int64 for the test samples; -1 where a band was never
        observed, as for networks.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise MissingDependencyError(
            "The random forest baseline needs scikit-learn: pip install 'cubekit[torch]'."
        ) from error
    train_x, train_usable = _features(train)
    test_x, test_usable = _features(test)
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=-1)
    forest.fit(train_x[train_usable], train.y[train_usable])
    predicted = np.full(len(test), MISSING, dtype=np.int64)
    if test_usable.any():
        predicted[test_usable] = forest.predict(test_x[test_usable])
    return predicted


def _features(samples: "Samples") -> tuple[FloatArray, BoolArray]:
    """Return gap-free values ``(n, time * band)``, and which samples have data in every band."""
    x = samples.physical()
    usable = np.all(np.any(~np.isnan(x), axis=1), axis=1)
    return interpolate_gaps(x, samples.times).reshape(len(x), -1), usable


def interpolate_gaps(x: FloatArray, times: Array) -> FloatArray:
    """Fill gaps of pixel series in time, each band on its own; the rule of ``cubekit.tasks.series`` in NumPy.

    Parameters
    ----------
    x : numpy.ndarray
        Physical values ``(n, t, c)``, NaN where there is no data.
    times : numpy.ndarray
        Dates ``(t,)``, datetime64, increasing.

    Returns
    -------
    numpy.ndarray
        Linear between observations, nearest at the edges, 0 in a band without any; dtype of ``x``.
    """
    days = (times - times[0]) / np.timedelta64(1, "D")
    observed = ~np.isnan(x)
    steps = x.shape[1]
    step = np.arange(steps)[None, :, None]
    before = np.maximum.accumulate(np.where(observed, step, -1), axis=1)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(observed, step, steps), 1), axis=1), 1)
    first = np.minimum(np.where(before < 0, after, before), steps - 1)
    last = np.maximum(np.where(after == steps, before, after), 0)
    start, stop = np.take_along_axis(x, first, axis=1), np.take_along_axis(x, last, axis=1)
    share = (days[None, :, None] - days[first]) / np.where(first == last, 1, days[last] - days[first])
    line = np.where(first == last, start, start + share * (stop - start))
    return np.nan_to_num(np.where(observed, x, line)).astype(x.dtype)
