"""How much the parts of a split know of each other: least distances in space and time, and shared groups."""

import math
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from cubekit.batching.assign import PARTS
from cubekit.batching.autocorrelation import autocorrelation_range
from cubekit.batching.patches import PatchPlan
from cubekit.batching.places import Places, places_of
from cubekit.batching.samples import Samples
from cubekit.batching.temporal import time_between


@dataclass(frozen=True)
class Leakage:
    """What two parts of a split share; ``print`` it."""

    sizes: dict[str, int]
    """Samples in each part."""

    counts: dict[str, dict[str, float]]
    """Samples of each class in each part."""

    distance: dict[tuple[str, str], float]
    """Least distance in metres between samples of two parts; NaN for unknown positions or an empty part."""

    groups: dict[tuple[str, str], int]
    """How many groups (polygons, points) have samples in both parts."""

    reach: float = float("nan")
    """Distance in metres that likeness reaches, by the variogram of training samples; NaN where unknown."""

    dates: dict[str, tuple[str, str]] = field(default_factory=dict)
    """First and last date of what each part learns or tells; parts without dates are left out."""

    days: dict[tuple[str, str], float] = field(default_factory=dict)
    """Least days between the dates that the weaker of two parts (the first named) looks at, and the targets
    of the other; 0 where they overlap, NaN where dates are unknown."""

    def __str__(self) -> str:
        names = list(next(iter(self.counts.values())))
        width = max(8, *(len(name) for name in names))
        lines = [f"{'class':<{width}} " + " ".join(f"{part:>10}" for part in self.sizes)]
        lines += [
            f"{name:<{width}} " + " ".join(f"{self.counts[part][name]:>10.6g}" for part in self.sizes)
            for name in names
        ]
        lines += [f"{'all':<{width}} " + " ".join(f"{size:>10}" for size in self.sizes.values())]
        lines += [
            f"{one} and {other}: least distance {distance:.6g} m, {self.groups[one, other]} shared groups"
            f"{self._apart(one, other)}"
            for (one, other), distance in self.distance.items()
        ]
        lines += [f"{name}: {first} to {last}" for name, (first, last) in self.dates.items()]
        if not math.isnan(self.reach):
            near = [f"{one} and {other}" for (one, other), gap in self.distance.items() if gap < self.reach]
            lines += [
                f"likeness reaches {self.reach:.6g} m"
                + (f": {', '.join(near)} are nearer than that" if near else "")
            ]
        return "\n".join(lines)

    def _apart(self, one: str, other: str) -> str:
        """Say how far two parts are from each other in time."""
        days = self.days.get((one, other), math.nan)
        if math.isnan(days):
            return ""
        return f", {days:g} days apart" if days > 0 else ", dates in common"


def leakage(train: Samples | PatchPlan, valid: Samples | PatchPlan, test: Samples | PatchPlan) -> Leakage:
    """Measure how near the parts of a split are to each other.

    Parameters
    ----------
    train, valid, test : Samples or PatchPlan
        From :func:`cubekit.split`, or of your own making; of one cube or table.

    Returns
    -------
    Leakage
        Class counts, least distances in metres (between pixel centres, or edges of patches), days and shared
        groups, by pair of parts, and how far likeness reaches among the training samples.
    """
    parts = {name: places_of(part) for name, part in zip(PARTS, (train, valid, test), strict=True)}
    pairs = list(combinations(parts, 2))
    return Leakage(
        sizes={name: len(part) for name, part in parts.items()},
        counts={name: part.counts() for name, part in parts.items()},
        distance={(one, other): _distance(parts[one], parts[other]) for one, other in pairs},
        groups={
            (one, other): len(np.intersect1d(parts[one].group, parts[other].group)) for one, other in pairs
        },
        reach=_reach(train, test) if isinstance(train, Samples) and isinstance(test, Samples) else math.nan,
        dates={name: _first_and_last(part) for name, part in parts.items() if _dated(part)},
        days={(one, other): _days(parts[one], parts[other]) for one, other in pairs},
    )


def _reach(train: Samples, test: Samples) -> float:
    """Return how far likeness reaches among training samples, or test samples where those are too few."""
    found = autocorrelation_range(train)
    return autocorrelation_range(test) if math.isnan(found) else found


def _distance(one: Places, other: Places) -> float:
    """Return the least distance between samples, or edges of patches, of two parts."""
    known = [part.position[~np.isnan(part.position).any(axis=1)] for part in (one, other)]
    if not all(map(len, known)) or one.crs != other.crs:
        return float("nan")
    distance, _ = cKDTree(known[0]).query(known[1], p=np.inf if one.footprint else 2)
    return max(0.0, float(distance.min()) - one.footprint)


def _dated(part: Places) -> bool:
    """Tell whether all samples of a part have dates."""
    return bool(len(part)) and not bool(np.isnat(part.span).any())


def _first_and_last(part: Places) -> tuple[str, str]:
    """Return the first and the last day of the targets."""
    first, last = np.datetime_as_string([part.target.min(), part.target.max()], "D").tolist()
    return first, last


def _days(weak: Places, strong: Places) -> float:
    """Return the least days between what one part looks at and the targets of another."""
    if not (_dated(weak) and _dated(strong)):
        return math.nan
    return max(0.0, float(time_between(weak.span, strong.target).min() / np.timedelta64(1, "D")))
