"""Which part each sample goes to: seeded attempts, judged by what is missing and what is lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cubekit.batching.assign import PARTS, TEST, TRAIN, VALID, assign_samples, assign_units
from cubekit.batching.places import Places
from cubekit.batching.split_record import Split
from cubekit.batching.temporal import Gap, check_dates, days_of, keep_apart_in_time, plan_by_time
from cubekit.batching.units import (
    DROPPED,
    WAYS,
    By,
    block_side,
    check_positions,
    counts_by_unit,
    keep_apart,
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


def decide(  # noqa: PLR0913
    places: Places,
    *,
    by: By,
    fractions: tuple[float, float, float],
    buffer: float,
    block: float | None,
    whole_groups: bool,
    footprint: float,
    gap: Gap,
    cuts: tuple[str, str] | None,
    seed: int,
) -> Split:
    """Check the options, and decide which part each sample is in.

    Parameters
    ----------
    places : Places
        Where and when the samples are.
    by : {"blocks", "groups", "random", "time"}
        What stays together; this and what follows as for :func:`cubekit.split`.
    fractions : tuple of float
        Shares of training, validation and test.
    buffer : float
        Least distance in metres.
    block : float or None
        Side of the squares in metres.
    whole_groups : bool
        Leave groups whole in blocks.
    footprint : float
        Side in metres of what a network sees around each sample.
    gap : str or float
        Least time.
    cuts : tuple of str or None
        First dates of validation and of test.
    seed : int
        Seed.

    Returns
    -------
    Split
        The decision, with how it was made.

    Raises
    ------
    CubekitError
        As :func:`cubekit.split`.
    """
    check_option("by", by, WAYS)
    share = _check_fractions(fractions)
    for name, length in (("buffer", buffer), ("footprint", footprint)):
        if not length >= 0:
            raise OptionError(f"{name}={length!r} must be a number of metres, 0 or more.")
    least = days_of(gap)
    check_ways(by, buffer=buffer, footprint=footprint, gap=gap, cuts=cuts)
    _check_samples(places, share)
    said: dict[str, Any] = {"by": by, "fractions": list(fractions), "seed": seed}
    if by == "time":
        return _in_time(places, share, least, cuts, said)
    side_of_all = max(footprint, places.footprint)
    if by == "blocks" or buffer or side_of_all:
        check_positions(places, by=by, buffer=buffer)
    side = block_side(places, block, buffer + side_of_all) if by == "blocks" else None
    said |= {"buffer": buffer, "footprint": side_of_all, "whole_groups": whole_groups}
    if side:
        said |= {"block": side, "origin": places.position.min(axis=0).tolist()}
    part = _in_space(places, share, by, side, said)
    return Split(part=part.astype("int8"), places=places, options=said)


def _in_time(
    places: Places, share: FloatArray, gap: np.timedelta64, cuts: tuple[str, str] | None, said: dict[str, Any]
) -> Split:
    """Hold out the end of the time."""
    check_dates(places)
    planned, begin = plan_by_time(places, share, gap, cuts)
    wanted = share if cuts is None else np.bincount(planned, minlength=len(PARTS)) / len(planned)
    part = keep_apart_in_time(places, planned, gap)
    counts = counts_by_unit(places.weights, planned)
    tried = _judge(planned, part, places.weights, counts, wanted)
    empty = [PARTS[index] for index in (TRAIN, TEST) if share[index] > 0 and not (part == index).any()]
    if empty or tried.missing:
        gone = _gone(places, tried) if tried.missing else f"no {places.what} for {' and '.join(empty)}"
        raise SplitError(
            f"Validation from {begin[0] or 'nowhere'} and test from {begin[1] or 'nowhere'} leave {gone}. "
            "Choose other cuts=, a smaller gap=, shorter windows, or label the class in other years too."
        )
    said |= {"gap_days": float(gap / np.timedelta64(1, "D")), "cuts": list(begin)}
    return Split(part=part.astype("int8"), places=places, options=said)


def _in_space(
    places: Places, share: FloatArray, by: By, side: float | None, said: dict[str, Any]
) -> IntArray:
    """Give blocks, groups or samples to parts, and drop what lies too near to another part."""
    buffer, footprint = said["buffer"], said["footprint"]
    unit = units_of(places, by, side, whole_groups=said["whole_groups"])
    counts = counts_by_unit(places.weights, unit)
    what = {"blocks": f"blocks of {side:g} m" if side else "", "groups": "groups", "random": places.what}[by]
    _check_units(places, counts, share, what, _remedy(by, buffer))

    def attempt(number: int) -> _Attempt:
        random = np.random.default_rng([said["seed"], number])
        if by == "random":
            planned = assign_samples(places.weights, share, random)
        else:
            planned = assign_units(counts, share, random)[unit]
        part = keep_apart(places.position, planned, buffer, footprint=footprint)
        return _judge(planned, part, places.weights, counts, share)

    best = _best(attempt(number) for number in range(_TRIES))
    if best.missing:
        raise SplitError(_explain(places, best, what=what, by=by, buffer=buffer))
    return best.part


def check_ways(
    by: By, *, buffer: float, footprint: float, gap: Gap, cuts: tuple[str, str] | None = None
) -> None:
    """Raise where an option is for another way of parting.

    Parameters
    ----------
    by : {"blocks", "groups", "random", "time"}
        What stays together.
    buffer, footprint : float
        Metres.
    gap : str or float
        Time.
    cuts : tuple of str or None
        Dates.

    Raises
    ------
    OptionError
        Naming it.
    """
    if by == "time" and (buffer or footprint):
        raise OptionError(
            "by='time' keeps parts apart in time: use gap= (days) in place of a buffer in metres."
        )
    if by != "time" and (days_of(gap) or cuts is not None):
        raise OptionError(f"gap= and cuts= go with by='time', not with by={by!r}.")


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


def _check_samples(places: Places, share: FloatArray) -> None:
    """Raise where no way of splitting can help."""
    found = [name for name, total in places.counts().items() if total > 0]
    if len(places) < (share > 0).sum():
        remedy = "label more pixels" if places.what == "samples" else "plan smaller patches"
        raise SplitError(f"{len(places)} {places.what} cannot fill {(share > 0).sum()} parts: {remedy}.")
    if places.labelled and len(found) < _LEAST_CLASSES:
        raise LabelError(
            f"All {len(places)} {places.what} are of one class ({', '.join(found) or 'none'}): there is "
            "nothing to tell apart. Label a second class, if only as 'other'."
        )


def _check_units(places: Places, counts: FloatArray, share: FloatArray, what: str, remedy: str) -> None:
    """Raise where a class is in too few units to be in both training and test."""
    parts = int((share > 0).sum())
    if len(counts) < parts:
        raise SplitError(
            f"All {places.what} lie in {len(counts)} {what}, too few for {parts} parts. {remedy}"
        )
    needed = int((share[[TRAIN, TEST]] > 0).sum())
    for name, holders in zip(places.names, (counts > 0).sum(axis=0), strict=True):
        if 0 < holders < needed:
            named = f"Class {name!r}" if name else "Every patch"
            raise SplitError(
                f"{named} lies in {holders} of {len(counts)} {what}, so it cannot be in both training "
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


def _gone(places: Places, best: _Attempt) -> str:
    """Say which class is missing where."""
    return "; ".join(
        f"no sample of class {places.names[each]!r} for {PARTS[part]}"
        if each >= 0 and places.labelled
        else f"nothing for {PARTS[part]}"
        for part, each in best.missing
    )


def _explain(places: Places, best: _Attempt, *, what: str, by: By, buffer: float) -> str:
    """Say which class is missing where, and what to do."""
    near = f" outside a buffer of {buffer:g} m" if buffer else ""
    remedy = _BUFFER_REMEDY if buffer else _remedy(by, buffer)
    return f"{_TRIES} ways to give {what} to the parts leave {_gone(places, best)}{near}. {remedy}"
