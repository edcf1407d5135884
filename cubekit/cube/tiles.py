"""Windows put together from decoded tiles; tiles that neighbouring windows need too are kept a while."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import numpy as np

from cubekit.cube.resample import Window
from cubekit.cube.tiff import Part, TiledTiff, UnusualTiffError
from cubekit.cube.tile_decode import Coding, Content, decode
from cubekit.typing import Array

DECODED_BYTES: Final = 64 * 2**20
"""Decoded tiles that one process keeps: those of which a window took only a part."""

Key = tuple[object, int]
"""What a state of a file is known by, and the number of a tile."""


class DecodedTiles:
    """Decoded tiles for all threads of a process, the ones used last.

    Parameters
    ----------
    limit : int, optional
        Bytes.
    """

    def __init__(self, limit: int = DECODED_BYTES) -> None:
        self._limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Key, Future[Array]] = OrderedDict()
        self._size = 0

    def find(self, key: Key) -> Array | None:
        """Return a tile that is there.

        Parameters
        ----------
        key : tuple
            Of the tile.

        Returns
        -------
        numpy.ndarray or None
            Not to be changed; None where it is not there, or another thread still decodes it.
        """
        with self._lock:
            found = self._tiles.get(key)
        return found.result() if found is not None and found.done() else None

    def get(self, key: Key, make: Callable[[], Array]) -> Array:
        """Return a tile, decoded by the first thread that wants it.

        Parameters
        ----------
        key : tuple
            Of the tile.
        make : callable
            Decodes it.

        Returns
        -------
        numpy.ndarray
            Not to be changed.
        """
        with self._lock:
            found = self._tiles.get(key)
            mine = found is None
            if found is None:
                found = self._tiles[key] = Future()
            self._tiles.move_to_end(key)
        if mine:
            try:
                tile = make()
            except BaseException as error:
                with self._lock:
                    self._tiles.pop(key, None)
                ours = isinstance(error, Exception)  # Ctrl-C is for one thread only
                found.set_exception(error if ours else UnusualTiffError("interrupted"))
                raise
            found.set_result(tile)
            self._count(tile.nbytes)
        return found.result()

    def _count(self, more: int) -> None:
        with self._lock:
            self._size += more
            for key, kept in list(self._tiles.items()):
                if self._size <= self._limit:
                    return
                if kept.done():
                    del self._tiles[key]
                    self._size -= kept.result().nbytes


_KEPT = DecodedTiles()


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
    sample = 0 if head.plane else band - 1
    for part in head.parts(window, band):
        place = out[part.window]
        if not (head.offsets[part.number] and head.counts[part.number]):
            place[...] = _sparse(head, part, 0.0 if fill is None else fill, coding)
            continue
        key = state, part.number
        tile = _KEPT.find(key)
        if tile is None and part.whole and coding.samples == 1:
            decode(coding, content(part.number), place[..., None])
            continue
        if tile is None:
            tile = _KEPT.get(key, lambda part=part: _decoded(head, coding, part, content))  # type: ignore[misc]
        place[...] = tile[(*part.tile, sample)]
    return out


def _decoded(head: TiledTiff, coding: Coding, part: Part, content: Callable[[int], Content]) -> Array:
    """Decode all of a tile that lies in the image."""
    row, col = divmod(part.number % (head.across * head.down), head.across)
    rows = min(coding.tile[0], head.shape[0] - row * coding.tile[0])
    cols = min(coding.tile[1], head.shape[1] - col * coding.tile[1])
    tile = np.empty((rows, cols, coding.samples), coding.native)
    decode(coding, content(part.number), tile)
    return tile


def _sparse(head: TiledTiff, part: Part, fill: float, coding: Coding) -> float:
    """Return what pixels of a tile hold that has no bytes."""
    if head.offsets[part.number] or head.counts[part.number]:
        raise UnusualTiffError("a tile has a place and no bytes, or the other way round")
    if coding.dtype.kind != "f":
        limits = np.iinfo(coding.dtype)
        if not (limits.min <= fill <= limits.max and fill == int(fill)):
            raise UnusualTiffError("sparse, and filled with what it cannot hold")
    return fill
