"""Windows put together from decoded tiles; what neighbouring windows need of a tile too is kept a while."""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np

from cubekit.cube.resample import Window
from cubekit.cube.tiff import Part, TiledTiff, UnusualTiffError
from cubekit.cube.tile_decode import Coding, Content, decode
from cubekit.typing import Array

DECODED_BYTES: Final = 96 * 2**20
"""Decoded tiles that one process keeps: those of which a window took only a part."""

RIM_BYTES: Final = 32 * 2**20
"""Rims of decoded tiles that one process keeps."""

RIM: Final = 2
"""Rows and columns of a rim: what kernels look at beyond their block."""

Key = tuple[object, int]
"""What a state of a file is known by, and the number of a tile."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Kept(Generic[T]):
    """Things made of tiles, for all threads of a process.

    What is dropped is drawn by lot: blocks come round again in the same order, and where their tiles are more
    than can be kept, the one used longest ago is the one that would be needed next.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._lot = random.Random(0)  # noqa: S311  (no secret)
        self._making: dict[Key, Future[T]] = {}
        self._things: dict[Key, T] = {}
        self._keys: list[Key] = []
        self._size = 0

    def find(self, key: Key) -> T | None:
        """Return what is there.

        Parameters
        ----------
        key : tuple
            Of the tile.

        Returns
        -------
        object or None
            Not to be changed; None where it is not there.
        """
        with self._lock:
            return self._things.get(key)

    def get(self, key: Key, make: Callable[[], T]) -> T:
        """Return what is there, or made by the first thread that wants it.

        Parameters
        ----------
        key : tuple
            Of the tile.
        make : callable
            Makes it.

        Returns
        -------
        object
            Not to be changed.
        """
        with self._lock:
            if key in self._things:
                return self._things[key]
            making = self._making.get(key)
            mine = making is None
            if making is None:
                making = self._making[key] = Future()
        if mine:
            try:
                thing = make()
                self.put(key, thing)
                making.set_result(thing)
            except BaseException as error:
                ours = isinstance(error, Exception)  # Ctrl-C is for one thread only
                making.set_exception(error if ours else UnusualTiffError("interrupted"))
                raise
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return making.result()

    def put(self, key: Key, thing: T) -> None:
        """Keep something, and drop others if need be.

        Parameters
        ----------
        key : tuple
            Of the tile.
        thing : object
            Not to be changed from now on.
        """
        with self._lock:
            if key in self._things:
                return
            self._things[key] = thing
            self._keys.append(key)
            self._size += thing.nbytes
            while self._size > self._limit:
                self._drop(self._lot.randrange(len(self._keys)))

    def drop(self, key: Key) -> None:
        """Make room.

        Parameters
        ----------
        key : tuple
            Of a tile that need not be kept.
        """
        with self._lock:
            if key in self._things:
                self._drop(self._keys.index(key))

    def _drop(self, place: int) -> None:
        self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
        self._size -= self._things.pop(self._keys.pop()).nbytes


@dataclass(frozen=True, eq=False)
class Rims:
    """The outermost rows and columns of a tile."""

    shape: tuple[int, int]
    sides: tuple[Array, Array, Array, Array]
    """Top, bottom, left, right."""

    @classmethod
    def of(cls, tile: Array) -> Self:
        """Copy them.

        Parameters
        ----------
        tile : numpy.ndarray
            Shape (rows, cols, samples).

        Returns
        -------
        Rims
            Of that tile.
        """
        sides = tile[:RIM], tile[-RIM:], tile[:, :RIM], tile[:, -RIM:]
        return cls((tile.shape[0], tile.shape[1]), tuple(side.copy() for side in sides))  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """Bytes, what Python needs for its objects included."""
        return sum(side.nbytes for side in self.sides) + 1000

    def part(self, rows: slice, cols: slice) -> Array | None:
        """Return a part of the tile.

        Parameters
        ----------
        rows, cols : slice
            Of the tile.

        Returns
        -------
        numpy.ndarray or None
            None where it reaches beyond the rim.
        """
        (top, bottom, left, right), (height, width) = self.sides, self.shape
        if rows.stop <= RIM:
            return top[rows, cols]
        if rows.start >= height - RIM:
            return bottom[rows.start - height + len(bottom) : rows.stop - height + len(bottom), cols]
        if cols.stop <= RIM:
            return left[rows, cols]
        if cols.start >= width - RIM:
            more = right.shape[1] - width
            return right[rows, cols.start + more : cols.stop + more]
        return None


_TILES: Kept[Array] = Kept(DECODED_BYTES)
_RIMS: Kept[Rims] = Kept(RIM_BYTES)


def read_tiles(
    head: TiledTiff,
    coding: Coding,
    window: Window,
    band: int,
    *,
    content: Callable[[int], Content],
    state: object,
    fill: float | None,
) -> Array:
    """Decode a window.

    Parameters
    ----------
    head : TiledTiff
        Of the file.
    coding : Coding
        Of its tiles.
    window : Window
        Rows and columns of the image.
    band : int
        One-based.
    content : callable
        Gives the encoded bytes of a tile by its number.
    state : object
        What the file, as it is now, is known by among kept tiles.
    fill : float or None
        What pixels of sparse tiles hold; 0 where the file does not say what means "no data".

    Returns
    -------
    numpy.ndarray
        Shape of the window, native byte order.

    Raises
    ------
    UnusualTiffError
        When a tile cannot be decoded: GDAL may know better, or say what is wrong.
    """
    if min(window.top, window.left) < 0 or window.bottom > head.shape[0] or window.right > head.shape[1]:
        raise UnusualTiffError("the window leaves the image")
    out = np.empty((window.bottom - window.top, window.right - window.left), coding.native)
    parts = list(head.parts(window, band))
    shared = not all(part.whole for part in parts)  # neighbouring windows will want parts of tiles as well
    sample = 0 if head.plane else band - 1
    for part in parts:
        place = out[part.window]
        if not (head.offsets[part.number] and head.counts[part.number]):
            place[...] = _sparse(head, part, 0.0 if fill is None else fill, coding)
            continue
        tile = _Tile(head, coding, part.number, content, (state, part.number))
        if part.whole and coding.samples == 1:
            tile.fill(place[..., None], shared=shared)
        else:
            place[...] = tile.part(*part.tile)[..., sample]
    return out


@dataclass(frozen=True, eq=False)
class _Tile:
    """A tile of a file."""

    head: TiledTiff
    coding: Coding
    number: int
    content: Callable[[int], Content]
    key: Key

    def fill(self, place: Array, *, shared: bool) -> None:
        """Decode all of it to where it is wanted, unless another thread or window has."""
        if not shared:
            self._decode(place)
            return
        mine = False

        def make() -> Rims:
            nonlocal mine
            mine = True
            self._decode(place)
            return Rims.of(place)

        _RIMS.get(self.key, make)
        if mine:
            return
        found = _TILES.find(self.key)
        if found is None:
            self._decode(place)
        else:
            place[...] = found
            _TILES.drop(self.key)  # its rim is enough from now on

    def part(self, rows: slice, cols: slice) -> Array:
        """Return a part of it; all of it is kept, for a neighbouring window will take more."""
        rims = _RIMS.get(self.key, lambda: Rims.of(self._whole()))
        found = rims.part(rows, cols)
        return self._whole()[rows, cols] if found is None else found

    def _whole(self) -> Array:
        return _TILES.get(self.key, self._make)

    def _make(self) -> Array:
        row, col = divmod(self.number % (self.head.across * self.head.down), self.head.across)
        rows = min(self.coding.tile[0], self.head.shape[0] - row * self.coding.tile[0])
        cols = min(self.coding.tile[1], self.head.shape[1] - col * self.coding.tile[1])
        tile = np.empty((rows, cols, self.coding.samples), self.coding.native)
        self._decode(tile)
        return tile

    def _decode(self, out: Array) -> None:
        decode(self.coding, self.content(self.number), out)


def _sparse(head: TiledTiff, part: Part, fill: float, coding: Coding) -> float:
    """Return what pixels of a tile hold that has no bytes."""
    if head.offsets[part.number] or head.counts[part.number]:
        raise UnusualTiffError("a tile has a place and no bytes, or the other way round")
    if coding.dtype.kind != "f":
        limits = np.iinfo(coding.dtype)
        if not (limits.min <= fill <= limits.max and fill == int(fill)):
            raise UnusualTiffError("sparse, and filled with what it cannot hold")
    return fill
