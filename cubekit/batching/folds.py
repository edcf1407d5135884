"""Cross-validation: every sample tests once a network that knows nothing near it."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from cubekit.batching.assign import TEST, TRAIN, VALID, assign_samples, assign_units
from cubekit.batching.samples import Samples
from cubekit.batching.units import (
    By,
    block_side,
    check_positions,
    class_weights,
    counts_by_unit,
    keep_apart,
    samples_of,
    units_of,
)
from cubekit.errors import OptionError, SplitError, check_option
from cubekit.typing import IntArray

_LEAST = 3  # a fold tests, another validates, and something must be left to train on


def folds(
    samples: Samples | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    k: int = 5,
    by: By = "blocks",
    buffer: float = 0.0,
    block: float | None = None,
    footprint: float = 0.0,
    seed: int = 0,
) -> Iterator[tuple[Samples, Samples, Samples]]:
    """Part samples k times so that each is in the test part of one of them.

    Blocks, groups or samples are dealt to k folds, with every class in as many folds as can be. In turn each
    fold is the test part, the next one validates, and the others train. As in :func:`cubekit.split`, samples
    nearer than `buffer` to a stronger part are dropped, never those of the test part.

    Parameters
    ----------
    samples : Samples or xarray.Dataset
        What to part; a cube is extracted first.
    labels : xarray.Dataset, optional
        Labels on the cube's grid, where a cube is given.
    k : int, optional
        Number of folds, 3 or more.
    by : {"blocks", "groups", "random"}, optional
        What stays together: squares of land; the samples of one ``group``; nothing.
    buffer : float, optional
        Least distance in metres between samples of different parts.
    block : float, optional
        Side of the squares in metres; default as for :func:`cubekit.split`.
    footprint : float, optional
        Side in metres of the patch around each sample that a network sees.
    seed : int, optional
        Seed; equal seeds give equal folds on every machine.

    Yields
    ------
    train, valid, test : Samples
        In the order of the input; k times.

    Raises
    ------
    SplitError
        If there are too few blocks, groups or samples, positions are unknown where they are needed, or a
        class would be in no training part.
    OptionError
        If an option is not accepted.

    Examples
    --------
    >>> scores = [test_it(*parts) for parts in folds(samples, by="groups")]  # doctest: +SKIP
    """
    check_option("by", by, ["blocks", "groups", "random"])
    if k < _LEAST:
        raise OptionError(
            f"k={k} must be {_LEAST} or more: one fold tests, the next validates, others train."
        )
    if not (buffer >= 0 and footprint >= 0):
        raise OptionError(f"buffer={buffer!r} and footprint={footprint!r} must be metres, 0 or more.")
    table = samples_of(samples, labels)
    if by == "blocks" or buffer or footprint:
        check_positions(table, by=by, buffer=buffer)
    fold = _deal(table, k, by, block_side(table, block, buffer + footprint) if by == "blocks" else None, seed)
    for index in range(k):
        planned = np.full(len(table), TRAIN)
        planned[fold == index], planned[fold == (index + 1) % k] = TEST, VALID
        part = keep_apart(table.position, planned, buffer, footprint=footprint)
        _check_classes(table, part, index, buffer)
        yield tuple(table.take(np.flatnonzero(part == each)) for each in (TRAIN, VALID, TEST))  # type: ignore[misc]


def _deal(table: Samples, k: int, by: By, side: float | None, seed: int) -> IntArray:
    """Give each sample the number of its fold."""
    random, share, need = np.random.default_rng(seed), np.full(k, 1 / k), range(k)
    weights = class_weights(table)
    if by == "random":
        return assign_samples(weights, share, random, need=need)
    unit = units_of(table, by, side, whole_groups=False)
    counts = counts_by_unit(weights, unit)
    if len(counts) < k:
        what = f"blocks of {side:g} m" if side else "groups"
        raise SplitError(f"All samples lie in {len(counts)} {what}, too few for {k} folds: use a smaller k.")
    fold: IntArray = assign_units(counts, share, random, need=need)[unit]
    return fold


def _check_classes(table: Samples, part: IntArray, index: int, buffer: float) -> None:
    """Raise if a network could not learn, or not be tested on anything."""
    weights = class_weights(table)
    there = weights.sum(axis=0) > 0
    lost = there & ~(weights[part == TRAIN] > 0).any(axis=0)
    if lost.any():
        name = table.classes.names[int(np.flatnonzero(lost)[0])]
        ways = "a smaller buffer, " if buffer else ""
        raise SplitError(
            f"Class {name!r} has no training sample when fold {index} tests: use {ways}a smaller block, "
            "by='groups', or label the class in more places."
        )
