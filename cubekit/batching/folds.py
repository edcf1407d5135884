"""Cross-validation: every sample tests once a network that knows nothing near it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from cubekit.batching.assign import TEST, TRAIN, VALID, assign_samples, assign_units
from cubekit.batching.decide import check_ways
from cubekit.batching.patches import PatchPlan
from cubekit.batching.places import Places
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.batching.temporal import Gap, check_dates, days_of, keep_apart_in_time, plan_periods
from cubekit.batching.units import (
    DROPPED,
    WAYS,
    By,
    block_side,
    check_positions,
    counts_by_unit,
    keep_apart,
    splittable,
    units_of,
)
from cubekit.errors import OptionError, SplitError, check_option
from cubekit.typing import IntArray

_LEAST = 3  # a fold tests, another validates, and something must be left to train on


def folds(  # noqa: PLR0913  (as split)
    samples: Samples | PatchPlan | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    k: int = 5,
    by: By = "blocks",
    buffer: float = 0.0,
    block: float | None = None,
    footprint: float = 0.0,
    gap: Gap = 0.0,
    forward: bool = False,
    seed: int = 0,
) -> Iterator[tuple[Any, Any, Any]]:
    """Part samples, or patches, k times so that each is in the test part of one of them.

    Blocks, groups, samples or stretches of time are dealt to k folds, with every class in as many folds as
    can be. In turn each fold is the test part, the next one validates, and the others train. As in
    :func:`cubekit.split`, samples nearer than `buffer` or `gap` to a stronger part are dropped, never those
    of the test part.

    Parameters
    ----------
    samples : Samples, PatchPlan or xarray.Dataset
        What to part; a cube is extracted first.
    labels : xarray.Dataset, optional
        Labels on the cube's grid, where a cube is given; with patches optional, to balance classes.
    k : int, optional
        Number of folds, 3 or more.
    by : {"blocks", "groups", "random", "time"}, optional
        What stays together: squares of land; the samples of one ``group``; nothing; stretches of time, of
        about as many samples each.
    buffer : float, optional
        Least distance in metres between samples of different parts.
    block : float, optional
        Side of the squares in metres; default as for :func:`cubekit.split`.
    footprint : float, optional
        Side in metres of the patch around each sample that a network sees.
    gap : str or float, optional
        By time: least time between parts, in days or as ``"90D"``.
    forward : bool, optional
        By time: train only on what was before. There are k + 2 stretches then, and fold i trains on the
        first i + 1 of them, validates on the next and tests on the one after it.
    seed : int, optional
        Seed; equal seeds give equal folds on every machine.

    Yields
    ------
    train, valid, test : Samples or PatchPlan
        In the order of the input; k times.

    Raises
    ------
    SplitError
        If there are too few blocks, groups, samples or dates, positions or dates are unknown where they are
        needed, or a class would be in no training part.
    OptionError
        If an option is not accepted.

    Examples
    --------
    >>> scores = [test_it(*parts) for parts in folds(samples, by="groups")]  # doctest: +SKIP
    """
    check_option("by", by, WAYS)
    least = 1 if forward else _LEAST
    if k < least:
        raise OptionError(f"k={k} must be {least} or more: one fold tests, the next validates, others train.")
    if not (buffer >= 0 and footprint >= 0):
        raise OptionError(f"buffer={buffer!r} and footprint={footprint!r} must be metres, 0 or more.")
    check_ways(by, buffer=buffer, footprint=footprint, gap=gap)
    if forward and by != "time":
        raise OptionError(f"forward=True goes with by='time', not with by={by!r}.")
    data, places = splittable(samples, labels)
    reach = max(footprint, places.footprint)
    if by == "time":
        check_dates(places)
        fold = plan_periods(places, k + 2 if forward else k)
    else:
        if by == "blocks" or buffer or reach:
            check_positions(places, by=by, buffer=buffer)
        fold = _deal(
            places, k, by, block_side(places, block, buffer + reach) if by == "blocks" else None, seed
        )
    for index in range(k):
        planned = _forward(fold, index) if forward else _around(fold, index, k)
        if by == "time":
            part = keep_apart_in_time(places, planned, days_of(gap))
        else:
            part = keep_apart(places.position, planned, buffer, footprint=reach)
        _check_classes(places, part, index, buffer)
        said = {"by": by, "k": k, "fold": index, "seed": seed}
        yield Split(part=part.astype("int8"), places=places, options=said).taken(data)


def _around(fold: IntArray, index: int, k: int) -> IntArray:
    """Return the parts where a fold tests, the next validates and all others train."""
    planned = np.full(len(fold), TRAIN)
    planned[fold == index], planned[fold == (index + 1) % k] = TEST, VALID
    return planned


def _forward(fold: IntArray, index: int) -> IntArray:
    """Return the parts where all that came before trains."""
    planned = np.full(len(fold), DROPPED)
    planned[fold <= index], planned[fold == index + 1], planned[fold == index + 2] = TRAIN, VALID, TEST
    return planned


def _deal(places: Places, k: int, by: By, side: float | None, seed: int) -> IntArray:
    """Give each sample the number of its fold."""
    random, share, need = np.random.default_rng(seed), np.full(k, 1 / k), range(k)
    if by == "random":
        return assign_samples(places.weights, share, random, need=need)
    unit = units_of(places, by, side, whole_groups=False)
    counts = counts_by_unit(places.weights, unit)
    if len(counts) < k:
        what = f"blocks of {side:g} m" if side else "groups"
        raise SplitError(
            f"All {places.what} lie in {len(counts)} {what}, too few for {k} folds: use a smaller k."
        )
    fold: IntArray = assign_units(counts, share, random, need=need)[unit]
    return fold


def _check_classes(places: Places, part: IntArray, index: int, buffer: float) -> None:
    """Raise if a network could not learn, or not be tested on anything."""
    there = places.weights.sum(axis=0) > 0
    lost = there & ~(places.weights[part == TRAIN] > 0).any(axis=0)
    if lost.any():
        name = places.names[int(np.flatnonzero(lost)[0])]
        ways = "a smaller buffer, " if buffer else ""
        raise SplitError(
            f"{f'Class {name!r}' if name else 'The network'} has no training sample when fold {index} tests: "
            f"use {ways}a smaller block or gap, by='groups', or label the class in more places and years."
        )
