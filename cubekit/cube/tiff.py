"""The head of a tiled TIFF: where its tiles lie, and a small TIFF of some of them for GDAL.

TIFF 6.0 and BigTIFF as GDAL's documentation describes them; only the first image is looked at.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from cubekit.cube.resample import Window
from cubekit.typing import IntArray

_SIZES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_CODES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _SAMPLES, _PLANAR = 256, 257, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_PLACES = 322, 323, (324, 325)
_STRIP_HEIGHT, _STRIP_PLACES = 278, (273, 279)
_CRS: Final = frozenset({34735, 34736, 34737, 42112})  # GeoTIFF keys, and GDAL's own notes
_DATE: Final = 306  # of writing; files that differ in nothing else look alike
_MAX_ENTRIES: Final = 200
_MAX_TILES: Final = 2**22
_MAX_BYTES: Final = 2**27  # of all tags together
_MAX_PLACE: Final = 2**62

Fetch = Callable[[int, int], bytes]
"""Gives the bytes of a file from one place to another, all of them."""


class UnusualTiffError(ValueError):
    """A file that only GDAL itself can read."""


class ShortHeadError(ValueError):
    """The head goes on; ``stop`` says how many bytes it needs.

    Parameters
    ----------
    stop : int
        The bytes.
    """

    def __init__(self, stop: int) -> None:
        super().__init__(f"{stop} bytes are needed")
        self.stop = stop


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    raw: bytes


class Part(NamedTuple):
    """What a window takes of one tile."""

    number: int
    """Of the tile."""

    tile: tuple[slice, slice]
    """Rows and columns of the tile."""

    window: tuple[slice, slice]
    """Rows and columns of the window."""

    whole: bool
    """Whether that is all of the tile that lies in the image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiledTiff:
    """What the head of a TIFF says of its first image."""

    order: str
    big: bool
    shape: tuple[int, int]
    """Rows and columns of the image."""

    entries: tuple[_Entry, ...]
    places: tuple[int, int]
    """Tags of offsets and sizes of the tiles; strips are tiles as wide as the image."""

    tile: tuple[int, int]
    """Rows and columns."""

    across: int
    """Tiles in a row of tiles."""

    down: int
    """Tiles in a column."""

    plane: int
    """Tiles of one band where bands lie apart, else 0."""

    offsets: IntArray
    counts: IntArray

    def tiles(self, window: Window, band: int) -> list[int]:
        """Return the numbers of the tiles that a window needs.

        Parameters
        ----------
        window : Window
            Rows and columns of the image.
        band : int
            One-based.

        Returns
        -------
        list of int
            Those that are there and hold bytes; others are sparse.
        """
        return [part.number for part in self.parts(window, band) if self.counts[part.number]]

    def parts(self, window: Window, band: int) -> Iterator[Part]:
        """Cut a window into what it takes of each tile.

        Parameters
        ----------
        window : Window
            Rows and columns; what lies beyond the image is left out.
        band : int
            One-based; a file without it has no tiles for it.

        Yields
        ------
        Part
            From the upper left to the lower right.
        """
        height, width = self.tile
        first = self.plane * (band - 1)
        if first >= len(self.offsets):
            return
        rows = range(window.top // height, min(-(-window.bottom // height), self.down))
        cols = range(window.left // width, min(-(-window.right // width), self.across))
        across = [_shared(col * width, width, self.shape[1], window.left, window.right) for col in cols]
        for row in rows:
            down = _shared(row * height, height, self.shape[0], window.top, window.bottom)
            for col, along in zip(cols, across, strict=True):
                number = first + row * self.across + col
                both = (down[0], along[0]), (down[1], along[1])
                yield Part(number, *both, down[2] and along[2])

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """Return what a tag of whole numbers says.

        Parameters
        ----------
        tag : int
            Its number.
        *default : int
            What holds without it.

        Returns
        -------
        tuple of int
            At least one.

        Raises
        ------
        UnusualTiffError
            When the tag lacks and has no default, or is of another kind.
        """
        return _numbers(self._by_tag, self.order, tag, *default)

    @cached_property
    def _by_tag(self) -> dict[int, _Entry]:
        return {entry.tag: entry for entry in self.entries}

    @cached_property
    def look(self) -> tuple[bytes, ...]:
        """All that the tags say but where the tiles lie and when; equal for files that look alike."""
        start = self.order.encode() + bytes([self.big])
        return start, *(
            struct.pack("HHQ", entry.tag, entry.kind, entry.count) + entry.raw
            for entry in self.entries
            if entry.tag not in {*self.places, _DATE}
        )

    def with_tiles(self, tiles: Mapping[int, bytes | memoryview], *, lean: bool = False) -> bytes:
        """Return a TIFF of the same image in which only some tiles hold bytes.

        Parameters
        ----------
        tiles : mapping
            Their encoded bytes by number.
        lean : bool, optional
            Leave the CRS out: to make sense of it takes GDAL longer than to decode a tile.

        Returns
        -------
        bytes
            A whole file: same tags, sparse elsewhere.
        """
        inline, word = (8, "Q") if self.big else (4, "I")
        entries = [entry for entry in self.entries if not (lean and entry.tag in _CRS)]
        start = (16 + 8 + 20 * len(entries) + 8) if self.big else (8 + 2 + 12 * len(entries) + 4)
        offsets, counts = np.zeros((2, len(self.offsets)), np.uint64)
        size = sum(_padded(len(entry.raw)) for entry in entries) + 2 * _padded(8 * len(offsets))
        position = first = start + size  # never too small: what is left over stays empty
        for number, content in tiles.items():
            offsets[number], counts[number] = position, len(content)
            position += len(content)
        table, body = bytearray(), bytearray()
        for entry in entries:
            kind, raw = entry.kind, entry.raw
            if entry.tag in self.places:
                found = (offsets, counts)[self.places.index(entry.tag)]
                kind, raw = (16, 4)[not self.big], found.astype(f"{self.order}u{inline}").tobytes()
            table += struct.pack(f"{self.order}HH{word}", entry.tag, kind, entry.count)
            if len(raw) <= inline:
                table += raw.ljust(inline, b"\0")
            else:
                table += struct.pack(f"{self.order}{word}", start + len(body))
                body += raw.ljust(_padded(len(raw)), b"\0")
        top, end = _frame(self.order, len(entries), big=self.big)
        return b"".join([top, table, end, body.ljust(first - start, b"\0"), *tiles.values()])


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _frame(order: str, entries: int, *, big: bool) -> tuple[bytes, bytes]:
    """Return what stands before the table of tags, and after it: that no other image follows."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        return mark + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, entries), bytes(8)
    return mark + struct.pack(f"{order}HIH", 42, 8, entries), bytes(4)


def _shared(start: int, size: int, full: int, low: int, high: int) -> tuple[slice, slice, bool]:
    """Return what tile and window share along one axis: of the tile, of the window, whether all there is."""
    stop = min(start + size, full)
    first, last = max(start, low), min(stop, high)
    return slice(first - start, last - start), slice(first - low, last - low), (first, last) == (start, stop)


def parse(head: bytes | Fetch) -> TiledTiff:
    """Read the head of a TIFF.

    Parameters
    ----------
    head : bytes or callable
        From the start of the file; or what gives any part of it.

    Returns
    -------
    TiledTiff
        Of the first image.

    Raises
    ------
    ShortHeadError
        When the tags go on beyond `head`.
    UnusualTiffError
        When the file is no tiled TIFF that can be cut up.
    """
    fetch = _from(head) if isinstance(head, bytes) else head
    try:
        start = fetch(0, 16)
    except ShortHeadError:
        raise UnusualTiffError("not recognized as a TIFF") from None
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        raise UnusualTiffError("not recognized as a TIFF")
    version = struct.unpack_from(f"{order}H", start, 2)[0]
    if version not in {42, 43}:
        raise UnusualTiffError("not recognized as a TIFF")
    big = version == 43  # noqa: PLR2004
    entries = _entries(fetch, start, order, big=big)
    by_tag = {entry.tag: entry for entry in entries}
    if len(by_tag) < len(entries):
        raise UnusualTiffError("a tag is there twice")

    def number(tag: int, *default: int) -> int:
        return _numbers(by_tag, order, tag, *default)[0]

    width, height = number(_WIDTH), number(_HEIGHT)
    if _TILE_WIDTH in by_tag:
        tile, places = (number(_TILE_HEIGHT), number(_TILE_WIDTH)), _TILE_PLACES
    else:
        tile, places = (min(number(_STRIP_HEIGHT, height), height), width), _STRIP_PLACES
    if not all((width, height, *tile)):
        raise UnusualTiffError("a size is 0")
    across, down = -(-width // tile[1]), -(-height // tile[0])
    apart = number(_PLANAR, 1) == 2  # noqa: PLR2004
    total = across * down * (number(_SAMPLES, 1) if apart else 1)
    offsets, counts = (np.array(_numbers(by_tag, order, tag), np.uint64) for tag in places)
    if not len(offsets) == len(counts) == total <= _MAX_TILES:
        raise UnusualTiffError(f"{len(offsets)} tiles, {total} expected")
    if max(offsets.max(), counts.max()) >= _MAX_PLACE:
        raise UnusualTiffError("a tile lies beyond any file")
    return TiledTiff(
        order=order,
        big=big,
        shape=(height, width),
        entries=tuple(entries),
        places=places,
        tile=tile,
        across=across,
        down=down,
        plane=across * down if apart else 0,
        offsets=offsets.astype(np.int64),
        counts=counts.astype(np.int64),
    )


def _from(head: bytes) -> Fetch:
    def fetch(start: int, stop: int) -> bytes:
        if stop > len(head):
            raise ShortHeadError(stop)
        return head[start:stop]

    return fetch


def _numbers(by_tag: Mapping[int, _Entry], order: str, tag: int, *default: int) -> tuple[int, ...]:
    entry = by_tag.get(tag)
    if entry is None and default:
        return default
    if entry is None or entry.kind not in _CODES or not entry.count:
        raise UnusualTiffError(f"tag {tag} is missing or unusual")
    return struct.unpack(f"{order}{entry.count}{_CODES[entry.kind]}", entry.raw)


def _entries(fetch: Fetch, top: bytes, order: str, *, big: bool) -> list[_Entry]:
    word, inline, start = ("Q", 8, 8) if big else ("I", 4, 4)
    (place,) = struct.unpack_from(f"{order}{word}", top, start)
    many = struct.Struct(f"{order}{'Q' if big else 'H'}")
    one = struct.Struct(f"{order}HH{word}")
    (count,) = many.unpack(fetch(place, place + many.size))
    if count > _MAX_ENTRIES:
        raise UnusualTiffError(f"{count} tags")
    place += many.size
    step = one.size + inline
    table = fetch(place, place + count * step)
    found = []
    for at in range(0, len(table), step):
        tag, kind, length = one.unpack_from(table, at)
        if kind not in _SIZES or length > _MAX_TILES:
            raise UnusualTiffError(f"tag {tag} of kind {kind}")
        raw, size = table[at + one.size : at + step], _SIZES[kind] * length
        first = struct.unpack(f"{order}{word}", raw)[0] if size > inline else None
        found.append((tag, kind, length, raw[:size], first, size))
    outside = [first + size for *_, first, size in found if first is not None]
    if sum(size for *_, size in found) > _MAX_BYTES or max(outside, default=0) > _MAX_PLACE:
        raise UnusualTiffError("its tags do not end")
    if outside:
        fetch(max(outside) - 1, max(outside))  # says at once how far the head goes
    return [
        _Entry(tag, kind, length, raw if first is None else fetch(first, first + size))
        for tag, kind, length, raw, first, size in found
    ]
