"""How far the likeness of neighbouring samples reaches: the range of the empirical variogram."""

import numpy as np
from scipy.spatial.distance import pdist

from cubekit.batching.samples import Samples
from cubekit.typing import FloatArray

_MOST = 1500  # samples looked at: a million pairs
_BINS = 40
_PAIRS = 30  # least number of pairs in a bin
_SILL = 0.95  # share of the variance that counts as all of it
_LEAST = 10


def autocorrelation_range(samples: Samples, *, seed: int = 0) -> float:
    """Measure the distance from which on samples are no more alike than any two.

    Looks at the strongest principal component of the series' means over time. The semivariance of pairs is
    averaged by distance (Matheron 1963, doi:10.2113/gsecongeo.58.8.1246), and the range is where it first
    reaches 95 % of the variance. A buffer between training and test should not be shorter.

    Parameters
    ----------
    samples : Samples
        With positions; of more than 1,500 some are drawn.
    seed : int, optional
        Seed of that draw.

    Returns
    -------
    float
        Metres. NaN where positions are unknown, there are fewer than 10 samples, or likeness reaches as far
        as half the area.
    """
    known = np.flatnonzero(~np.isnan(samples.position).any(axis=1))
    if len(known) > _MOST:
        known = np.sort(np.random.default_rng(seed).choice(known, _MOST, replace=False))
    if len(known) < _LEAST:
        return float("nan")
    some = samples.take(known)
    value = _component(some)
    distance = pdist(some.position)
    semivariance = pdist(value[:, None], "sqeuclidean") / 2
    edges = np.linspace(0, distance.max() / 2, _BINS + 1)
    where = np.digitize(distance, edges) - 1
    inside = where < _BINS
    count = np.bincount(where[inside], minlength=_BINS)
    gamma = np.bincount(where[inside], semivariance[inside], minlength=_BINS) / np.maximum(count, 1)
    reached = np.flatnonzero((count >= _PAIRS) & (gamma >= _SILL * value.var()))
    if not len(reached):
        return float("nan")
    return float((edges[reached[0]] + edges[reached[0] + 1]) / 2)


def _component(samples: Samples) -> FloatArray:
    """Return the strongest principal component of the mean series, (n,)."""
    values = samples.physical()
    seen = ~np.isnan(values)
    mean = np.where(seen, values, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    spread = mean.std(axis=0)
    scaled = (mean - mean.mean(axis=0)) / np.where(spread > 0, spread, 1)
    _, _, axes = np.linalg.svd(scaled, full_matrices=False)
    component: FloatArray = scaled @ axes[0]
    return component
