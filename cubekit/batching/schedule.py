"""The order of an epoch: seeded, shared out without repeats, mixed from many blocks of which few are held."""

from dataclasses import dataclass

import numpy as np

from cubekit.batching.blocks import Blocks
from cubekit.typing import FloatArray, IntArray

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What one shard gives out in one epoch. Depends on numbers alone, never on how fast blocks come."""

    items: IntArray
    """(m,) items in the order given out."""

    place: IntArray
    """(m,) place of each item's block in `blocks`."""

    blocks: IntArray
    """Blocks in the order read."""

    @property
    def last(self) -> IntArray:
        """(block,) position of the last item of each block, in the order read."""
        last = np.zeros(len(self.blocks), "int64")
        np.maximum.at(last, self.place, np.arange(len(self.place)))
        return last

    @property
    def most_held(self) -> int:
        """Largest number of blocks of which something is held at once."""
        if not len(self.blocks):
            return 0
        read = np.maximum.accumulate(self.place) + 1
        done = np.searchsorted(np.sort(self.last), np.arange(len(self.place)))
        return int((read - done).max())

    @property
    def most_waiting(self) -> int:
        """Largest number of items that were read and not given out."""
        if not len(self.blocks):
            return 0
        come = np.cumsum(np.bincount(self.place, minlength=len(self.blocks)))
        read = come[np.maximum.accumulate(self.place)]
        return int((read - np.arange(len(self.place))).max())


def schedule(
    blocks: Blocks,
    *,
    held: float,
    seed: tuple[int, ...] | None,
    apart: bool = False,
    shard: int = 0,
    shards: int = 1,
) -> Schedule:
    """Order the items of one shard.

    Blocks come in random order; the items of each are given out in random order at even intervals, while as
    many other blocks come and go as memory allows. So a batch takes about as many items from each of them,
    and blocks are read at an even pace. If all blocks can be held, the order is a plain shuffle.

    Parameters
    ----------
    blocks : Blocks
        What is read at once.
    held : float
        Memory, in blocks; at least 1.
    seed : tuple of int or None
        Of the order; None keeps the order of blocks, and of items in each.
    apart : bool, optional
        Whether items that were given out make room at once. Blocks are half empty then on average, so that
        twice as many are mixed. Else a block stays until its last item has been given out.
    shard : int, optional
        Which part of the items: blocks belong to one shard each.
    shards : int, optional
        Number of parts.

    Returns
    -------
    Schedule
        Equal for equal arguments, on every machine.
    """
    random = None if seed is None else np.random.default_rng(seed)
    runs = share_out(blocks, shards=shards, seed=seed) == shard
    mixed = 2 * held if apart else held
    order = _block_order(blocks.run, np.flatnonzero(runs[blocks.run]), int(mixed), random)
    rank = np.full(len(blocks.run), -1)
    rank[order] = np.arange(len(order))
    items = np.flatnonzero(rank[blocks.item] >= 0)
    place = rank[blocks.item[items]]
    if random is None:
        ordered = np.argsort(place, kind="stable")
    elif held >= len(order):
        ordered = random.permutation(len(items))
    else:
        time = place + 0.5 + mixed * (_evenly(place, len(order), random) - 0.5)
        ordered = np.argsort(_folded(time, len(order)), kind="stable")
    return Schedule(items=items[ordered], place=place[ordered], blocks=order)


def _evenly(place: IntArray, blocks: int, random: np.random.Generator) -> FloatArray:
    """Give the items of each block places from 0 to 1 at even intervals, in random order."""
    count = np.bincount(place, minlength=blocks)
    order = np.lexsort((random.random(len(place)), place))
    number = np.empty(len(place), "int64")
    number[order] = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
    # multiples of the golden section lie evenly however many there are: an even pace, and no block in step
    phase = (random.random() + np.arange(blocks) * _GOLDEN) % 1
    evenly: FloatArray = (number + phase[place]) / count[place]
    return evenly


def share_out(blocks: Blocks, *, shards: int, seed: tuple[int, ...] | None) -> IntArray:
    """Give every run to a shard, so that shards have about as many items.

    Parameters
    ----------
    blocks : Blocks
        What is read at once.
    shards : int
        Number of shards.
    seed : tuple of int or None
        Runs of equal size change shards from seed to seed.

    Returns
    -------
    numpy.ndarray
        (run,) shard of each run.
    """
    count = int(blocks.run.max(initial=-1)) + 1
    if shards == 1:
        return np.zeros(count, "int64")
    weight = np.bincount(blocks.run[blocks.item], minlength=count)
    mixed = np.arange(count) if seed is None else np.random.default_rng((*seed, 1)).permutation(count)
    shard, load = np.empty(count, "int64"), np.zeros(shards, "int64")
    for run in mixed[np.argsort(-weight[mixed], kind="stable")]:  # the largest first, to whom has least
        shard[run] = load.argmin()
        load[shard[run]] += weight[run]
    return shard


def design_effect(places: IntArray, cuts: IntArray) -> float:
    """Return how much more batch means scatter than those of a true shuffle, at worst.

    As if all items of one block were alike, and blocks were unlike: the mean over batches of the expected
    squared scatter, over that of batches drawn from all items. It tells of each batch by itself; batches that
    follow each other come from the same blocks and are more alike than those of a true shuffle.

    Parameters
    ----------
    places : numpy.ndarray
        (m,) block of each item, in the order given out.
    cuts : numpy.ndarray
        Where batches end.

    Returns
    -------
    float
        1 for a true shuffle; the batch size where batches come from one block each; less than 1 where batches
        take more evenly from all blocks than chance would.
    """
    sizes = np.diff(cuts, prepend=0)
    if len(places) < 2 or sizes.max() < 2:  # noqa: PLR2004
        return 1.0
    batch = np.repeat(np.arange(len(cuts)), sizes)
    _, same = np.unique(np.stack([batch, places[: cuts[-1]]]), axis=1, return_counts=True)
    total = np.bincount(places)
    chance = float((total * (total - 1.0)).sum() / (len(places) * (len(places) - 1.0)))
    pairs = float((same * (same - 1.0)).sum()) / float((sizes * (sizes - 1.0)).sum())
    size = float((sizes.astype("float64") ** 2).sum() / sizes.sum())  # of the batch that an item is in
    return (1 + (size - 1) * pairs) / (1 + (size - 1) * chance)


def _block_order(run: IntArray, mine: IntArray, held: int, random: np.random.Generator | None) -> IntArray:
    """Order blocks: runs in random order, as many at a time as are held; each run from its first block on."""
    if random is None or not len(mine):
        return mine
    _, first, number, length = np.unique(
        run[mine], return_index=True, return_inverse=True, return_counts=True
    )
    if length.max() == 1:
        return random.permutation(mine)
    step = np.arange(len(mine)) - first[number]
    start, free = np.empty(len(length)), np.zeros(min(held, len(length)))
    for each in random.permutation(len(length)):  # a walker that is free takes the next run
        walker = int(free.argmin())
        start[each] = free[walker]
        free[walker] += length[each]
    offset = random.random(len(length))
    return mine[np.argsort(start[number] + step + offset[number], kind="stable")]


def _folded(time: FloatArray, end: int) -> FloatArray:
    """Fold times before the start and after the end back, as often as it takes."""
    time = np.abs(time) % (2 * end)
    return np.where(time > end, 2 * end - time, time)
