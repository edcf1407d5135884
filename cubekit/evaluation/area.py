"""Unbiased area and accuracy of a class map from a stratified reference sample, with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import Accuracy
from cubekit.typing import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class AreaEstimate:
    """Estimates with the half-widths of their confidence intervals, in the order of the classes."""

    classes: tuple[str, ...]
    """Names ``(K,)``."""

    level: float
    """Confidence of the intervals, 0.95 for 95 %."""

    mapped: FloatArray
    """Area of each class on the map ``(K,)``, in the unit given."""

    area: FloatArray
    """Error-adjusted area of each class ``(K,)``, in the same unit."""

    area_margin: FloatArray
    """Half-width of its interval."""

    users: FloatArray
    """User's accuracy ``(K,)``."""

    users_margin: FloatArray
    """Half-width of its interval."""

    producers: FloatArray
    """Producer's accuracy ``(K,)``, weighted by area."""

    producers_margin: FloatArray
    """Half-width of its interval."""

    overall: float
    """Overall accuracy, weighted by area."""

    overall_margin: float
    """Half-width of its interval."""

    def table(self) -> str:
        """Write the estimates as text.

        Returns
        -------
        str
            One line a class (mapped area, estimated area, user's and producer's accuracy), then overall.
        """
        width = max(map(len, (*self.classes, "class")))
        lines = [f"{'class':<{width}}  {'mapped':>12}  {'estimated':>27}  {'users':>13}  {'producers':>13}"]
        for i, name in enumerate(self.classes):
            lines.append(
                f"{name:<{width}}  {self.mapped[i]:>12.6g}  "
                f"{self.area[i]:>12.6g} ± {self.area_margin[i]:<12.6g}  "
                f"{self.users[i]:.3f} ± {self.users_margin[i]:.3f}  "
                f"{self.producers[i]:.3f} ± {self.producers_margin[i]:.3f}"
            )
        lines.append(
            f"overall accuracy {self.overall:.3f} ± {self.overall_margin:.3f} ({self.level:.0%} confidence)"
        )
        return "\n".join(lines)


def estimate_areas(
    accuracy: Accuracy, mapped: Sequence[float] | FloatArray, *, level: float = 0.95
) -> AreaEstimate:
    """Estimate class areas from a map and a reference sample stratified by map class.

    The estimators of Olofsson et al. 2014 (Remote Sensing of Environment 148, 42-57,
    https://doi.org/10.1016/j.rse.2014.02.015), equations 2 to 11. They hold for samples drawn at random
    within each map class (simple random samples as well), not for samples that were picked by hand.

    Parameters
    ----------
    accuracy : Accuracy
        Counts of reference samples, true class against map class.
    mapped : sequence of float or numpy.ndarray
        Area of each class on the map ``(K,)``, such as hectares or pixels; the estimates have the same unit.
    level : float, optional
        Confidence of the intervals.

    Returns
    -------
    AreaEstimate
        Areas, accuracies, and the half-widths of their intervals.

    Raises
    ------
    OptionError
        If the number of areas is not the number of classes, an area is negative, the level is not between 0
        and 1, or a class on the map has fewer than two samples: it has no variance.
    """
    mapped_area = np.asarray(mapped, dtype=np.float64)
    counts = accuracy.confusion.T.astype(np.float64)  # rows: map class, as in the paper
    _check(accuracy, mapped_area, level)
    sampled = np.maximum(counts.sum(axis=1), 1)
    share = counts / sampled[:, None]
    weight = mapped_area / mapped_area.sum()
    spread = share * (1 - share) / np.maximum(sampled - 1, 1)[:, None]
    true_share = weight @ share
    users = np.diag(share)
    right = weight * users
    with np.errstate(invalid="ignore"):
        producers = np.where(true_share > 0, right / true_share, np.nan)
        producers_variance = (
            weight**2 * np.diag(spread) * (1 - producers) ** 2
            + producers**2 * (weight**2 @ spread - weight**2 * np.diag(spread))
        ) / true_share**2
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return AreaEstimate(
        classes=accuracy.classes,
        level=level,
        mapped=mapped_area,
        area=true_share * mapped_area.sum(),
        area_margin=z * np.sqrt(weight**2 @ spread) * mapped_area.sum(),
        users=users,
        users_margin=z * np.sqrt(np.diag(spread)),
        producers=producers,
        producers_margin=z * np.sqrt(producers_variance),
        overall=float(right.sum()),
        overall_margin=float(z * np.sqrt(weight**2 @ np.diag(spread))),
    )


def _check(accuracy: Accuracy, mapped: FloatArray, level: float) -> None:
    """Raise unless areas, level and sample sizes allow an estimate."""
    if mapped.shape != (len(accuracy.classes),) or not (mapped >= 0).all() or mapped.sum() == 0:
        raise OptionError(
            f"mapped={mapped.tolist()}: expected one area of at least 0 for each of {accuracy.classes}."
        )
    if not 0 < level < 1:
        raise OptionError(f"level={level!r} is not between 0 and 1; 0.95 means 95 %.")
    sampled = accuracy.confusion.sum(axis=0)
    few = [
        f"{name!r} has {n}"
        for name, n, area in zip(accuracy.classes, sampled, mapped, strict=True)
        if area > 0 and n < 2  # noqa: PLR2004  (a variance needs two)
    ]
    if few:
        raise OptionError(
            f"Every class on the map needs at least two reference samples: {', '.join(few)}. Add samples "
            "there, or merge the class with another."
        )
