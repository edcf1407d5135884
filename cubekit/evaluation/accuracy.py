"""Accuracy assessment of class predictions: confusion matrix and the scores that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cubekit.errors import OptionError
from cubekit.typing import Array, FloatArray, IntArray

if TYPE_CHECKING:
    from cubekit.labels import ClassTable

MISSING = -1
"""Stands for "no class" in label and prediction arrays."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """Scores of predicted against true classes, K of them.

    A score whose denominator is zero is NaN: producer's accuracy of a class that has no samples, user's
    accuracy of a class that was never predicted, F1 of a class that occurs in neither.
    """

    classes: tuple[str, ...]
    """Names, in the order of the matrix."""

    confusion: IntArray
    """Counts ``(true, predicted)``, int64."""

    unpredicted: int = 0
    """Samples that got no class (nodata in the prediction); in no score."""

    @property
    def support(self) -> IntArray:
        """True samples of each class ``(K,)``."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def overall(self) -> float:
        """Share of samples whose class is right."""
        return float(_divide(np.trace(self.confusion), self.confusion.sum()))

    @property
    def producers(self) -> FloatArray:
        """Producer's accuracy (recall, 1 - omission) of each class ``(K,)``."""
        return _divide(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def users(self) -> FloatArray:
        """User's accuracy (precision, 1 - commission) of each class ``(K,)``."""
        return _divide(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def f1(self) -> FloatArray:
        """Harmonic mean of producer's and user's accuracy of each class ``(K,)``."""
        return _divide(2 * np.diag(self.confusion), self.confusion.sum(axis=0) + self.confusion.sum(axis=1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur, each with the same weight."""
        return float(np.nanmean(self.f1)) if self.confusion.any() else np.nan

    @property
    def weighted_f1(self) -> float:
        """Mean F1 over the classes, weighted by their true samples."""
        return float(_divide(np.nansum(self.f1 * self.support), self.support.sum()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance (https://doi.org/10.1177/001316446002000104)."""
        total = self.confusion.sum()
        chance = _divide((self.confusion.sum(axis=0) * self.confusion.sum(axis=1)).sum(), total**2)
        return float(_divide(self.overall - chance, 1 - chance))

    def table(self) -> str:
        """Write the scores as text.

        Returns
        -------
        str
            One line a class (samples, producer's, user's, F1), then the overall scores.
        """
        width = max(map(len, (*self.classes, "class")))
        lines = [f"{'class':<{width}}  samples  producer's  user's     F1"]
        lines += [
            f"{name:<{width}}  {n:>7}  {_number(p):>10}  {_number(u):>6}  {_number(f):>5}"
            for name, n, p, u, f in zip(
                self.classes, self.support, self.producers, self.users, self.f1, strict=True
            )
        ]
        lines.append(
            f"overall accuracy {_number(self.overall)}, kappa {_number(self.kappa)}, "
            f"macro F1 {_number(self.macro_f1)}, weighted F1 {_number(self.weighted_f1)}, "
            f"{int(self.support.sum())} samples"
            + (f", {self.unpredicted} more without a prediction" if self.unpredicted else "")
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold.

        Returns
        -------
        dict
            ``overall``, ``kappa``, ``macro_f1``, ``weighted_f1``, ``unpredicted``, ``classes`` (one record
            each) and ``confusion`` (rows true); None where a score is not defined.
        """
        records = zip(self.classes, self.support, self.producers, self.users, self.f1, strict=True)
        return {
            "overall": _plain(self.overall),
            "kappa": _plain(self.kappa),
            "macro_f1": _plain(self.macro_f1),
            "weighted_f1": _plain(self.weighted_f1),
            "unpredicted": self.unpredicted,
            "classes": [
                {
                    "name": name,
                    "samples": int(n),
                    "producers": _plain(p),
                    "users": _plain(u),
                    "f1": _plain(f),
                }
                for name, n, p, u, f in records
            ],
            "confusion": self.confusion.tolist(),
        }


def assess(y_true: Array, y_pred: Array, classes: "Sequence[str] | ClassTable") -> Accuracy:
    """Compare predicted with true classes.

    Parameters
    ----------
    y_true, y_pred : numpy.ndarray
        Class indices 0 to K-1, integers, of the same shape (samples or whole maps). -1 in the truth means
        unlabelled and is left out; -1 in the prediction means nodata: left out as well, but counted.
    classes : sequence of str or ClassTable
        Names of the K classes.

    Returns
    -------
    Accuracy
        Confusion matrix and scores.

    Raises
    ------
    OptionError
        If shapes differ, or a number is no index of a class.
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != predicted.shape:
        raise OptionError(f"y_true has shape {true.shape}, y_pred {predicted.shape}; both must be the same.")
    for what, values in (("y_true", true), ("y_pred", predicted)):
        _check_indices(what, values, len(classes))
    labelled = true != MISSING
    both = labelled & (predicted != MISSING)
    size = len(classes)
    counts = np.bincount(
        true[both].astype(np.int64) * size + predicted[both].astype(np.int64), minlength=size**2
    )
    return Accuracy(
        classes=tuple(classes),
        confusion=counts.reshape(size, size),
        unpredicted=int((labelled & ~both).sum()),
    )


def _check_indices(what: str, values: Array, size: int) -> None:
    """Raise unless all values are class indices or -1."""
    if values.dtype.kind not in "iu":
        raise OptionError(f"{what} holds {values.dtype}, expected integer class indices.")
    if values.dtype.kind == "u" or values.size == 0:
        wrong = values[values >= size]
    else:
        wrong = values[(values < MISSING) | (values >= size)]
    if wrong.size:
        raise OptionError(
            f"{what} holds {int(wrong[0])}, which is no index of the {size} classes (0 to {size - 1}, or -1 "
            "for none). Codes become indices with ClassTable.codes; the nodata of a map becomes -1."
        )


def _divide(above: Any, below: Any) -> FloatArray:
    """Divide; 0 / 0 gives NaN without a warning."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.divide(above, below, dtype=np.float64))


def _number(value: float) -> str:
    """Three decimals, or a dash where a score is not defined."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def _plain(value: float) -> float | None:
    """Turn NaN into None, as JSON has no NaN."""
    return None if np.isnan(value) else float(value)
