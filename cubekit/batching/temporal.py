"""Parts that lie apart in time: what is held out is never seen before, neither as target nor as input."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cubekit.batching.assign import TEST, TRAIN, VALID
from cubekit.batching.places import Places, Times
from cubekit.batching.units import DROPPED
from cubekit.errors import OptionError, SplitError
from cubekit.typing import FloatArray, IntArray

Gap = str | float
"""A length of time: days, or words such as ``"90D"``."""

_DAY = 86_400_000_000_000  # nanoseconds
_LOST = 2  # a sample that a date cuts through costs more than one on the wrong side: years stay whole
_MOST_DAYS = 100_000  # dates in nanoseconds span 584 years


def days_of(gap: Gap) -> np.timedelta64:
    """Read a length of time.

    Parameters
    ----------
    gap : str or float
        Days, or words such as ``"90D"``.

    Returns
    -------
    numpy.timedelta64
        Nanoseconds, 0 or more.

    Raises
    ------
    OptionError
        If it is not a length of time, or negative.
    """
    try:
        days = gap if isinstance(gap, int | float) else pd.Timedelta(gap) / pd.Timedelta(1, "D")
    except ValueError:
        days = -1
    if not 0 <= days < _MOST_DAYS:
        raise OptionError(f"gap={gap!r} must be a number of days, 0 or more, or words such as '90D'.")
    return np.timedelta64(round(days * _DAY), "ns")


def check_dates(places: Places) -> None:
    """Raise unless every sample has dates, and not all have the same.

    Parameters
    ----------
    places : Places
        To look at.

    Raises
    ------
    SplitError
        Saying what would have different dates.
    """
    remedy = {
        "samples": "read tables of several years with cubekit.read_series, or join the samples of several "
        "years with Samples.join",
        "patches": "cut them in time as well: PatchPlan(…, steps=…, horizon=…)",
    }[places.what]
    if np.isnat(places.span).any():
        raise SplitError(f"The {places.what} have no dates, which by='time' needs: {remedy}.")
    if (places.span == places.span[0]).all():
        first, last = np.datetime_as_string(places.span[0], "D")
        raise SplitError(
            f"All {len(places)} {places.what} are of the same dates, {first} to {last}, so by='time' has "
            f"nothing to hold out: {remedy}."
        )


def plan_by_time(
    places: Places, share: FloatArray, gap: np.timedelta64, cuts: Sequence[str] | None
) -> tuple[IntArray, tuple[str, str]]:
    """Hold out the end: training first, then validation, test last.

    Parameters
    ----------
    places : Places
        With dates.
    share : numpy.ndarray
        (part,) wanted shares.
    gap : numpy.timedelta64
        Least time between parts.
    cuts : sequence of str or None
        First dates of validation and of test, where the user has said them. Else they lie where shares are
        met best and the fewest samples straddle them.

    Returns
    -------
    planned : numpy.ndarray
        (n,) index of the part, before samples are dropped: see :func:`keep_apart_in_time`.
    cuts : tuple of str
        First dates of validation and of test, ISO 8601; empty where there is no such part.

    Raises
    ------
    OptionError
        If `cuts` are not two dates in order.
    SplitError
        If the dates do not allow for all parts.
    """
    first = places.target[:, 0]
    if cuts is not None:
        begin = _read_cuts(cuts)
    else:
        test = _cut(places, float(share[TEST]), gap, end=None) if share[TEST] > 0 else None
        valid = _cut(places, float(share[VALID]), gap, end=test) if share[VALID] > 0 else None
        begin = (valid, test)
    planned = np.full(len(places), TRAIN)
    for part, since in zip((VALID, TEST), begin, strict=True):
        if since is not None:
            planned[first >= since] = part
    said = ["" if since is None else str(np.datetime_as_string(since, "s")) for since in begin]
    return planned, (said[0], said[1])


def plan_periods(places: Places, k: int) -> IntArray:
    """Cut time into stretches with about as many targets each.

    Parameters
    ----------
    places : Places
        With dates.
    k : int
        Number of stretches.

    Returns
    -------
    numpy.ndarray
        (n,) number of the stretch in which the first date of the target lies.

    Raises
    ------
    SplitError
        If there are fewer dates than stretches.
    """
    first, last = (np.sort(dates) for dates in places.target.T)
    candidates, n = np.unique(first)[1:], len(places)
    cuts: list[np.datetime64] = []
    for index in range(1, k):
        left = candidates[candidates > cuts[-1]] if cuts else candidates
        left = left[: len(left) - (k - 1 - index)]
        if not len(left):
            raise SplitError(
                f"The {places.what} are of {len(candidates) + 1} periods, too few for {k}: use a smaller k."
            )
        begun, done = np.searchsorted(first, left), np.searchsorted(last, left)
        cuts.append(left[(np.abs(begun / n - index / k) + _LOST * (begun - done) / n).argmin()])
    return np.searchsorted(np.array(cuts), places.target[:, 0], side="right")


def keep_apart_in_time(places: Places, planned: IntArray, gap: np.timedelta64) -> IntArray:
    """Drop samples that look at dates of another part's targets, or at dates nearer to them than the gap.

    Training gives way to validation, and both to test. The inputs of a validation or test target may be dates
    that training has seen, as they are when a model is used.

    Parameters
    ----------
    places : Places
        With dates.
    planned : numpy.ndarray
        (n,) index of the part.
    gap : numpy.timedelta64
        Least time between parts.

    Returns
    -------
    numpy.ndarray
        (n,) index of the part, `DROPPED` where the sample must go.
    """
    part = planned.copy()
    for weak, strong in ((VALID, (TEST,)), (TRAIN, (VALID, TEST))):
        for each in strong:
            held = part == each
            if held.any():
                near = time_between(places.span, places.target[held]) < max(gap, np.timedelta64(1, "ns"))
                part[(part == weak) & near] = DROPPED
    return part


def time_between(span: Times, held: Times) -> npt.NDArray[np.timedelta64]:
    """Return how long before or after a stretch of time spans lie.

    Parameters
    ----------
    span : numpy.ndarray
        (n, 2) datetime64.
    held : numpy.ndarray
        (m, 2) datetime64: the stretch from the first to the last of them.

    Returns
    -------
    numpy.ndarray
        (n,) timedelta64; 0 or less where they overlap.
    """
    between: npt.NDArray[np.timedelta64] = np.maximum(
        held[:, 0].min() - span[:, 1], span[:, 0] - held[:, 1].max()
    )
    return between


def _read_cuts(cuts: Sequence[str]) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """Read the first dates of validation and of test."""
    try:
        begin = np.array([str(each) for each in cuts], "datetime64[ns]")
    except ValueError:
        begin = np.array([], "datetime64[ns]")
    if len(begin) != 2 or not begin[0] <= begin[1]:  # noqa: PLR2004
        raise OptionError(
            f"cuts={cuts!r} must be the first dates of validation and of test, such as ('2021-01-01', "
            "'2022-01-01'); the same date twice means no validation."
        )
    return None if begin[0] == begin[1] else begin[0], begin[1]


def _cut(places: Places, share: float, gap: np.timedelta64, *, end: np.datetime64 | None) -> np.datetime64:
    """Return the date since which targets make up a share, and that the fewest samples straddle."""
    least = max(gap, np.timedelta64(1, "ns"))
    if end is None:
        inside, total = np.ones(len(places), bool), len(places)
    else:  # validation: of what test leaves
        inside, total = end - places.span[:, 1] >= least, len(places)
    begins, ends = np.sort(places.target[inside, 0]), np.sort(places.span[inside, 1])
    candidates = np.unique(begins)[1:]
    before = np.searchsorted(ends, candidates - least, side="right")
    after = len(begins) - np.searchsorted(begins, candidates)
    cost = np.abs(after / total - share) + _LOST * (len(begins) - before - after) / total
    cost[before == 0] = np.inf
    if not len(cost) or not np.isfinite(cost.min()):
        first, last = np.datetime_as_string([places.span.min(), places.span.max()], "D")
        raise SplitError(
            f"{places.what.capitalize()} from {first} to {last} cannot be parted in time"
            f" with a gap of {gap / np.timedelta64(1, 'D'):g} days: too few dates. Use a smaller gap, "
            "shorter windows, or more years."
        )
    best: np.datetime64 = candidates[cost.argmin()]
    return best
