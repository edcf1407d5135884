"""TIFFs on disk, read without GDAL: the head of a file once, then the bytes of its tiles."""

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cubekit.cube.looks import Looks
from cubekit.cube.resample import Window
from cubekit.cube.tiff import TiledTiff, UnusualTiffError, parse
from cubekit.cube.tile_decode import MAX_BYTES, Coding, coding_of, scratch
from cubekit.cube.tiles import read_tiles
from cubekit.typing import Array

if TYPE_CHECKING:
    from cubekit.cube.reader import Form

_HEAD_BYTES: Final = 16 * 2**10
_MAX_FILES: Final = 2048

_Stamp = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Known:
    """A file in one state."""

    stamp: _Stamp
    """What changes when it is written again or replaced."""

    head: TiledTiff
    coding: Coding


class LocalTiffs:
    """Heads of local files for all threads of a process."""

    def __init__(self) -> None:
        self._looks = Looks()
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def read(
        self, path: str, window: Window, form: "Form", check: Callable[[], float | None]
    ) -> tuple[Array, float | None]:
        """Read a window of one band.

        Parameters
        ----------
        path : str
            Of the file.
        window : Window
            Rows and columns.
        form : Form
            What the file should be.
        check : callable
            Raises where it is not, and returns what the file says means "no data"; not called for files
            that look like one that was checked.

        Returns
        -------
        tuple
            Stored numbers in native byte order, and which of them means "no data", if any does.

        Raises
        ------
        UnusualTiffError
            For files that only GDAL can read.
        OSError
            When there is no file, or it cannot be read.
        """
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            known = self._find(path, file)
            said = self._looks.compare(known.head, form, check)
            if known.coding.native != form.dtype:
                raise UnusualTiffError("GDAL gives its numbers another type")
            values = read_tiles(
                known.head,
                known.coding,
                window,
                form.band,
                content=lambda number: _content(file, known, number),
                state=known,
                fill=said,
            )
        finally:
            os.close(file)
        return values, said if form.nodata is None else form.nodata

    def _find(self, path: str, file: int) -> _Known:
        """Return what is known of a file, unless it has changed."""
        stamp = _stamp(file)
        with self._lock:
            known = self._known.get(path)
        if known is None or known.stamp != stamp:
            head = parse(_fetcher(file))
            coding = coding_of(head)
            if coding is None:
                raise UnusualTiffError("GDAL knows its compression")
            known = _Known(stamp, head, coding)
            with self._lock:
                self._known[path] = known
                if len(self._known) > _MAX_FILES:
                    self._known.popitem(last=False)
        return known


def _stamp(file: int) -> _Stamp:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise UnusualTiffError("not a file on disk")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _fetcher(file: int) -> Callable[[int, int], bytes]:
    """Return what gives parts of a file: the first ones from memory."""
    first = os.pread(file, _HEAD_BYTES, 0)

    def fetch(start: int, stop: int) -> bytes:
        found = first[start:stop] if stop <= len(first) else os.pread(file, stop - start, start)
        if len(found) < stop - start:
            raise UnusualTiffError("the file ends within its tags")
        return found

    return fetch


def _content(file: int, known: _Known, number: int) -> memoryview:
    place, size = int(known.head.offsets[number]), int(known.head.counts[number])
    if size > 2 * MAX_BYTES:
        raise UnusualTiffError("a tile is too large")
    content = scratch("encoded", size)
    if os.preadv(file, [content], place) < size:
        raise UnusualTiffError("the file ends within a tile")
    return content
