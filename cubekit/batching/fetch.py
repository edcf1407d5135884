"""Reading ahead: blocks come in threads, in order, and stay until their last item has been given out."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from cubekit.batching.part import Arrays
from cubekit.batching.schedule import Schedule
from cubekit.typing import IntArray

AHEAD = 2
"""Blocks being read beside those that are mixed."""

Load = Callable[[int, int, Arrays | None, ThreadPoolExecutor], tuple[Arrays, Any]]
"""Reads a block at a place of the order, with the rows left by the one before, some of it in other threads;
returns rows for the next one, and the block."""


class Fetch:
    """Blocks of a pass: read ahead in order, held until their last item has been given out.

    Parameters
    ----------
    order : Schedule
        What the pass gives out.
    runs : numpy.ndarray
        (block,) run of every block: within one, a block takes rows over from the one before.
    load : callable
        Reads a block.
    skipped : int
        Items at the beginning that are not given out.
    threads : int
        That read.
    """

    def __init__(self, order: Schedule, runs: IntArray, load: Load, *, skipped: int, threads: int) -> None:
        self._blocks, self._runs, self._load = order.blocks, runs, load
        last = order.last
        self._ending = np.argsort(last)
        self._last = last[self._ending]
        self._freed = int(np.searchsorted(self._last, skipped))
        self._needed = last >= skipped
        self._held: dict[int, Future[tuple[Arrays, Any]]] = {}
        self._tails: dict[int, Future[tuple[Arrays, Any]]] = {}  # the last of each run that is under way
        self._next = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cubekit-read")
        self._pieces = ThreadPoolExecutor(threads, thread_name_prefix="cubekit-piece")

    def __call__(self, place: int) -> Any:
        """Return the block at a place of the order, and see that those behind it are being read."""
        while self._next <= min(place + AHEAD, len(self._blocks) - 1):
            if self._needed[self._next] or self._leads(self._next):
                self._submit(self._next)
            self._next += 1
        return self._held[place].result()[1]

    def _leads(self, place: int) -> bool:
        """Tell whether a later block of the same run takes rows over from this one."""
        runs = self._runs[self._blocks]
        return bool((self._needed & (runs == runs[place]) & (np.arange(len(runs)) > place)).any())

    def _submit(self, place: int) -> None:
        block = int(self._blocks[place])
        run = int(self._runs[block])
        before = self._tails.get(run)
        reading = self._pool.submit(self._read, place, block, before)
        if self._needed[place]:
            self._held[place] = reading
        if block + 1 < len(self._runs) and self._runs[block + 1] == run:
            self._tails[run] = reading
        else:
            self._tails.pop(run, None)

    def _read(self, place: int, block: int, before: Future[tuple[Arrays, Any]] | None) -> tuple[Arrays, Any]:
        return self._load(place, block, None if before is None else before.result()[0], self._pieces)

    def done(self, position: int) -> None:
        """Let go of blocks that are over.

        Parameters
        ----------
        position : int
            Items given out so far.
        """
        while self._freed < len(self._last) and self._last[self._freed] < position:
            self._held.pop(int(self._ending[self._freed]), None)
            self._freed += 1

    def close(self) -> None:
        """End the threads; what they have not begun is left."""
        for pool in (self._pieces, self._pool):
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def reading(fetch: Fetch) -> Iterator[Fetch]:
    """End the threads of a pass with the pass.

    Parameters
    ----------
    fetch : Fetch
        Just made.

    Yields
    ------
    Fetch
        The same.
    """
    try:
        yield fetch
    finally:
        fetch.close()


def ahead(batches: Iterator[Any], depth: int, *, finish: Callable[[Any], Any] | None = None) -> Iterator[Any]:
    """Make items in a thread before they are asked for.

    Parameters
    ----------
    batches : iterator
        Where items come from.
    depth : int
        Items made beforehand.
    finish : callable, optional
        Makes what is given out of an item, in the same thread.

    Yields
    ------
    object
        The items.
    """
    end = object()

    def made() -> Any:
        item = next(batches, end)
        return item if item is end or finish is None else finish(item)

    pool = ThreadPoolExecutor(1, thread_name_prefix="cubekit-batch")
    waiting: deque[Future[Any]] = deque()
    try:
        waiting.extend(pool.submit(made) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(made))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(batches, "close", None)
        if close is not None:
            close()
