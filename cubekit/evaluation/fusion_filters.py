"""Two filters that fuse images without training: STARFM and Fit-FC, over blocks with a margin."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from cubekit.cube.blocks import working_memory
from cubekit.typing import BoolArray, FloatArray

_STRIP = 2**23  # values of neighbours held at once


def starfm_block(
    coarse_t1: FloatArray,
    coarse_t2: FloatArray,
    fine_t1: FloatArray,
    threshold: FloatArray,
    *,
    window: int,
    fine_error: float,
    coarse_error: float,
    unit: float,
) -> FloatArray:
    """Predict a block by the spatial and temporal adaptive reflectance fusion model.

    Parameters
    ----------
    coarse_t1, coarse_t2, fine_t1 : numpy.ndarray
        Images ``(c, h, w)`` with a margin of ``window // 2``, NaN where there is no data or no scene.
    threshold : numpy.ndarray
        Largest difference of similar fine pixels ``(c, 1, 1)``.
    window : int
        Pixels across the moving window, odd.
    fine_error, coarse_error : float
        Uncertainty of the sensors, reflectance.
    unit : float
        Reflectance that is added to differences, so that no weight is infinite.

    Returns
    -------
    numpy.ndarray
        ``(c, h, w)`` float32; NaN without data at the centre, not meant to be used in the margin.

    References
    ----------
    Gao, Masek, Schwaller and Hall 2006, doi:10.1109/TGRS.2006.872081, equations 1 to 16.
    """
    half = window // 2
    spectral, temporal = np.abs(fine_t1 - coarse_t1), np.abs(coarse_t1 - coarse_t2)
    change = fine_t1 + coarse_t2 - coarse_t1
    known = np.isfinite(change)
    share = np.where(known, 1 / ((spectral / unit + 1) * (temporal / unit + 1)), 0).astype("float32")
    change = np.where(known, change, 0).astype("float32")
    # A neighbour must not tell less than the centre itself (equations 15 and 16).
    most_spectral = spectral + np.float32(np.hypot(fine_error, coarse_error))
    most_temporal = temporal + np.float32(np.hypot(coarse_error, coarse_error))
    total, weights = np.zeros(change.shape), np.zeros(change.shape)
    for row, column, here, there in _offsets(fine_t1.shape, half):
        similar = np.abs(fine_t1[there] - fine_t1[here]) <= threshold
        similar &= (spectral[there] <= most_spectral[here]) & (temporal[there] <= most_temporal[here])
        weight = share[there] * similar / np.float32(1 + np.hypot(row, column) / half)
        weights[here] += weight
        total[here] += weight * change[there]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(known, total / weights, np.nan)
    # Nothing changed, or the coarse pixel is the fine one: then the paper leaves no choice.
    found = np.where(known & (spectral == 0), coarse_t2, found)
    return np.where(known & (temporal == 0), fine_t1, found).astype("float32")


def fit_fc_block(
    coarse_t1: FloatArray,
    coarse_t2: FloatArray,
    fine_t1: FloatArray,
    *,
    window: int,
    regression: int,
    similar: int,
) -> FloatArray:
    """Predict a block by regression fitting, spatial filtering and residual compensation.

    Parameters
    ----------
    coarse_t1, coarse_t2, fine_t1 : numpy.ndarray
        Images ``(c, h, w)`` with a margin of ``window // 2 + regression // 2``.
    window : int
        Pixels across the window of similar pixels, odd.
    regression : int
        Pixels across the window of the regression, odd.
    similar : int
        Similar pixels that are averaged.

    Returns
    -------
    numpy.ndarray
        ``(c, h, w)`` float32; NaN where the fine image has a gap, or nothing can be fitted. Not meant to be
        used in the margin.

    Notes
    -----
    The paper fits on coarse pixels and brings residuals to the fine grid by bicubic interpolation; here
    coarse images lie on the fine grid already: windows slide by fine pixels, residuals are where they belong.

    References
    ----------
    Wang and Atkinson 2018, doi:10.1016/j.rse.2017.10.046.
    """
    slope, intercept = _local_lines(coarse_t1, coarse_t2, regression)
    residual = coarse_t2 - (slope * coarse_t1 + intercept)
    fitted = (slope * fine_t1 + intercept + residual).astype("float64")
    known = np.isfinite(fitted).all(axis=0)
    found = np.full(fine_t1.shape, np.nan, "float32")
    height, width = known.shape
    half = window // 2
    offsets = np.array([(r, c) for r in range(-half, half + 1) for c in range(-half, half + 1)])
    away = np.hypot(offsets[:, 0], offsets[:, 1])
    guide = np.pad(
        np.where(known, fine_t1, np.nan), ((0, 0), (half, half), (half, half)), constant_values=np.nan
    )
    padded = np.pad(fitted, ((0, 0), (half, half), (half, half)), constant_values=np.nan)
    step = max(1, _STRIP // (window * window * max(width, 1)))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        chosen = _most_similar(guide, (top, bottom), offsets, away, similar)
        rows = np.arange(top, bottom)[None, :, None] + half + offsets[chosen, 0]
        columns = np.arange(width)[None, None, :] + half + offsets[chosen, 1]
        near = padded[:, rows, columns]  # (c, n, rows, columns)
        weight = np.where(np.isfinite(near[0]), 1 / (1 + away[chosen] / half), 0)
        mean = (np.nan_to_num(near) * weight).sum(axis=1) / np.maximum(weight.sum(axis=0), 1e-12)
        found[:, top:bottom] = np.where(known[top:bottom], mean, np.nan)
    return found


def _offsets(
    shape: tuple[int, ...], half: int
) -> Iterator[tuple[int, int, tuple[slice, ...], tuple[slice, ...]]]:
    """Give every place of a window, with the pixels that have a neighbour there, and those neighbours."""
    for row in range(-half, half + 1):
        for column in range(-half, half + 1):
            cuts = [
                (slice(max(0, -step), size - max(0, step)), slice(max(0, step), size + min(0, step)))
                for step, size in ((row, shape[1]), (column, shape[2]))
            ]
            here, there = ((slice(None), cuts[0][side], cuts[1][side]) for side in (0, 1))
            if abs(row) < shape[1] and abs(column) < shape[2]:
                yield row, column, here, there


def _local_lines(x: FloatArray, y: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Fit y = slope * x + intercept in a window around each pixel, over the pixels known in both."""
    known: BoolArray = np.isfinite(x) & np.isfinite(y)
    count = _sum(known.astype("float64"), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (np.where(known, image, 0).astype("float64") for image in (x, y))
        mean_a, mean_b = _sum(a, size) / count, _sum(b, size) / count
        spread = _sum(a * a, size) / count - mean_a**2
        together = _sum(a * b, size) / count - mean_a * mean_b
        flat = spread <= 1e-12 * np.maximum(mean_a**2, 1e-12)
        slope = np.where(flat, 1.0, together / np.where(flat, 1.0, spread))
        return slope, mean_b - slope * mean_a


def _sum(values: FloatArray, size: int) -> FloatArray:
    """Sum over windows, with nothing outside."""
    sums: FloatArray = values
    for axis in (1, 2):
        sums = ndimage.correlate1d(sums, np.ones(size), axis=axis, mode="constant")
    return sums


def _most_similar(
    guide: FloatArray, rows: tuple[int, int], offsets: FloatArray, away: FloatArray, similar: int
) -> FloatArray:
    """Return which offsets lead to the most similar pixels; of equally similar ones the nearest."""
    half = int(offsets.max())
    top, bottom = rows
    width = guide.shape[2] - 2 * half
    here = guide[:, top + half : bottom + half, half : half + width]
    distance = np.empty((len(offsets), bottom - top, width), "float32")
    for number, (row, column) in enumerate(offsets):
        there = guide[:, top + half + row : bottom + half + row, half + column : half + column + width]
        distance[number] = np.sqrt(np.square(there - here).mean(axis=0)) + 1e-6 * away[number]
    np.nan_to_num(distance, copy=False, nan=np.inf)
    count = min(similar, len(offsets))
    chosen = np.argpartition(distance, count - 1, axis=0)[:count]
    return np.sort(chosen, axis=0)


working_memory(each=60)(starfm_block)
working_memory(each=120)(fit_fc_block)
