"""The head of a tiled TIFF: where its tiles lie, and a small TIFF of some of them, which GDAL decodes.

TIFF 6.0 and BigTIFF as GDAL's documentation describes them; only the first image is looked at.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
_MAX_ENTRIES: Final = 200
_MAX_TILES: Final = 2**22


class UnusualTiffError(ValueError):
    """A file that only GDAL itself can read."""


class ShortHeadError(ValueError):
    """The head goes on; ``stop`` says how many bytes it needs."""

    def __init__(self, stop: int) -> None:
        super().__init__(f"{stop} bytes are needed")
        self.stop = stop


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class TiledTiff:
    """What the head of a TIFF says of its first image."""

    order: str
    big: bool
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
        height, width = self.tile
        first = self.plane * (band - 1)
        if first >= len(self.offsets):
            return []
        rows = range(window.top // height, min(-(-window.bottom // height), self.down))
        cols = range(window.left // width, min(-(-window.right // width), self.across))
        numbers = [first + row * self.across + col for row in rows for col in cols]
        return [number for number in numbers if self.counts[number]]

    @property
    def look(self) -> tuple[bytes, ...]:
        """All that the tags say but where the tiles lie; equal for files that look alike."""
        return tuple(
            struct.pack("HHQ", entry.tag, entry.kind, entry.count) + entry.raw
            for entry in self.entries
            if entry.tag not in self.places
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


def parse(head: bytes) -> TiledTiff:
    """Read the head of a TIFF.

    Parameters
    ----------
    head : bytes
        From the start of the file.

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
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:  # noqa: PLR2004
        raise UnusualTiffError("not recognized as a TIFF")
    version = struct.unpack_from(f"{order}H", head, 2)[0]
    if version not in {42, 43}:
        raise UnusualTiffError("not recognized as a TIFF")
    big = version == 43  # noqa: PLR2004
    entries = _entries(head, order, big=big)
    by_tag = {entry.tag: entry for entry in entries}

    def numbers(tag: int, default: int | None = None) -> list[int]:
        entry = by_tag.get(tag)
        if entry is None or entry.kind not in _CODES:
            if entry is None and default is not None:
                return [default]
            raise UnusualTiffError(f"tag {tag} is missing or unusual")
        return list(struct.unpack(f"{order}{entry.count}{_CODES[entry.kind]}", entry.raw))

    width, height = numbers(_WIDTH)[0], numbers(_HEIGHT)[0]
    if _TILE_WIDTH in by_tag:
        tile, places = (numbers(_TILE_HEIGHT)[0], numbers(_TILE_WIDTH)[0]), _TILE_PLACES
    else:
        tile, places = (min(numbers(_STRIP_HEIGHT, height)[0], height), width), _STRIP_PLACES
    if not all((width, height, *tile)):
        raise UnusualTiffError("a size is 0")
    across, down = -(-width // tile[1]), -(-height // tile[0])
    apart = numbers(_PLANAR, 1)[0] == 2  # noqa: PLR2004
    total = across * down * (numbers(_SAMPLES, 1)[0] if apart else 1)
    offsets, counts = numbers(places[0]), numbers(places[1])
    if not len(offsets) == len(counts) == total <= _MAX_TILES:
        raise UnusualTiffError(f"{len(offsets)} tiles, {total} expected")
    return TiledTiff(
        order=order,
        big=big,
        entries=tuple(entries),
        places=places,
        tile=tile,
        across=across,
        down=down,
        plane=across * down if apart else 0,
        offsets=np.array(offsets, np.int64),
        counts=np.array(counts, np.int64),
    )


def _entries(head: bytes, order: str, *, big: bool) -> list[_Entry]:
    word, inline, start = ("Q", 8, 8) if big else ("I", 4, 4)
    (place,) = struct.unpack_from(f"{order}{word}", head, start)
    many = struct.Struct(f"{order}{'Q' if big else 'H'}")
    one = struct.Struct(f"{order}HH{word}")
    _reach(head, place + many.size)
    (count,) = many.unpack_from(head, place)
    if count > _MAX_ENTRIES:
        raise UnusualTiffError(f"{count} tags")
    place += many.size
    _reach(head, place + count * (one.size + inline))
    entries, needed = [], 0
    for _ in range(count):
        tag, kind, length = one.unpack_from(head, place)
        if kind not in _SIZES or length > _MAX_TILES:
            raise UnusualTiffError(f"tag {tag} of kind {kind}")
        size, at = _SIZES[kind] * length, place + one.size
        if size > inline:
            (at,) = struct.unpack_from(f"{order}{word}", head, at)
        needed = max(needed, at + size)
        entries.append(_Entry(tag, kind, length, head[at : at + size]))
        place += one.size + inline
    _reach(head, needed)
    return entries


def _reach(head: bytes, stop: int) -> None:
    if stop > len(head):
        raise ShortHeadError(stop)
