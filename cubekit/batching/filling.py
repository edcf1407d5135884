"""Batches that are filled while blocks are read: each sample goes straight to where it is given out."""

from collections.abc import Callable, Iterator
from threading import Lock

import numpy as np

from cubekit.batching.part import Arrays, Target
from cubekit.batching.schedule import Schedule
from cubekit.typing import IntArray


class Filling:
    """The batches of a pass that are under way; threads that read blocks write into them side by side.

    Parameters
    ----------
    order : Schedule
        What the pass gives out.
    weights : numpy.ndarray
        (item,) samples in each item.
    cuts : numpy.ndarray
        (batches,) samples given out by the end of each.
    make : callable
        Makes the arrays of a batch of so many samples.
    start : int, optional
        Batches at the beginning that are not given out.
    turns : numpy.ndarray, optional
        (item,) how each patch is turned.
    """

    def __init__(
        self,
        order: Schedule,
        weights: IntArray,
        cuts: IntArray,
        make: Callable[[int], Arrays],
        *,
        start: int = 0,
        turns: IntArray | None = None,
    ) -> None:
        self._items, self._cuts, self._make, self._start = order.items, cuts, make, start
        self._codes = np.zeros(len(weights), "uint8") if turns is None else turns
        self._ends = np.cumsum(weights[order.items])
        self._firsts = self._ends - weights[order.items]
        self._by_place = np.argsort(order.place, kind="stable")
        places = np.arange(len(order.blocks) + 1)
        self._bounds = np.searchsorted(order.place[self._by_place], places)
        self._open: dict[int, Arrays] = {}
        self._lock = Lock()

    def targets(self, place: int, *, first_item: int = 0) -> Iterator[Target]:
        """Tell where the samples of a block go.

        Parameters
        ----------
        place : int
            Of the block, in the order read.
        first_item : int, optional
            From which items are counted: the first of a cube.

        Yields
        ------
        Target
            An item, or its part in one batch; none of batches that are not given out.
        """
        at = self._by_place[self._bounds[place] : self._bounds[place + 1]]
        firsts, ends = self._firsts[at], self._ends[at]
        lows, highs = (np.searchsorted(self._cuts, each, side="right") for each in (firsts, ends - 1))
        columns = (self._items[at] - first_item, self._codes[self._items[at]], firsts, ends, lows, highs)
        for item, code, first, end, low, high in zip(*(each.tolist() for each in columns), strict=True):
            for number in range(max(low, self._start), high + 1):
                begin, over = self._span(number)
                inside = slice(max(first, begin) - first, min(end, over) - first)
                yield Target(item, inside, self._batch(number), first + inside.start - begin, code)

    def _span(self, number: int) -> tuple[int, int]:
        """Return the first sample of a batch, and the one behind its last."""
        return int(self._cuts[number - 1]) if number else 0, int(self._cuts[number])

    def _batch(self, number: int) -> Arrays:
        """Return the arrays of a batch; they are made for its first sample."""
        with self._lock:
            if number not in self._open:
                begin, over = self._span(number)
                self._open[number] = self._make(over - begin)
            return self._open[number]

    def take(self, number: int) -> Arrays:
        """Hand over a batch whose blocks have all been read.

        Parameters
        ----------
        number : int
            Which.

        Returns
        -------
        dict
            Arrays by name.
        """
        return self._open.pop(number)
