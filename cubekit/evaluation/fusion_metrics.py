"""Eleven scores of a predicted fine image: as textbooks define them, or as the published comparison did."""

from typing import Any

import numpy as np

from cubekit.errors import OptionError
from cubekit.evaluation.fusion_sums import Moments, Place, Sums, part_sums
from cubekit.typing import FloatArray

METRICS = ("MAE", "RMSE", "PSNR", "SSIM", "SAM", "ERGAS", "RASE", "UQI", "SCC", "CC", "R2")
"""Names of the scores, in the order of the tables."""

_LEAST = 11  # pixels, of the widest window


def fusion_scores(
    predicted: FloatArray,
    target: FloatArray,
    *,
    ratio: float = 16.0,
    data_range: float = 1.0,
    compat: bool = False,
) -> dict[str, float]:
    """Score a predicted image against the true one.

    ========  ==========================================  ==============================================
    score     textbook (default)                          ``compat=True``, the published comparison
    ========  ==========================================  ==============================================
    MAE       mean absolute error                         same
    RMSE      root of the mean squared error              mean of roots over 8 x 8 windows
    PSNR      decibels, bands together                    images clipped to 0..1 first
    SSIM      Gaussian windows inside the image           images clipped; mirrored borders, all windows
    SAM       mean spectral angle in degrees              in radians; NaN where a pixel is zero
    ERGAS     100 / ratio, relative to band means         four times smaller
    RASE      percent of the mean                         over 8 x 8 windows, 64 times larger
    UQI       8 x 8 windows inside the image; flat ones   Gaussian windows
              are compared by their means
    SCC       correlation of Laplacian-filtered bands     mean of correlations in 8 x 8 windows
    CC        Pearson's r, mean of bands                  same
    R2        mean over bands                             bands together
    ========  ==========================================  ==============================================

    Parameters
    ----------
    predicted, target : numpy.ndarray
        Images ``(c, h, w)``, finite, reflectance; sides of 11 and more. Computed in float64.
    ratio : float, optional
        Coarse pixel size divided by the fine one, for ERGAS.
    data_range : float, optional
        Largest value that can occur, for PSNR and SSIM; 1 for reflectance.
    compat : bool, optional
        Repeat the definitions of the published comparison, to stand beside its tables.

    Returns
    -------
    dict of str to float
        One number for each of :data:`METRICS`; never dropped or clipped. NaN where a score is not defined,
        such as a correlation with a constant band; infinite PSNR for equal images.

    Raises
    ------
    OptionError
        If shapes differ, sides are too short or values are not finite.

    References
    ----------
    SSIM: Wang et al. 2004, doi:10.1109/TIP.2003.819861. SAM: Kruse et al. 1993,
    doi:10.1016/0034-4257(93)90013-N. ERGAS: Wald 2000, Third conference "Fusion of Earth data". RASE:
    Ranchin and Wald 2000, PE&RS 66(1). UQI: Wang and Bovik 2002, doi:10.1109/97.995823. SCC: Zhou, Civco
    and Silander 1998, doi:10.1080/014311698215973.
    """
    _check(predicted, target)
    height, width = predicted.shape[1:]
    whole = Place((height, width), (0, height), (0, width))
    sums = part_sums(predicted, target, whole, data_range=data_range, compat=compat)
    return scores_of(sums, ratio=ratio, data_range=data_range, compat=compat)


def scores_of(
    sums: Sums, *, ratio: float = 16.0, data_range: float = 1.0, compat: bool = False
) -> dict[str, float]:
    """Make scores of the sums over a scene.

    Parameters
    ----------
    sums : Sums
        Of all its parts, summed for the same `data_range` and `compat`.
    ratio : float, optional
        Coarse pixel size divided by the fine one.
    data_range : float, optional
        Largest value that can occur.
    compat : bool, optional
        Definitions of the published comparison.

    Returns
    -------
    dict of str to float
        One number for each of :data:`METRICS`, NaN where it is not defined.
    """
    means = {name: total.mean for name, total in sums.totals.items()}
    squared, level = means["squared"], sums.moments.mean_g
    error = means["clipped" if compat else "squared"].mean()
    # Undefined scores are NaN, and equal images have an infinite PSNR: no reason to warn.
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            means["absolute"].mean(),
            means["rmse"].mean() if compat else np.sqrt(squared.mean()),
            10 * np.log10(data_range**2 / error),
            means["ssim"].mean(),
            _sam(sums, compat=compat),
            100 / (4 * ratio if compat else ratio) * np.sqrt((squared / level**2).mean()),
            means["rase"].mean() if compat else 100 / level.mean() * np.sqrt(squared.mean()),
            means["uqi"].mean(),
            means["scc"].mean() if compat else _pearson(sums.high).mean(),
            _pearson(sums.moments).mean(),
            _r2(sums.moments, squared, compat=compat),
        )
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def _sam(sums: Sums, *, compat: bool) -> Any:
    """Mean angle; the published comparison has none where any pixel is dark."""
    if "angle" not in sums.totals:  # of one band
        return np.nan
    if compat:
        return np.nan if sums.dark else sums.totals["angle"].mean[0]
    return np.degrees(sums.totals["angle"].mean[0])


def _r2(moments: Moments, squared: FloatArray, *, compat: bool) -> Any:
    """Share of the variance explained: of bands, or of all their values together."""
    spread = moments.gg / moments.n if moments.n else np.full(len(squared), np.nan)
    if compat:
        between = (moments.mean_g - moments.mean_g.mean()) ** 2
        return 1 - squared.sum() / (spread + between).sum()
    return (1 - squared / spread).mean()


def _pearson(moments: Moments) -> FloatArray:
    """Return the correlation of each band."""
    correlation: FloatArray = moments.pg / np.sqrt(moments.pp * moments.gg)
    return correlation


def _check(predicted: FloatArray, target: FloatArray) -> None:
    dimensions = 3
    if predicted.shape != target.shape or predicted.ndim != dimensions or min(predicted.shape[1:]) < _LEAST:
        raise OptionError(
            f"Images have shapes {predicted.shape} and {target.shape}, expected twice (c, h, w) with sides "
            f"of at least {_LEAST}."
        )
    holes = [int((~np.isfinite(image)).sum()) for image in (predicted, target)]
    if any(holes):
        raise OptionError(
            f"The predicted image holds {holes[0]} and the true one {holes[1]} values that are not finite. "
            "Cut to a part without gaps, or fill them in both."
        )
