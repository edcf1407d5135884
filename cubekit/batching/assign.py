"""Give blocks, groups or samples to parts so that sizes and classes come out balanced."""

from collections.abc import Sequence

import numpy as np

from cubekit.typing import FloatArray, IntArray

PARTS = ("train", "valid", "test")
"""Names of the parts, in order."""

TRAIN, VALID, TEST = range(3)
NEED = (TRAIN, TEST, VALID)
"""Who is served first where a class has too few units for all."""


def assign_units(
    counts: FloatArray, share: FloatArray, random: np.random.Generator, *, need: Sequence[int] = NEED
) -> IntArray:
    """Give whole units to parts, rarest class first.

    Iterative stratification after Sechidis, Tsoumakas and Vlahavas (2011), doi:10.1007/978-3-642-23808-6_10,
    with one addition: when as few units of a class are left as parts still lack it, those parts come first.

    Parameters
    ----------
    counts : numpy.ndarray
        (unit, class) samples, or shares, of each class in each unit.
    share : numpy.ndarray
        (part,) wanted shares, such as of training, validation and test.
    random : numpy.random.Generator
        Shuffles units of about the same size.
    need : sequence of int, optional
        Parts, those first that are served first where a class has too few units for all.

    Returns
    -------
    numpy.ndarray
        (unit,) index of the part.
    """
    room = share[:, None] * counts.sum(axis=0)
    part = np.full(len(counts), -1)
    served = np.zeros(room.shape, bool)
    holders = (counts > 0).sum(axis=0)
    for index in np.argsort(holders, kind="stable"):
        waiting = np.flatnonzero((part < 0) & (counts[:, index] > 0))
        # large units first, as small ones can still even out; the jitter makes attempts differ
        order = np.argsort(-counts[waiting, index] * random.uniform(0.5, 1, len(waiting)), kind="stable")
        for left, unit in zip(range(len(waiting), 0, -1), waiting[order], strict=True):
            to = _neediest(room, served[:, index], [p for p in need if share[p] > 0], int(index), left)
            part[unit] = to
            room[to] -= counts[unit]
            served[to] |= counts[unit] > 0
    part[part < 0] = TRAIN  # units without any class
    return part


def assign_samples(
    weights: FloatArray, share: FloatArray, random: np.random.Generator, *, need: Sequence[int] = NEED
) -> IntArray:
    """Give samples to parts, class by class.

    Parameters
    ----------
    weights : numpy.ndarray
        (n, class) share of each class in each sample; a sample counts for its greatest.
    share : numpy.ndarray
        (part,) wanted shares, such as of training, validation and test.
    random : numpy.random.Generator
        Shuffles samples.
    need : sequence of int, optional
        Parts, those first that are served first where a class has too few samples for all.

    Returns
    -------
    numpy.ndarray
        (n,) index of the part.
    """
    main = weights.argmax(axis=1)
    part = np.empty(len(weights), int)
    for index in np.unique(main):
        shuffled = random.permutation(np.flatnonzero(main == index))
        part[shuffled] = np.repeat(range(len(share)), _sizes(len(shuffled), share, need))
    return part


def _neediest(room: FloatArray, served: FloatArray, need: Sequence[int], index: int, left: int) -> int:
    """Return the part that the next unit of a class goes to."""
    lacking = [part for part in need if not served[part]]
    if left <= len(lacking):
        return lacking[0]
    return max(need, key=lambda part: (room[part, index], room[part].sum()))


def _sizes(count: int, share: FloatArray, need: Sequence[int]) -> IntArray:
    """Return whole sizes near the shares, none of them empty where that can be."""
    exact = count * share
    sizes = np.floor(exact).astype(int)
    served = [part for part in need if share[part] > 0][:count]
    sizes[served] = np.maximum(sizes[served], 1)
    while sizes.sum() > count:
        sizes[sizes.argmax()] -= 1
    while sizes.sum() < count:
        sizes[(exact - sizes).argmax()] += 1
    return sizes
