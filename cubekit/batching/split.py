"""Training, validation and test parts that do not know each other: by blocks, by groups, or at random."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cubekit.batching.assign import PARTS, TEST, TRAIN, VALID, assign_samples, assign_units
from cubekit.batching.samples import Samples
from cubekit.batching.units import (
    DROPPED,
    By,
    block_side,
    check_positions,
    class_weights,
    counts_by_unit,
    keep_apart,
    samples_of,
    units_of,
)
from cubekit.errors import LabelError, OptionError, SplitError, check_option
from cubekit.typing import FloatArray, IntArray

_TRIES = 16  # seeded attempts to keep every class in every part; each costs two nearest-neighbour searches
_LEAST_CLASSES = 2
_BUFFER_REMEDY = "Use a smaller buffer or larger blocks, label the class elsewhere too, or leave it out."
_CLOSE = 0.05  # share of all samples by which a part may miss its fraction before another attempt is made


@dataclass(frozen=True)
class _Attempt:
    """One way to part the samples, and what is wrong with it."""

    part: IntArray
    """(n,) index of the part, or -1 where the buffer dropped the sample."""

    missing: list[tuple[int, int]]
    """Part and class of what must be there and is not; class -1 where a whole part is empty."""

    wished: int
    """How many classes validation lacks although there would be enough blocks or groups for it."""

    miss: float
    """Greatest share of all samples by which a part misses its fraction, before the buffer."""

    lost: float
    """Share of all samples that the buffer took."""

    @property
    def cost(self) -> tuple[int, int, float]:
        """What the search makes small."""
        return len(self.missing), self.wished, self.miss + self.lost

    @property
    def settled(self) -> bool:
        """Whether to stop looking for a better one."""
        return not self.missing and not self.wished and self.miss <= _CLOSE


def split(  # noqa: PLR0913  (one place where parts are described; all keyword-only)
    samples: Samples | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    by: By = "blocks",
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: float = 0.0,
    block: float | None = None,
    whole_groups: bool = False,
    footprint: float = 0.0,
    seed: int = 0,
) -> tuple[Samples, Samples, Samples]:
    """Part samples into training, validation and test.

    Neighbouring pixels look alike, so a test pixel beside a training pixel tests nothing. Whole blocks or
    groups go to one part, with every class in every part where that can be, and samples nearer than `buffer`
    metres to another part are dropped: from training first, then from validation, never from test. Fractions
    are met as closely as whole blocks or groups allow, before the buffer takes its share.

    Parameters
    ----------
    samples : Samples or xarray.Dataset
        What to part; a cube is extracted first.
    labels : xarray.Dataset, optional
        Labels on the cube's grid, where a cube is given.
    by : {"blocks", "groups", "random"}, optional
        What stays together: squares of land; the samples of one ``group`` (a polygon, a point); nothing.
        "random" flatters the result wherever samples are close together.
    fractions : tuple of float, optional
        Shares of training, validation and test, 1 together. A share of 0 gives an empty part.
    buffer : float, optional
        Least distance in metres between samples (pixel centres) of different parts.
    block : float, optional
        Side of the squares in metres. Default: a twelfth of the longer side of the area, at least
        four buffers.
    whole_groups : bool, optional
        With blocks: leave a group whole, in the block that holds its middle, where the edge of a block would
        cut through a polygon. For groups that are small beside the blocks.
    footprint : float, optional
        Side in metres of the patch around each sample that a network sees. Distances are then kept between
        patches, not between their middles.
    seed : int, optional
        Seed; equal seeds give equal parts on every machine.

    Returns
    -------
    train, valid, test : Samples
        In the order of the input.

    Raises
    ------
    LabelError
        If there is a single class.
    SplitError
        If there are too few samples or blocks, positions are unknown where they are needed, or a class
        cannot be in both training and test, naming it and what to do.
    OptionError
        If an option is not accepted.

    Examples
    --------
    >>> train, valid, test = split(samples, by="blocks", buffer=300)  # doctest: +SKIP
    """
    check_option("by", by, ["blocks", "groups", "random"])
    share = _check_fractions(fractions)
    if not buffer >= 0:
        raise OptionError(f"buffer={buffer!r} must be a number of metres, 0 or more.")
    table = samples_of(samples, labels)
    weights = class_weights(table)
    _check_samples(table, weights, share)
    if not footprint >= 0:
        raise OptionError(f"footprint={footprint!r} must be a number of metres, 0 or more.")
    if by == "blocks" or buffer or footprint:
        check_positions(table, by=by, buffer=buffer)
    side = block_side(table, block, buffer + footprint) if by == "blocks" else None
    unit = units_of(table, by, side, whole_groups=whole_groups)
    counts = counts_by_unit(weights, unit)
    what = {"blocks": f"blocks of {side:g} m" if side else "", "groups": "groups", "random": "samples"}[by]
    _check_units(table, counts, share, what, _remedy(by, buffer))

    def attempt(number: int) -> _Attempt:
        random = np.random.default_rng([seed, number])
        if by == "random":
            planned = assign_samples(weights, share, random)
        else:
            planned = assign_units(counts, share, random)[unit]
        return _judge(
            planned, keep_apart(table.position, planned, buffer, footprint=footprint), weights, counts, share
        )

    best = _best(attempt(number) for number in range(_TRIES))
    if best.missing:
        raise SplitError(_explain(table, best, what=what, by=by, buffer=buffer))
    train, valid, test = (table.take(np.flatnonzero(best.part == index)) for index in range(len(PARTS)))
    return train, valid, test


def _best(attempts: Iterator[_Attempt]) -> _Attempt:
    """Return the best attempt; stop at the first that leaves nothing to wish for."""
    best = next(attempts)
    while not best.settled:
        candidate = next(attempts, None)
        if candidate is None:
            break
        best = min(best, candidate, key=lambda attempt: attempt.cost)
    return best


def _check_fractions(fractions: tuple[float, float, float]) -> FloatArray:
    """Return the fractions as an array."""
    share = np.asarray(fractions, "float64")
    if share.shape != (len(PARTS),) or not (share >= 0).all() or not share[TRAIN] > 0:
        raise OptionError(
            f"fractions={fractions!r} must be three shares: training above 0, validation, test."
        )
    if not np.isclose(share.sum(), 1, atol=1e-6):
        raise OptionError(f"fractions={fractions!r} add up to {share.sum():g}, not to 1.")
    return share


def _check_samples(samples: Samples, weights: FloatArray, share: FloatArray) -> None:
    """Raise where no way of splitting can help."""
    found = [name for name, total in zip(samples.classes, weights.sum(axis=0), strict=True) if total > 0]
    if len(samples) < (share > 0).sum():
        raise SplitError(f"{len(samples)} samples cannot fill {(share > 0).sum()} parts: label more pixels.")
    if len(found) < _LEAST_CLASSES:
        raise LabelError(
            f"All {len(samples)} samples are of one class ({', '.join(found) or 'none'}): there is nothing "
            "to tell apart. Label a second class, if only as 'other'."
        )


def _check_units(samples: Samples, counts: FloatArray, share: FloatArray, what: str, remedy: str) -> None:
    """Raise where a class is in too few units to be in both training and test."""
    parts = int((share > 0).sum())
    if len(counts) < parts:
        raise SplitError(f"All samples lie in {len(counts)} {what}, too few for {parts} parts. {remedy}")
    needed = int((share[[TRAIN, TEST]] > 0).sum())
    for name, holders in zip(samples.classes, (counts > 0).sum(axis=0), strict=True):
        if 0 < holders < needed:
            raise SplitError(
                f"Class {name!r} lies in {holders} of {len(counts)} {what}, so it cannot be in both training "
                f"and test. {remedy}"
            )


def _judge(
    planned: IntArray, part: IntArray, weights: FloatArray, counts: FloatArray, share: FloatArray
) -> _Attempt:
    """Say what is wrong with one way of parting the samples."""
    present = np.stack([(weights[part == index] > 0).any(axis=0) for index in range(len(PARTS))])
    holders = (counts > 0).sum(axis=0)
    missing = [
        (index, int(each))
        for index in (TRAIN, TEST)
        if share[index] > 0
        for each in np.flatnonzero((holders > 0) & ~present[index])
    ]
    if share[VALID] > 0 and not (part == VALID).any():
        missing.append((VALID, -1))
    sizes = np.bincount(planned, minlength=len(PARTS)) / len(planned)
    return _Attempt(
        part=part,
        missing=missing,
        wished=int((share[VALID] > 0) * ((holders >= len(PARTS)) & ~present[VALID]).sum()),
        miss=float(np.abs(sizes - share).max()),
        lost=float((part == DROPPED).mean()),
    )


def _remedy(by: By, buffer: float) -> str:
    """Say what helps where there are too few blocks or groups."""
    ways = [f"by={other!r}" for other in ("groups", "random") if other != by]
    if by == "blocks":
        ways = ["a smaller buffer" if buffer else "smaller blocks", *ways]
    return f"Use {' or '.join(ways)}, label the class elsewhere too, or leave it out."


def _explain(samples: Samples, best: _Attempt, *, what: str, by: By, buffer: float) -> str:
    """Say which class is missing where, and what to do."""
    gone = "; ".join(
        f"no sample of class {samples.classes.names[each]!r} for {PARTS[part]}"
        if each >= 0
        else f"no sample for {PARTS[part]}"
        for part, each in best.missing
    )
    near = f" outside a buffer of {buffer:g} m" if buffer else ""
    remedy = _BUFFER_REMEDY if buffer else _remedy(by, buffer)
    return f"{_TRIES} ways to give {what} to the parts leave {gone}{near}. {remedy}"
