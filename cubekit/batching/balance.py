"""Spatial blocks whose classes are spread alike over training, validation and test."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from cubekit.batching.assign import PARTS, TEST, TRAIN
from cubekit.batching.places import places_of
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.batching.units import (
    DROPPED,
    check_positions,
    counts_by_unit,
    keep_apart,
    units_of,
)
from cubekit.errors import OptionError, SplitError
from cubekit.typing import FloatArray, IntArray

BLOCK = 25_000.0
"""Side of the squares in metres: more than fifty MODIS pixels."""

_TRIES = 8  # random starts; each is improved until no exchange helps
_STEPS = 400
_SHOWN = 160  # units of a part that an exchange is looked for among
_HOPELESS = 0.5  # a class farther apart than this lies in too few blocks, and must not spoil the others
_SIZES = 4.0  # how much a part's size weighs against the balance of one class


@dataclass(frozen=True, eq=False)
class BalancedSplit:
    """Parts of a split, and what they are worth; ``print`` it."""

    train: Samples
    """Samples to learn from."""

    valid: Samples
    """Samples that choose the epoch."""

    test: Samples
    """Samples for the scores."""

    block: float
    """Side of the squares in metres."""

    blocks: int
    """Number of squares with samples."""

    means: FloatArray
    """Mean share of each class ``(part, class)``, after the buffer."""

    spread: FloatArray
    """Greatest minus least mean over the parts ``(class,)``, relative to that of all; before the buffer."""

    distance: float
    """Least distance in metres between a training and a test sample."""

    dropped: int
    """Samples that the buffer took."""

    record: Split
    """Which part each sample is in, to save, to draw, or to apply to the same samples elsewhere."""

    @property
    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test."""
        return self.train, self.valid, self.test

    def __str__(self) -> str:
        names = self.train.classes.names
        width = max(8, *(len(name) for name in names))
        lines = [f"{'class':<{width}} " + " ".join(f"{part:>8}" for part in PARTS) + "  differ by"]
        lines += [
            f"{name:<{width}} "
            + " ".join(f"{mean:>8.4f}" for mean in self.means[:, index])
            + f"  {self.spread[index]:>8.1%}"
            for index, name in enumerate(names)
        ]
        sizes = " ".join(f"{len(part):>8}" for part in self.parts)
        about = (
            f"{self.blocks} blocks of {self.block:g} m; {self.dropped} samples dropped; training and test "
            f"are {self.distance:.6g} m apart at least"
        )
        return "\n".join([*lines, f"{'samples':<{width}} {sizes}", about])


def split_balanced(
    samples: Samples,
    *,
    block: float = BLOCK,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: int = 0,
    pixel: float | None = None,
    tolerance: float = 0.1,
    seed: int = 0,
) -> BalancedSplit:
    """Part samples by square blocks, such that the mean share of every class is about the same in each part.

    Whole blocks are given to the parts at random; then pairs of blocks are exchanged, or a block moved, as
    long as that brings the means together, until each differs by less than `tolerance` between the parts.

    Parameters
    ----------
    samples : Samples
        With positions; of one class each or with shares.
    block : float, optional
        Side of the squares in metres.
    fractions : tuple of float, optional
        Shares of training, validation and test, 1 together, all above 0.
    buffer : int, optional
        Width in pixels of the belt around test blocks (and, for training, validation blocks) whose samples
        are dropped.
    pixel : float, optional
        Side of a pixel in metres, for the buffer. Default: that of the samples.
    tolerance : float, optional
        Greatest difference of a class's mean between two parts, relative to its mean over all.
    seed : int, optional
        Seed; equal seeds give equal parts on every machine.

    Returns
    -------
    BalancedSplit
        The parts, the means of their classes, and the least distance between training and test.

    Raises
    ------
    SplitError
        If positions are unknown, or there are fewer than three blocks.
    OptionError
        If a number cannot be meant.

    Warns
    -----
    UserWarning
        If the tolerance was not reached; names the classes.
    """
    share = np.asarray(fractions, "float64")
    if share.shape != (len(PARTS),) or not (share > 0).all() or not np.isclose(share.sum(), 1, atol=1e-6):
        raise OptionError(f"fractions={fractions!r} must be three shares above 0 that add up to 1.")
    if not block > 0 or buffer < 0 or not tolerance > 0:
        raise OptionError(
            f"block={block!r} and tolerance={tolerance!r} must be above 0, buffer={buffer!r} not below it."
        )
    places = places_of(samples)
    check_positions(places, by="blocks", buffer=buffer)
    unit = units_of(places, "blocks", block, whole_groups=False)
    weights = places.weights
    counts = np.column_stack([counts_by_unit(weights, unit), np.bincount(unit)])
    if len(counts) < len(PARTS):
        raise SplitError(
            f"The samples lie in {len(counts)} blocks of {block:g} m, too few for {len(PARTS)} parts: use "
            "smaller blocks."
        )
    assigned = _assign(counts, share, tolerance=tolerance, seed=seed)
    planned = assigned[unit]
    spread = _spread(_sums(counts, assigned))
    _tell(spread, tolerance, samples)
    part = keep_apart(samples.position, planned, _reach(samples, buffer, pixel))
    chosen = [samples.take(np.flatnonzero(part == index)) for index in range(len(PARTS))]
    if not all(map(len, chosen)):
        raise SplitError(f"The buffer of {buffer} pixels leaves a part without samples: use a smaller one.")
    train, valid, test = chosen
    return BalancedSplit(
        train=train,
        valid=valid,
        test=test,
        block=block,
        blocks=len(counts),
        means=np.stack([places_of(each).weights.mean(axis=0) for each in chosen]),
        spread=spread,
        distance=_distance(samples.position, part),
        dropped=int((part == DROPPED).sum()),
        record=Split(
            part=part.astype("int8"),
            places=places,
            options={
                "by": "balanced blocks",
                "fractions": share.tolist(),
                "block": float(block),
                "buffer": _reach(samples, buffer, pixel),
                "tolerance": float(tolerance),
                "seed": int(seed),
            },
        ),
    )


def _reach(samples: Samples, buffer: int, pixel: float | None) -> float:
    """Return the buffer in metres; a belt of k pixels ends half a pixel behind the middle of the k-th."""
    if not buffer:
        return 0.0
    size = samples.resolution if pixel is None else pixel
    if size is None:
        raise OptionError(f"buffer={buffer} pixels: the samples do not know their pixel size, give pixel=.")
    return (buffer + 0.5) * size


def _tell(spread: FloatArray, tolerance: float, samples: Samples) -> None:
    """Warn of classes whose means differ too much between the parts."""
    wrong = [
        f"{name} ({value:.0%})"
        for name, value in zip(samples.classes.names, spread, strict=True)
        if value >= tolerance
    ]
    if wrong:
        warnings.warn(
            f"Mean shares differ by {tolerance:.0%} or more between the parts: {', '.join(wrong)}. "
            "Smaller blocks balance better.",
            UserWarning,
            stacklevel=3,
        )


def _distance(position: FloatArray, part: IntArray) -> float:
    """Return the least distance between training and test."""
    distance, _ = cKDTree(position[part == TRAIN]).query(position[part == TEST])
    return float(distance.min())


def _assign(counts: FloatArray, share: FloatArray, *, tolerance: float, seed: int) -> IntArray:
    """Give units to parts: the best of some random starts, each improved by exchanges."""
    best, least = np.zeros(len(counts), int), (sum(counts.shape), math.inf)
    for number in range(_TRIES):
        random = np.random.default_rng([seed, number])
        assigned = _improved(_drawn(counts[:, -1], share, random), counts, share, random, tolerance=tolerance)
        sums = _sums(counts, assigned)
        wrong = np.concatenate([_spread(sums), _misses(sums, share)])
        rank = int((wrong >= tolerance).sum()), float(wrong.max())
        if rank < least:
            best, least = assigned, rank
        if _settled(sums, share, tolerance):
            break
    return best


def _drawn(sizes: FloatArray, share: FloatArray, random: np.random.Generator) -> IntArray:
    """Give units in random order to the part that lacks most of its share; none stays empty."""
    assigned = np.empty(len(sizes), int)
    room = share * sizes.sum()
    order = random.permutation(len(sizes))
    for place, unit in enumerate(order):
        part = place if place < len(share) else int(room.argmax())
        assigned[unit] = part
        room[part] -= sizes[unit]
    return assigned


def _improved(
    assigned: IntArray,
    counts: FloatArray,
    share: FloatArray,
    random: np.random.Generator,
    *,
    tolerance: float,
) -> IntArray:
    """Exchange or move units as long as that helps, the most helpful first."""
    for _ in range(_STEPS):
        sums = _sums(counts, assigned)
        if _settled(sums, share, tolerance):
            break
        cost = float(_cost(sums, share))
        least, change = min(
            (_best_exchange(counts, assigned, share, pair, random) for pair in ((0, 1), (0, 2), (1, 2))),
            key=lambda found: found[0],
        )
        if not least < cost - 1e-12:
            break
        for unit, part in change:
            assigned[unit] = part
    return assigned


def _best_exchange(
    counts: FloatArray,
    assigned: IntArray,
    share: FloatArray,
    pair: tuple[int, int],
    random: np.random.Generator,
) -> tuple[float, list[tuple[int, int]]]:
    """Return the cost after the best exchange between two parts, and who then belongs where."""
    mine, theirs = (random.permutation(np.flatnonzero(assigned == part))[:_SHOWN].tolist() for part in pair)
    # a unit of nothing at the end of each list: exchanging with it is moving
    gains = [np.vstack([counts[units], np.zeros(counts.shape[1])]) for units in (mine, theirs)]
    change = gains[1][None, :] - gains[0][:, None]
    sums = _sums(counts, assigned)
    after = np.broadcast_to(sums, (*change.shape[:2], *sums.shape)).copy()
    after[:, :, pair[0]] += change
    after[:, :, pair[1]] -= change
    cost = _cost(after, share)
    cost[(after[..., -1] <= 0).any(axis=-1)] = np.inf
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    moved = [(mine[row], pair[1])] if row < len(mine) else []
    moved += [(theirs[column], pair[0])] if column < len(theirs) else []
    return float(cost[row, column]), moved


def _sums(counts: FloatArray, assigned: IntArray) -> FloatArray:
    """Add up shares, and samples in the last column, by part."""
    return np.stack([counts[assigned == part].sum(axis=0) for part in range(len(PARTS))])


def _spread(sums: FloatArray) -> FloatArray:
    """Return how far the means of each class ``(…, class)`` differ between parts, relative to that of all."""
    means = sums[..., :-1] / sums[..., -1:]
    whole = sums[..., :-1].sum(axis=-2) / sums[..., -1].sum(axis=-1)[..., None]
    return np.asarray(np.ptp(means, axis=-2) / np.where(whole > 0, whole, 1))


def _misses(sums: FloatArray, share: FloatArray) -> FloatArray:
    """Return by how much each part misses its share ``(…, part)``, relative to it."""
    sizes = sums[..., -1]
    return np.asarray(np.abs(sizes / sizes.sum(axis=-1, keepdims=True) / share - 1))


def _cost(sums: FloatArray, share: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.square(_spread(sums).clip(max=_HOPELESS)).sum(axis=-1)
            + _SIZES * np.square(_misses(sums, share)).sum(axis=-1)
        )


def _settled(sums: FloatArray, share: FloatArray, tolerance: float) -> bool:
    """Tell whether there is nothing left to wish for."""
    return bool((_spread(sums) < tolerance).all() and (_misses(sums, share) < tolerance).all())
