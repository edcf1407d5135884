"""Open files, kept for the next block: each serves one thread at a time, and idle ones are bounded."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from rasterio.io import DatasetReader

MAX_IDLE: Final = 128
"""Open files that wait for another block."""

MAX_SECONDS: Final = 60.0
"""An idle file is not used again after this time: signatures end, and files are replaced."""

Key = tuple[str, ...]
"""What a file is known by; never a signed address."""

_Stamp = tuple[int, ...]


@dataclass
class Lent:
    """An open file."""

    file: DatasetReader
    checked: object = None
    """What the file has been compared with, so that this need not be done again."""


_Idle = tuple[Lent, float, _Stamp]


class Handles:
    """A pool of open files for all threads of a process.

    Parameters
    ----------
    limit : int, optional
        Most idle files.
    """

    def __init__(self, limit: int = MAX_IDLE) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: OrderedDict[Key, list[_Idle]] = OrderedDict()
        self._process = os.getpid()

    @contextmanager
    def borrow(self, key: Key, path: str, opener: Callable[[], Any], *, keep: bool = True) -> Iterator[Lent]:
        """Lend an open file; after a failure it is closed, never lent again.

        Parameters
        ----------
        key : tuple of str
            What the file is known by.
        path : str
            Of a local file, whose size, time and number must be what they were; empty for others.
        opener : callable
            Opens it if no idle one is there; returns a `DatasetReader`, or what reads like one.
        keep : bool, optional
            Whether it may wait for the next block; files of formats without threads may not.

        Yields
        ------
        Lent
            For this thread alone until the block ends.
        """
        stamp = _stamp(path)
        lent = self._take(key, stamp) if keep else None
        if lent is None:
            lent = Lent(opener())
        try:
            yield lent
        except BaseException:
            lent.file.close()
            self.forget(key)
            raise
        if keep:
            self._give(key, lent, stamp)
        else:
            lent.file.close()

    def forget(self, key: Key) -> None:
        """Close what is idle of a file that has failed or changed.

        Parameters
        ----------
        key : tuple of str
            What the file is known by.
        """
        with self._lock:
            dropped = self._idle.pop(key, [])
        for lent, _, _ in dropped:
            lent.file.close()

    def clear(self) -> None:
        """Close all idle files."""
        with self._lock:
            dropped, self._idle = self._idle, OrderedDict()
        for files in dropped.values():
            for lent, _, _ in files:
                lent.file.close()

    def _take(self, key: Key, stamp: _Stamp) -> Lent | None:
        with self._lock:
            if self._process != os.getpid():  # forked: the parent's files are not ours to share
                self._idle, self._process = OrderedDict(), os.getpid()
            files = self._idle.get(key)
            found = files.pop() if files else None
            if files is not None and not files:
                del self._idle[key]
        if found is None:
            return None
        lent, since, known = found
        if known == stamp and time.monotonic() - since < MAX_SECONDS:
            return lent
        lent.file.close()
        self.forget(key)
        return None

    def _give(self, key: Key, lent: Lent, stamp: _Stamp) -> None:
        dropped: list[_Idle] = []
        with self._lock:
            self._idle.setdefault(key, []).append((lent, time.monotonic(), stamp))
            self._idle.move_to_end(key)
            while sum(map(len, self._idle.values())) > self._limit:
                oldest = next(iter(self._idle))
                dropped.append(self._idle[oldest].pop(0))
                if not self._idle[oldest]:
                    del self._idle[oldest]
        for old, _, _ in dropped:
            old.file.close()


def _stamp(path: str) -> _Stamp:
    """Return what changes when a local file is written again or replaced."""
    if not path:
        return ()
    try:
        found = os.stat(path)  # noqa: PTH116  (called for every window)
    except OSError:
        return (-1,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
