"""Eleven scores of a predicted fine image: as textbooks define them, or as the published comparison did."""

from typing import Any

import numpy as np
from scipy import ndimage

from cubekit.errors import OptionError
from cubekit.typing import FloatArray

METRICS = ("MAE", "RMSE", "PSNR", "SSIM", "SAM", "ERGAS", "RASE", "UQI", "SCC", "CC", "R2")
"""Names of the scores, in the order of the tables."""

_BLOCK, _GAUSS = 8, 11
_LAPLACE = np.array([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])


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
    UQI       8 x 8 windows inside the image              Gaussian windows
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
    p, g = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    squared = (p - g) ** 2
    # Undefined scores are NaN, and equal images have an infinite PSNR: no reason to warn.
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            np.abs(p - g).mean(),
            _rmse(squared, compat=compat),
            _psnr(p, g, data_range, compat=compat),
            _ssim(p, g, data_range, compat=compat),
            _sam(p, g, compat=compat),
            100 / (4 * ratio if compat else ratio) * np.sqrt((_bands(squared) / _bands(g) ** 2).mean()),
            _rase(squared, g, compat=compat),
            _uqi(p, g, compat=compat),
            _scc(p, g, compat=compat),
            np.mean([_pearson(a, b) for a, b in zip(p, g, strict=True)]),
            _r2(squared, g, compat=compat),
        )
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def _rmse(squared: FloatArray, *, compat: bool) -> Any:
    return _inside(np.sqrt(_box(squared)), _BLOCK // 2).mean() if compat else np.sqrt(squared.mean())


def _psnr(p: FloatArray, g: FloatArray, data_range: float, *, compat: bool) -> Any:
    if compat:
        p, g = p.clip(0, data_range), g.clip(0, data_range)
    return 10 * np.log10(data_range**2 / ((p - g) ** 2).mean())


def _ssim(p: FloatArray, g: FloatArray, data_range: float, *, compat: bool) -> Any:
    if compat:
        p, g = p.clip(0, data_range), g.clip(0, data_range)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_p, mean_g = _gauss(p), _gauss(g)
    var_p, var_g = ((_gauss(a * a) - m * m).clip(0) for a, m in ((p, mean_p), (g, mean_g)))
    covariance = _gauss(p * g) - mean_p * mean_g
    similar = (2 * mean_p * mean_g + c1) * (2 * covariance + c2)
    similar /= (mean_p**2 + mean_g**2 + c1) * (var_p + var_g + c2)
    return similar.mean() if compat else _inside(similar, _GAUSS // 2).mean()


def _sam(p: FloatArray, g: FloatArray, *, compat: bool) -> Any:
    lengths = np.linalg.norm(p, axis=0) * np.linalg.norm(g, axis=0)
    angles = np.arccos(((p * g).sum(axis=0) / lengths).clip(-1, 1))
    if compat:
        return angles.mean()
    known = angles[lengths > 0]  # a zero vector has no direction
    return np.degrees(known.mean()) if known.size else np.nan


def _rase(squared: FloatArray, g: FloatArray, *, compat: bool) -> Any:
    if not compat:
        return 100 / g.mean() * np.sqrt(_bands(squared).mean())
    means = _box(g).mean(axis=0) / _BLOCK**2
    return _inside(100 / means * np.sqrt(_box(squared).mean(axis=0)), _BLOCK // 2).mean()


def _uqi(p: FloatArray, g: FloatArray, *, compat: bool) -> Any:
    blur, border = (_gauss, (_GAUSS // 2, _GAUSS // 2)) if compat else (_box, (_BLOCK // 2, _BLOCK // 2 - 1))
    tiny = np.finfo(np.float32).eps if compat else 0.0
    mean_p, mean_g = blur(p), blur(g)
    var_p, var_g = blur(p * p) - mean_p**2, blur(g * g) - mean_g**2
    covariance = blur(p * g) - mean_p * mean_g
    quality = 4 * mean_p * mean_g * covariance / ((mean_p**2 + mean_g**2) * (var_p + var_g) + tiny)
    return _inside(quality, *border).mean()


def _scc(p: FloatArray, g: FloatArray, *, compat: bool) -> Any:
    high = [ndimage.correlate(image, _LAPLACE[None], mode="reflect") for image in (p, g)]
    if not compat:
        return np.mean([_pearson(a, b) for a, b in zip(*high, strict=True)])
    a, b = high
    mean_a, mean_b = _box(a, mode="constant"), _box(b, mode="constant")
    var_a, var_b = (_box(h * h, mode="constant") - m * m for h, m in ((a, mean_a), (b, mean_b)))
    covariance = _box(a * b, mode="constant") - mean_a * mean_b
    spread = np.sqrt(var_a.clip(0)) * np.sqrt(var_b.clip(0))
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread != 0).mean()


def _r2(squared: FloatArray, g: FloatArray, *, compat: bool) -> Any:
    if compat:
        return 1 - squared.sum() / ((g - g.mean()) ** 2).sum()
    return (1 - _bands(squared) / g.var(axis=(1, 2))).mean()


def _pearson(a: FloatArray, b: FloatArray) -> Any:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def _bands(x: FloatArray) -> FloatArray:
    """Mean of every band."""
    means: FloatArray = x.mean(axis=(1, 2))
    return means


def _box(x: FloatArray, *, mode: str = "reflect") -> FloatArray:
    """Mean over 8 x 8 windows from 4 before to 3 after; scipy's "reflect" repeats the edge pixel."""
    means: FloatArray = ndimage.uniform_filter(x, size=(1, _BLOCK, _BLOCK), mode=mode)
    return means


def _gauss(x: FloatArray) -> FloatArray:
    """Mean under a Gaussian of 11 x 11 pixels; scipy's "mirror" does not repeat the edge pixel."""
    means: FloatArray = ndimage.gaussian_filter(x, 1.5, mode="mirror", radius=_GAUSS // 2, axes=(1, 2))
    return means


def _inside(x: FloatArray, before: int, after: int | None = None) -> FloatArray:
    after = before if after is None else after
    return x[..., before : x.shape[-2] - after, before : x.shape[-1] - after]


def _check(predicted: FloatArray, target: FloatArray) -> None:
    dimensions = 3
    if predicted.shape != target.shape or predicted.ndim != dimensions or min(predicted.shape[1:]) < _GAUSS:
        raise OptionError(
            f"Images have shapes {predicted.shape} and {target.shape}, expected twice (c, h, w) with sides "
            f"of at least {_GAUSS}."
        )
    holes = [int((~np.isfinite(image)).sum()) for image in (predicted, target)]
    if any(holes):
        raise OptionError(
            f"The predicted image holds {holes[0]} and the true one {holes[1]} values that are not finite. "
            "Cut to a part without gaps, or fill them in both."
        )
