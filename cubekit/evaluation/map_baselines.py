"""Predictions of maps and images that any trained network has to beat: no network, one line each."""

import numpy as np
from scipy import ndimage

from cubekit.errors import OptionError
from cubekit.typing import Array, FloatArray


def persistence(x: FloatArray) -> FloatArray:
    """Predict the last known value of every pixel.

    Parameters
    ----------
    x : numpy.ndarray
        Past maps ``(n, t, 1, h, w)``, oldest first, NaN where there is no data.

    Returns
    -------
    numpy.ndarray
        ``(n, h, w)``; NaN where a pixel was never observed.
    """
    maps = x[:, :, 0]
    last = maps[:, -1].copy()
    for step in range(maps.shape[1] - 2, -1, -1):
        last = np.where(np.isnan(last), maps[:, step], last)
    return last


def climatology(x: FloatArray) -> FloatArray:
    """Predict the mean of what is known of every pixel.

    Parameters
    ----------
    x : numpy.ndarray
        Past maps ``(n, t, 1, h, w)`` of the same time of the year, NaN where there is no data.

    Returns
    -------
    numpy.ndarray
        ``(n, h, w)``; NaN where a pixel was never observed.
    """
    known = np.isfinite(x[:, :, 0])
    total, count = np.where(known, x[:, :, 0], 0).sum(axis=1), known.sum(axis=1)
    mean: FloatArray = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


def linear_trend(x: FloatArray) -> FloatArray:
    """Go on along the straight line through what is known of every pixel (least squares), by one step.

    Parameters
    ----------
    x : numpy.ndarray
        Past maps ``(n, t, 1, h, w)`` in equal steps, NaN where there is no data.

    Returns
    -------
    numpy.ndarray
        ``(n, h, w)``; the known value itself where there is one only, NaN where there is none.
    """
    maps = x[:, :, 0].astype(np.float64)
    known = np.isfinite(maps)
    steps = np.arange(maps.shape[1], dtype=np.float64)[None, :, None, None]
    count = known.sum(axis=1)
    mean_step = (steps * known).sum(axis=1) / np.maximum(count, 1)
    mean = climatology(x)
    away = np.where(known, steps - mean_step[:, None], 0)
    slope = (away * np.where(known, maps, 0)).sum(axis=1)
    spread = np.square(away).sum(axis=1)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
    line: FloatArray = (mean + slope * (maps.shape[1] - mean_step)).astype(x.dtype)
    return line


def damped_persistence(x: FloatArray) -> FloatArray:
    """Predict the mean of every pixel plus a share of its last anomaly, fitted on the past maps.

    The share is one number for the whole map: the regression of every past map on the one before it, both as
    anomalies from the mean of the years up to the earlier one, so that nothing is used before it was known.
    It lies between persistence (1) and climatology (0).

    Parameters
    ----------
    x : numpy.ndarray
        Past maps ``(n, t, 1, h, w)`` in equal steps, NaN where there is no data.

    Returns
    -------
    numpy.ndarray
        ``(n, h, w)``; the climatology where the last map has no data, NaN where a pixel was never observed.
    """
    maps = x[:, :, 0].astype(np.float64)
    known = np.isfinite(maps)
    count = known.cumsum(axis=1)
    total = np.where(known, maps, 0).cumsum(axis=1)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    products = squares = np.zeros(())
    for step in range(1, maps.shape[1] - 1):  # anomalies of this map and the next, from the mean up to this
        last, following = maps[:, step] - mean[:, step], maps[:, step + 1] - mean[:, step]
        both = np.isfinite(last) & np.isfinite(following)
        products = products + (last * following)[both].sum()
        squares = squares + np.square(last[both]).sum()
    share = float(np.clip(products / squares, 0, 1)) if squares > 0 else 0.0
    anomaly = maps[:, -1] - mean[:, -1]
    damped: FloatArray = (mean[:, -1] + share * np.where(np.isfinite(anomaly), anomaly, 0)).astype(x.dtype)
    return damped


def nearest_date(fine_t1: FloatArray) -> FloatArray:
    """Predict the fine image of the other date as it is.

    Parameters
    ----------
    fine_t1 : numpy.ndarray
        ``(n, c, h, w)``.

    Returns
    -------
    numpy.ndarray
        The same.
    """
    return fine_t1


def bicubic_coarse(coarse_t2: FloatArray, *, ratio: int = 16) -> FloatArray:
    """Enlarge the coarse image of the wanted date with cubic splines.

    Parameters
    ----------
    coarse_t2 : numpy.ndarray
        ``(n, c, h, w)`` on the fine grid; means over `ratio` x `ratio` pixels are taken for the coarse ones.
    ratio : int, optional
        Coarse pixel size divided by the fine one.

    Returns
    -------
    numpy.ndarray
        ``(n, c, h, w)``.

    Raises
    ------
    OptionError
        If a side is shorter than one coarse pixel.
    """
    height, width = coarse_t2.shape[-2:]
    if min(height, width) < ratio:
        raise OptionError(
            f"Images of {height} x {width} pixels hold no coarse pixel of {ratio}: lower ratio=."
        )
    below, right = -height % ratio, -width % ratio
    padded = np.pad(coarse_t2, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    n, c, rows, columns = padded.shape
    small = padded.reshape(n, c, rows // ratio, ratio, columns // ratio, ratio).mean(axis=(3, 5))
    large = ndimage.zoom(small, (1, 1, ratio, ratio), order=3, mode="nearest", grid_mode=True)
    return np.asarray(large[..., :height, :width], dtype=coarse_t2.dtype)


def mean_shares(y_train: FloatArray, size: int) -> Array:
    """Predict the mean shares of the training samples everywhere.

    Parameters
    ----------
    y_train : numpy.ndarray
        Shares ``(n, K)``.
    size : int
        Number of samples to predict.

    Returns
    -------
    numpy.ndarray
        ``(size, K)``.
    """
    return np.tile(y_train.mean(axis=0), (size, 1))
