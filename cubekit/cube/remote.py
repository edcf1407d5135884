"""TIFFs on the web: the head is read once, tiles that lie near each other in one request, both kept a while.

GDAL asks anew for the head of each file that it opens and for each row of tiles, and remembers failures. Here
the bytes come through our own client. What :mod:`cubekit.cube.tile_decode` does not know, GDAL decodes from a
small TIFF in memory that holds the wanted tiles.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rasterio.io import DatasetReader, MemoryFile

from cubekit.cube import tile_decode
from cubekit.cube.gdal import many_reads
from cubekit.cube.http import Answer, HttpError, get_range
from cubekit.cube.looks import Looks
from cubekit.cube.resample import Window
from cubekit.cube.tiff import ShortHeadError, TiledTiff, UnusualTiffError, parse
from cubekit.cube.tile_decode import Coding, coding_of
from cubekit.cube.tiles import read_tiles
from cubekit.typing import Array

if TYPE_CHECKING:
    from cubekit.cube.reader import Form

HEAD_BYTES: Final = 32 * 2**10
"""First request to a file: the tags of a COG of 10,000 pixels a side, tables of tiles included."""

GAP_BYTES: Final = 512 * 2**10
"""Bytes between two tiles that are read along rather than asking twice: what a network carries in the time
of one request."""

CACHE_BYTES: Final = 64 * 2**20
"""Encoded bytes that one process keeps for neighbouring blocks."""

FEW_FILES: Final = 8
"""Files whose tiles are read together, before they are asked for, where all will be."""

ALONG_BYTES: Final = CACHE_BYTES // FEW_FILES
"""Bytes of one file that are read so: those of a few files can be kept."""

MAX_REQUEST: Final = 2**30
"""Bytes of the tiles of one window; beyond it a file is taken for damaged."""

_KEEP_SECONDS: Final = 600.0
_MAX_FILES: Final = 4096

Key = tuple[str, str]
"""Unsigned address and signer."""

_Place = tuple[int, int]


@dataclass(eq=False)
class _Span:
    """Bytes of a file that are here or on their way."""

    start: int
    stop: int
    content: "Future[bytes]" = field(default_factory=Future)


@dataclass(eq=False)
class TiffFile:
    """What is known of a file."""

    head: TiledTiff
    coding: Coding | None
    """None where GDAL decodes its tiles."""

    size: int
    etag: str
    since: float
    spans: list[_Span] = field(default_factory=list)


class Files:
    """Heads and bytes of remote files for all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[Key, Future[TiffFile]] = OrderedDict()
        self._kept: OrderedDict[tuple[Key, int, int], int] = OrderedDict()
        self._looks = Looks()
        self._process = os.getpid()

    def forget(self, key: Key) -> None:
        """Drop what is known of a file.

        Parameters
        ----------
        key : tuple of str
            What it is known by.
        """
        with self._lock:
            self._files.pop(key, None)
            for span in [span for span in self._kept if span[0] == key]:
                del self._kept[span]

    def read(
        self,
        key: Key,
        url: str,
        window: Window,
        form: "Form",
        *,
        check: Callable[[DatasetReader], None],
        around: Window | None = None,
    ) -> tuple[Array, float | None]:
        """Read a window of one band.

        Parameters
        ----------
        key : tuple of str
            What the file is known by.
        url : str
            Signed address.
        window : Window
            Rows and columns.
        form : Form
            What the file should be.
        check : callable
            Gets the file with all its tags and no pixels, and raises where it is not; called once for files
            that look alike.
        around : Window, optional
            What neighbouring blocks will soon ask for: read along if it is not much.

        Returns
        -------
        tuple
            Stored numbers in native byte order, and which of them means "no data", if any does.

        Raises
        ------
        HttpError
            When the server does not give what is asked for, or the file has changed since its head was read.
        UnusualTiffError
            For files that only GDAL itself can read.
        """
        file = self._head(key, url)
        said = self._looks.compare(file.head, form, lambda: _checked(file.head, form.band, check))
        numbers = file.head.tiles(window, form.band)
        more = [] if around is None else _places(file.head, file.head.tiles(around, form.band))
        places = _places(file.head, numbers)
        if sum(stop - start for start, stop in places) > MAX_REQUEST or any(b > file.size for _, b in places):
            raise UnusualTiffError("tiles lie beyond the end of the file, or are too large")
        contents = self._bytes(key, file, url, places, more)
        tiles = dict(zip(numbers, contents, strict=True))
        return _decoded(file, window, form, tiles, said), said if form.nodata is None else form.nodata

    def _head(self, key: Key, url: str) -> TiffFile:
        """Return the record of a file; threads that want it at once share one request."""
        with self._lock:
            if self._process != os.getpid():
                self._files, self._kept, self._process = OrderedDict(), OrderedDict(), os.getpid()
            known = self._files.get(key)
            if known is not None and known.done() and _old(known):
                known = None
            mine = known is None
            if known is None:
                known = self._files[key] = Future()
                while len(self._files) > _MAX_FILES:
                    self._files.popitem(last=False)
        if mine:
            try:
                known.set_result(self._read_head(key, url))
            except BaseException as error:
                self.forget(key)
                known.set_exception(error)
                raise
        return known.result()

    def _read_head(self, key: Key, url: str) -> TiffFile:
        stop = HEAD_BYTES
        for _ in range(4):
            answer = get_range(url, 0, stop)
            if answer.content.lstrip()[:1] == b"<":
                raise HttpError("not recognized as a raster: the server sent a document")
            try:
                head = parse(answer.content)
            except ShortHeadError as short:
                if short.stop > answer.size:
                    raise UnusualTiffError("the file ends within its tags") from None
                stop = min(max(short.stop, 2 * stop), answer.size)
                continue
            file = TiffFile(head, coding_of(head), answer.size, answer.etag, time.monotonic())
            self._keep(key, file, answer)
            return file
        raise UnusualTiffError("its tags do not end")

    def _bytes(
        self, key: Key, file: TiffFile, url: str, places: list[_Place], more: list[_Place]
    ) -> list[memoryview]:
        """Return parts of a file, those that are here or on their way included."""
        mine: list[_Span] = []
        with self._lock:
            lacking = _lacking(file.spans, places)
            along = _lacking(file.spans, more) if lacking else []
            if sum(stop - start for start, stop in _merged(along)) <= ALONG_BYTES:
                lacking = sorted({*lacking, *along})
            for start, stop in _merged(lacking):
                mine.append(_Span(start, stop))
                file.spans.append(mine[-1])
            found = [_find(file.spans, place) for place in places]
        for span in mine[1:]:
            _pool(os.getpid()).submit(self._fetch, key, file, url, span)
        for span in mine[:1]:
            self._fetch(key, file, url, span)
        return [
            memoryview(span.content.result())[start - span.start : stop - span.start]
            for (start, stop), span in zip(places, found, strict=True)
            if span is not None
        ]

    def _fetch(self, key: Key, file: TiffFile, url: str, span: _Span) -> None:
        """Read a part of a file, and tell all who wait for it how that went."""
        try:
            answer = get_range(url, span.start, span.stop)
            self._compare(key, file, answer)
        except BaseException as error:  # noqa: BLE001  (raised again where the bytes are wanted)
            with self._lock:
                file.spans.remove(span)
            span.content.set_exception(error)
        else:
            span.content.set_result(answer.content[span.start - answer.start : span.stop - answer.start])
            self._count(key, file, span)

    def _compare(self, key: Key, file: TiffFile, answer: Answer) -> None:
        """Refuse to mix two states of a file."""
        changed = answer.size != file.size or (answer.etag and file.etag and answer.etag != file.etag)
        if changed:
            self.forget(key)
            raise ChangedError(
                f"the file was replaced while it was read (size {file.size:,}, now {answer.size:,}"
                f"{'' if answer.etag == file.etag else '; its ETag changed'})"
            )

    def _keep(self, key: Key, file: TiffFile, answer: Answer) -> None:
        """Keep bytes that came with the head."""
        span = _Span(answer.start, answer.start + len(answer.content))
        span.content.set_result(answer.content)
        file.spans.append(span)
        self._count(key, file, span)

    def _count(self, key: Key, file: TiffFile, span: _Span) -> None:
        """Drop the bytes that were read longest ago beyond what may be kept."""
        with self._lock:
            self._kept[key, span.start, span.stop] = span.stop - span.start
            while sum(self._kept.values()) > CACHE_BYTES and len(self._kept) > 1:
                (other, start, stop), _ = self._kept.popitem(last=False)
                known = file if other == key else _done(self._files.get(other))
                if known is not None:
                    known.spans[:] = [s for s in known.spans if (s.start, s.stop) != (start, stop)]


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001  (a forked process gets threads of its own)
    return ThreadPoolExecutor(16, "cubekit-range")


class ChangedError(HttpError):
    """A file is no longer the one whose head was read."""


def _checked(head: TiledTiff, band: int, check: Callable[[DatasetReader], None]) -> float | None:
    """Check a file, and return what it says means "no data"."""
    with _decoder(head.with_tiles({})) as data:
        check(data)
        said = data.nodatavals[band - 1]
    return None if said is None else float(said)


def _decoded(
    file: TiffFile, window: Window, form: "Form", tiles: Mapping[int, memoryview], said: float | None
) -> Array:
    coding = file.coding if tile_decode.is_on() else None
    if coding is not None and coding.native == form.dtype:
        with suppress(UnusualTiffError):  # GDAL may know what to make of it, or what is wrong
            return read_tiles(
                file.head, coding, window, form.band, content=tiles.__getitem__, state=file, fill=said
            )
    with _decoder(file.head.with_tiles(tiles, lean=True)) as data:
        part = ((window.top, window.bottom), (window.left, window.right))
        values: Array = data.read(form.band, window=part)
    return values


@contextmanager
def _decoder(content: bytes) -> Iterator[DatasetReader]:
    # MemoryFile.open would look for credentials of clouds first.
    with (
        many_reads(),
        MemoryFile(content) as memory,
        DatasetReader(memory.name, driver=["GTiff"], sharing=False) as data,
    ):
        yield data


def _old(known: "Future[TiffFile]") -> bool:
    file = _done(known)
    return file is None or time.monotonic() - file.since > _KEEP_SECONDS


def _done(known: "Future[TiffFile] | None") -> TiffFile | None:
    return known.result() if known is not None and known.done() and known.exception() is None else None


def _places(head: TiledTiff, numbers: list[int]) -> list[_Place]:
    return [(int(head.offsets[n]), int(head.offsets[n] + head.counts[n])) for n in numbers]


def _lacking(spans: list[_Span], places: list[_Place]) -> list[_Place]:
    return sorted(place for place in places if _find(spans, place) is None)


def _find(spans: list[_Span], place: _Place) -> _Span | None:
    return next((span for span in spans if span.start <= place[0] and place[1] <= span.stop), None)


def _merged(places: list[_Place]) -> list[_Place]:
    """Join parts that lie near each other."""
    joined: list[_Place] = []
    for start, stop in places:
        if joined and start - joined[-1][1] <= GAP_BYTES:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def is_remote(href: str) -> bool:
    """Tell whether an address leads over a network.

    Parameters
    ----------
    href : str
        Address or path.

    Returns
    -------
    bool
        False for paths and ``file://``.
    """
    return "://" in href and not href.startswith("file://")
