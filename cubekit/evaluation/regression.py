"""Errors of predicted numbers: forecasts, fused images, shares of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cubekit.errors import OptionError
from cubekit.typing import Array, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Errors of predicted against true numbers, for each of K variables (bands, classes)."""

    names: tuple[str, ...]
    """Of the variables ``(K,)``."""

    rmse: FloatArray
    """Root mean squared error of each."""

    mae: FloatArray
    """Mean absolute error of each."""

    bias: FloatArray
    """Mean of predicted minus true of each."""

    r2: FloatArray
    """Share of the variance explained, ``1 - SS_res / SS_tot``; NaN where the truth is constant."""

    r: FloatArray
    """Pearson's correlation of each; NaN where truth or prediction is constant."""

    samples: IntArray
    """Pairs of numbers counted for each."""

    unpredicted: int = 0
    """Known true numbers without a finite prediction; in no score."""

    @property
    def overall(self) -> float:
        """Mean over the variables of the root mean squared error."""
        return float(self.rmse.mean())

    def table(self) -> str:
        """Write the errors as text.

        Returns
        -------
        str
            One line a variable, then the means.
        """
        width = max(map(len, (*self.names, "mean")))
        lines = [f"{'':<{width}}       RMSE        MAE       bias     R²      r"]
        rows = zip(self.names, self.rmse, self.mae, self.bias, self.r2, self.r, strict=True)
        means = (self.rmse.mean(), self.mae.mean(), self.bias.mean(), _mean(self.r2), _mean(self.r))
        for name, rmse, mae, bias, r2, r in (*rows, ("mean", *means)):
            lines.append(
                f"{name:<{width}}  {rmse:>9.5g}  {mae:>9.5g}  {bias:>9.4g}  {_number(r2):>5}  {_number(r):>5}"
            )
        lost = f"; {self.unpredicted} more without a prediction" if self.unpredicted else ""
        lines.append(f"{int(self.samples.sum())} numbers{lost}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold.

        Returns
        -------
        dict
            ``rmse``, ``mae``, ``bias``, ``r2``, ``r`` as means, ``unpredicted``, and ``variables`` with one
            record each; None where a score is not defined.
        """
        means = {"rmse": self.rmse, "mae": self.mae, "bias": self.bias, "r2": self.r2, "r": self.r}
        return {
            **{name: _plain(_mean(values)) for name, values in means.items()},
            "unpredicted": self.unpredicted,
            "variables": [
                {"name": name, "samples": int(self.samples[i])}
                | {score: _plain(float(values[i])) for score, values in means.items()}
                for i, name in enumerate(self.names)
            ],
        }


def assess_values(
    y_true: Array, y_pred: Array, names: Sequence[str] = ("value",), *, axis: int | None = None
) -> Errors:
    """Compare predicted with true numbers.

    Parameters
    ----------
    y_true, y_pred : numpy.ndarray
        Numbers of the same shape. NaN in the truth means not known and is left out; a prediction that is not
        finite is left out as well, but counted.
    names : sequence of str, optional
        Of the variables along `axis`.
    axis : int, optional
        Axis of the variables; without it everything is one variable.

    Returns
    -------
    Errors
        Of each variable.

    Raises
    ------
    OptionError
        If shapes differ, the names do not fit, or nothing can be compared.
    """
    true, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if true.shape != predicted.shape:
        raise OptionError(f"y_true has shape {true.shape}, y_pred {predicted.shape}; both must be the same.")
    size = 1 if axis is None else true.shape[axis]
    if len(names) != size:
        raise OptionError(f"{len(names)} names for {size} variables: {list(names)}.")
    pairs = [
        (values[0].ravel(), values[1].ravel())
        for values in (
            [(true, predicted)]
            if axis is None
            else zip(np.moveaxis(true, axis, 0), np.moveaxis(predicted, axis, 0), strict=True)
        )
    ]
    known = [np.isfinite(t) & np.isfinite(p) for t, p in pairs]
    if not all(each.any() for each in known):
        raise OptionError("There is nothing to compare: no true number has a finite prediction.")
    kept = [(t[k], p[k]) for (t, p), k in zip(pairs, known, strict=True)]
    return Errors(
        names=tuple(names),
        rmse=np.array([np.sqrt(np.square(p - t).mean()) for t, p in kept]),
        mae=np.array([np.abs(p - t).mean() for t, p in kept]),
        bias=np.array([(p - t).mean() for t, p in kept]),
        r2=np.array([_r2(t, p) for t, p in kept]),
        r=np.array([_r(t, p) for t, p in kept]),
        samples=np.array([len(t) for t, _ in kept]),
        unpredicted=int(sum((np.isfinite(t) & ~k).sum() for (t, _), k in zip(pairs, known, strict=True))),
    )


def _r2(true: FloatArray, predicted: FloatArray) -> float:
    """Share of the variance explained."""
    spread = np.square(true - true.mean()).sum()
    return float(1 - np.square(true - predicted).sum() / spread) if spread > 0 else np.nan


def _r(true: FloatArray, predicted: FloatArray) -> float:
    """Pearson's correlation; rounding in the mean of a constant is no variance."""
    least = 1e-12 * max(1.0, float(np.abs(true).max()), float(np.abs(predicted).max()))
    if min(true.std(), predicted.std()) <= least:
        return np.nan
    return float(np.corrcoef(true, predicted)[0, 1])


def _mean(values: FloatArray) -> float:
    """Mean of what is defined."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _number(value: float) -> str:
    """Three decimals, or a dash where a score is not defined."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def _plain(value: float) -> float | None:
    """Turn NaN into None, as JSON has no NaN."""
    return None if np.isnan(value) else float(value)
