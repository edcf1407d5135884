"""Scores of estimated shares: errors by class, the class of the greatest share, honesty of the shares."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import MISSING, Accuracy, assess
from cubekit.evaluation.regression import Errors, assess_values
from cubekit.labels import ClassTable
from cubekit.typing import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ShareBins:
    """Predicted beside true shares, by bins of what was predicted."""

    edges: FloatArray
    """Edges of the bins ``(B + 1,)``, from 0 to 1."""

    predicted: FloatArray
    """Mean prediction in each bin ``(k, B)``; NaN in an empty bin."""

    true: FloatArray
    """Mean truth in each bin ``(k, B)``; NaN in an empty bin."""

    counts: IntArray
    """Samples in each bin ``(k, B)``."""

    @property
    def error(self) -> FloatArray:
        """Mean distance of prediction and truth over the bins, weighted by samples ``(k,)``."""
        gaps = np.nan_to_num(np.abs(self.predicted - self.true))
        return np.asarray((gaps * self.counts).sum(axis=1) / self.counts.sum(axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class FractionScores:
    """Everything that is measured of estimated shares; sums run over all samples, never over batches."""

    errors: Errors
    """RMSE, MAE, bias, R² and Pearson's r of each class."""

    dominant: Accuracy
    """Class of the greatest predicted share against that of the greatest true share."""

    bins: ShareBins
    """Reliability of each class."""

    off: float
    """Greatest distance of a predicted sum from 1."""

    @property
    def overall(self) -> float:
        """Headline: the mean over classes of the root mean squared error of each."""
        return self.errors.overall

    def table(self) -> str:
        """Write the scores as text.

        Returns
        -------
        str
            One line a class, the means, and what the greatest shares are worth.
        """
        return (
            f"{self.errors.table()}\n"
            f"greatest share: accuracy {self.dominant.overall:.3f}, macro F1 {self.dominant.macro_f1:.3f}; "
            f"sums miss 1 by {self.off:.1e} at most"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold.

        Returns
        -------
        dict
            ``overall`` (mean RMSE), ``errors``, ``dominant``, ``sum_error``, and ``reliability`` by class.
        """
        return {
            "overall": self.overall,
            "errors": self.errors.to_dict(),
            "dominant": self.dominant.to_dict(),
            "sum_error": self.off,
            "reliability": dict(zip(self.errors.names, self.bins.error.tolist(), strict=True)),
        }


def assess_fractions(y_true: FloatArray, y_pred: FloatArray, classes: ClassTable) -> FractionScores:
    """Compare estimated with true shares.

    Parameters
    ----------
    y_true : numpy.ndarray
        True shares ``(n, k)``, 1 together; rows of NaN are not known and left out.
    y_pred : numpy.ndarray
        Estimated shares ``(n, k)``; rows that are not finite are left out, but counted.
    classes : ClassTable
        The k classes.

    Returns
    -------
    FractionScores
        By class and overall.

    Raises
    ------
    OptionError
        If shapes do not fit, or nothing can be compared.
    """
    true, found = np.asarray(y_true, "float64"), np.asarray(y_pred, "float64")
    errors = assess_values(true, found, classes.names, axis=1)
    known = np.isfinite(found).all(axis=1)
    return FractionScores(
        errors=errors,
        dominant=assess(dominant_class(true), dominant_class(found), classes),
        bins=share_bins(true, found),
        off=float(np.abs(found[known].sum(axis=1) - 1).max()),
    )


def dominant_class(shares: FloatArray) -> IntArray:
    """Return the class of the greatest share; of equal ones the first.

    Parameters
    ----------
    shares : numpy.ndarray
        ``(n, k)``.

    Returns
    -------
    numpy.ndarray
        Class index ``(n,)`` int64; -1 where a share is not finite.
    """
    known = np.isfinite(shares).all(axis=1)
    return np.where(known, np.nan_to_num(shares).argmax(axis=1), MISSING).astype("int64")


def share_bins(y_true: FloatArray, y_pred: FloatArray, *, bins: int = 10) -> ShareBins:
    """Compare what was predicted with what is true, by bins of the prediction.

    Parameters
    ----------
    y_true, y_pred : numpy.ndarray
        Shares ``(n, k)``; rows that are not finite in both are left out.
    bins : int, optional
        Number of bins of equal width between 0 and 1.

    Returns
    -------
    ShareBins
        Of each class.

    Raises
    ------
    OptionError
        If shapes differ, or nothing can be compared.
    """
    true, found = np.asarray(y_true, "float64"), np.asarray(y_pred, "float64")
    if true.shape != found.shape or true.ndim != 2:  # noqa: PLR2004  (n, k)
        raise OptionError(f"y_true has shape {true.shape}, y_pred {found.shape}; expected (n, k) for both.")
    known = np.isfinite(true).all(axis=1) & np.isfinite(found).all(axis=1)
    if not known.any():
        raise OptionError("There is nothing to compare: no known share has a finite prediction.")
    true, found = true[known], found[known]
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, found, side="right") - 1, 0, bins - 1)
    size = true.shape[1]
    flat = (place + bins * np.arange(size)).ravel()
    counts = np.bincount(flat, minlength=size * bins).reshape(size, bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(flat, weights=values.ravel(), minlength=size * bins).reshape(size, bins) / counts
            for values in (found, true)
        ]
    return ShareBins(edges=edges, predicted=means[0], true=means[1], counts=counts)


def hide_observed(x: FloatArray, *, share: float = 0.1, seed: int = 0) -> tuple[FloatArray, BoolArray]:
    """Hide some of the observed values, to see how well they are imputed.

    Parameters
    ----------
    x : numpy.ndarray
        Series ``(n, t, c)``, NaN where there is no data; not changed.
    share : float, optional
        Share of the observed values to hide, above 0 and below 1.
    seed : int, optional
        Seed of the draw.

    Returns
    -------
    hidden : numpy.ndarray
        A copy with more gaps.
    where : numpy.ndarray
        Booleans: what was hidden, ``(n, t, c)``.

    Raises
    ------
    OptionError
        If `share` is no share.
    """
    if not 0 < share < 1:
        raise OptionError(f"share={share!r} must lie between 0 and 1.")
    where = np.isfinite(x) & (np.random.default_rng(seed).random(x.shape) < share)
    return np.where(where, np.nan, x).astype(x.dtype), where


def assess_imputation(x: FloatArray, imputed: FloatArray, where: BoolArray, bands: tuple[str, ...]) -> Errors:
    """Measure the error of imputed values where the truth was hidden.

    Parameters
    ----------
    x : numpy.ndarray
        True series ``(n, t, c)``.
    imputed : numpy.ndarray
        Completed series ``(n, t, c)``.
    where : numpy.ndarray
        What was hidden.
    bands : tuple of str
        Names of the c bands.

    Returns
    -------
    Errors
        Of each band.

    Raises
    ------
    OptionError
        If shapes differ, or nothing was hidden.
    """
    return assess_values(np.where(where, x, np.nan), imputed, bands, axis=2)
