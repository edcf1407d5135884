"""Are probabilities honest? Reliability by bins of confidence, and the expected calibration error."""

from dataclasses import dataclass

import numpy as np

from cubekit.errors import OptionError
from cubekit.typing import Array, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """How often predictions of like confidence are right."""

    edges: FloatArray
    """Edges of the bins of confidence ``(B + 1,)``, from 0 to 1."""

    confidence: FloatArray
    """Mean probability of the chosen class in each bin ``(B,)``; NaN in an empty bin."""

    accuracy: FloatArray
    """Share of right classes in each bin ``(B,)``; NaN in an empty bin."""

    counts: IntArray
    """Samples in each bin ``(B,)``."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, weighted by samples."""
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((gaps * self.counts).sum() / self.counts.sum())

    def table(self) -> str:
        """Write the bins as text.

        Returns
        -------
        str
            One line a bin that holds samples, then the error.
        """
        lines = ["confidence     samples  said   right"]
        for i, count in enumerate(self.counts):
            if count:
                lines.append(
                    f"{self.edges[i]:.2f} to {self.edges[i + 1]:.2f}  {count:>8}  {self.confidence[i]:.3f}  "
                    f"{self.accuracy[i]:.3f}"
                )
        return "\n".join([*lines, f"expected calibration error {self.error:.4f}"])


def reliability(y_true: Array, probabilities: FloatArray, *, bins: int = 15) -> Calibration:
    """Compare how sure a model is with how often it is right.

    Parameters
    ----------
    y_true : numpy.ndarray
        Class indices ``(n,)``, -1 where unlabelled.
    probabilities : numpy.ndarray
        ``(n, K)``, sums of one; rows with NaN are left out.
    bins : int, optional
        Number of bins of equal width between 0 and 1.

    Returns
    -------
    Calibration
        Bins and the expected calibration error.

    Raises
    ------
    OptionError
        If shapes do not fit, or nothing is labelled.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, https://doi.org/10.48550/arXiv.1706.04599
    """
    y, likely = np.asarray(y_true), np.asarray(probabilities, np.float64)
    if likely.ndim != 2 or y.shape != likely.shape[:1]:  # noqa: PLR2004  (n, K)
        raise OptionError(
            f"y_true has shape {y.shape}, probabilities {likely.shape}; expected (n,) and (n, K)."
        )
    counted = (y >= 0) & np.isfinite(likely).all(axis=1)
    if not counted.any():
        raise OptionError("There is no labelled sample with probabilities.")
    sure, right = likely[counted].max(axis=1), likely[counted].argmax(axis=1) == y[counted]
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)  # (low, high]
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, weights=sure, minlength=bins) / counts
        accuracy = np.bincount(place, weights=right, minlength=bins) / counts
    return Calibration(edges=edges, confidence=confidence, accuracy=accuracy, counts=counts)
