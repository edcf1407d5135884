"""How much the parts of a split know of each other: least distances and shared groups."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from cubekit.batching.assign import PARTS
from cubekit.batching.autocorrelation import autocorrelation_range
from cubekit.batching.samples import Samples


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
            for (one, other), distance in self.distance.items()
        ]
        if not math.isnan(self.reach):
            near = [f"{one} and {other}" for (one, other), gap in self.distance.items() if gap < self.reach]
            lines += [
                f"likeness reaches {self.reach:.6g} m"
                + (f": {', '.join(near)} are nearer than that" if near else "")
            ]
        return "\n".join(lines)


def leakage(train: Samples, valid: Samples, test: Samples) -> Leakage:
    """Measure how near the parts of a split are to each other.

    Parameters
    ----------
    train, valid, test : Samples
        From :func:`cubekit.split`, or of your own making; of one cube or table.

    Returns
    -------
    Leakage
        Class counts, least distances between pixel centres in metres and shared groups, by pair of parts, and
        how far likeness reaches among the training samples.
    """
    parts = dict(zip(PARTS, (train, valid, test), strict=True))
    pairs = list(combinations(parts, 2))
    return Leakage(
        sizes={name: len(part) for name, part in parts.items()},
        counts={name: part.counts() for name, part in parts.items()},
        distance={(one, other): _distance(parts[one], parts[other]) for one, other in pairs},
        groups={
            (one, other): len(np.intersect1d(parts[one].group, parts[other].group)) for one, other in pairs
        },
        reach=_reach(train, test),
    )


def _reach(train: Samples, test: Samples) -> float:
    """Return how far likeness reaches among training samples, or test samples where those are too few."""
    found = autocorrelation_range(train)
    return autocorrelation_range(test) if math.isnan(found) else found


def _distance(one: Samples, other: Samples) -> float:
    """Return the least distance between samples of two parts."""
    known = [part.position[~np.isnan(part.position).any(axis=1)] for part in (one, other)]
    if not all(map(len, known)) or one.crs != other.crs:
        return float("nan")
    distance, _ = cKDTree(known[0]).query(known[1])
    return float(distance.min())
