"""Tiles of TIFFs decoded by imagecodecs, about twice as fast as by GDAL; what it does not know stays GDAL's.

``CUBEKIT_DECODER=gdal`` in the environment leaves all decoding to GDAL, and so does a missing imagecodecs.
Compressions and predictors as in TIFF 6.0 and its Technical Notes 1 and 3 (Adobe, 1995 and 2005).
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import numpy as np

from cubekit.cube.tiff import TiledTiff, UnusualTiffError
from cubekit.typing import Array

MAX_BYTES: Final = 32 * 2**20
"""Largest tile that is decoded here; GDAL decodes strips of a whole scene line by line."""

KEPT_BYTES: Final = 4 * 2**20
"""Largest working array that a thread keeps for the next tile: fresh memory costs as much as decoding."""

Content: TypeAlias = bytes | bytearray | memoryview
"""Encoded bytes of a tile."""

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION = 258, 259, 262, 266, 274
_SAMPLES, _PLANAR, _PREDICTOR, _FORMAT = 277, 284, 317, 339
_PLAIN, _LZW, _ZSTD = 1, 5, 50000
_DECODERS: Final = {_LZW: "lzw_decode", 8: "deflate_decode", 32946: "deflate_decode", _ZSTD: "zstd_decode"}
_KINDS: Final = {(1, 8), (1, 16), (1, 32), (1, 64), (2, 8), (2, 16), (2, 32), (2, 64), (3, 32), (3, 64)}
_LETTERS: Final = {1: "u", 2: "i", 3: "f"}
_GREYS_AND_COLOURS: Final = {0, 1, 2, 3}  # others GDAL turns into colours
_DIFFERENCES, _FLOATS = 2, 3

_THREAD = threading.local()


class UndecodedTileError(UnusualTiffError):
    """A tile that is damaged or unusual: GDAL is asked, and says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How the tiles of a TIFF are encoded."""

    dtype: "np.dtype[Any]"
    """Of the numbers as they are stored, byte order included."""

    tile: tuple[int, int]
    """Rows and columns."""

    samples: int
    """Bands whose numbers alternate in a tile."""

    compression: int
    predictor: int

    @property
    def size(self) -> int:
        """Bytes of a decoded tile."""
        return self.tile[0] * self.tile[1] * self.samples * self.dtype.itemsize

    @property
    def native(self) -> "np.dtype[Any]":
        """Type of decoded numbers."""
        return self.dtype.newbyteorder("=")


def is_on() -> bool:
    """Tell whether tiles are decoded here: not without imagecodecs, nor with ``CUBEKIT_DECODER=gdal``.

    Returns
    -------
    bool
        False also where GDAL is set to look for files beside a TIFF, which may say something else of it.
    """
    asked = os.environ.get("CUBEKIT_DECODER", "").lower() != "gdal"
    return asked and "GDAL_DISABLE_READDIR_ON_OPEN" not in os.environ and _is_installed()


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    return find_spec("imagecodecs") is not None


def coding_of(head: TiledTiff) -> Coding | None:
    """Look up how the tiles of a file are encoded.

    Parameters
    ----------
    head : TiledTiff
        Of the file.

    Returns
    -------
    Coding or None
        None where only GDAL knows what to make of them.
    """
    try:
        return _coding(head)
    except UnusualTiffError:
        return None


def _coding(head: TiledTiff) -> Coding | None:
    samples = head.numbers(_SAMPLES, 1)[0]
    bits, formats = set(head.numbers(_BITS, 1)), set(head.numbers(_FORMAT, 1))
    compression = head.numbers(_COMPRESSION, _PLAIN)[0]
    predictor = 1 if compression == _PLAIN else head.numbers(_PREDICTOR, 1)[0]
    kind = (*formats, *bits)
    plain = head.numbers(_FILL_ORDER, 1) == (1,) and head.numbers(_ORIENTATION, 1) == (1,)
    if not plain or kind not in _KINDS or head.numbers(_PHOTOMETRIC, 1)[0] not in _GREYS_AND_COLOURS:
        return None
    if compression not in {_PLAIN, *_DECODERS} or predictor not in {1, _DIFFERENCES, _FLOATS}:
        return None
    if predictor == _FLOATS and formats != {3}:
        return None
    coding = Coding(
        dtype=np.dtype(f"{head.order}{_LETTERS[kind[0]]}{kind[1] // 8}"),
        tile=head.tile,
        samples=1 if head.plane else samples,
        compression=compression,
        predictor=predictor,
    )
    return coding if 0 < coding.size <= MAX_BYTES else None


def decode(coding: Coding, content: Content, out: Array) -> None:
    """Decode the upper left part of a tile.

    Parameters
    ----------
    coding : Coding
        Of the file.
    content : bytes
        Encoded tile.
    out : numpy.ndarray
        Shape (rows, cols, samples), as many rows and columns as are wanted, in the native dtype of the
        coding; changed in place.

    Raises
    ------
    UndecodedTileError
        When the bytes do not give the numbers that the tile should hold; `out` then holds anything.
    """
    rows, cols, _ = out.shape
    numbers = _unpacked(coding, content, rows)
    if coding.predictor == _FLOATS:  # mixes the bytes of a whole line
        numbers = _codec("floatpred_decode")(numbers, axis=1)
    numbers = numbers[:, :cols]
    if coding.predictor == _DIFFERENCES:
        whole = np.dtype(f"u{coding.dtype.itemsize}")  # of floats too the bits were subtracted
        steps = numbers.view(whole.newbyteorder(coding.dtype.byteorder)).astype(whole, copy=False)
        _codec("delta_decode")(steps, axis=1, out=out.view(whole))
    else:
        np.copyto(out, numbers)


def _unpacked(coding: Coding, content: Content, rows: int) -> Array:
    """Return the rows of a tile before the predictor is undone: valid until this thread's next tile."""
    shape = rows, coding.tile[1], coding.samples
    count = rows * coding.tile[1] * coding.samples
    needed = count * coding.dtype.itemsize
    plain = content if coding.compression == _PLAIN else _decompressed(coding, content)
    if len(plain) < needed:
        raise UndecodedTileError(f"a tile has {len(plain)} bytes, {needed} expected")
    return np.frombuffer(plain, coding.dtype, count).reshape(shape)


def _decompressed(coding: Coding, content: Content) -> Content:
    if coding.compression == _LZW and content[:1] == b"\0":  # bits in the order of TIFF 5.0
        raise UndecodedTileError("LZW as it was before TIFF 6.0")
    decoder = _codec(_DECODERS[coding.compression])
    try:
        plain: Content = decoder(content, out=scratch("plain", coding.size))
    except (RuntimeError, ValueError) as error:
        raise UndecodedTileError(f"{type(error).__name__}: {error}") from None
    return plain


def scratch(name: str, size: int) -> memoryview:
    """Return working memory of this thread.

    Parameters
    ----------
    name : str
        What it is for.
    size : int
        Bytes.

    Returns
    -------
    memoryview
        Holds anything; the same memory again when asked for the same name, unless it is large.
    """
    kept: bytearray | None = getattr(_THREAD, name, None)
    if kept is None or len(kept) < size:
        kept = bytearray(size)
        if size <= KEPT_BYTES:
            setattr(_THREAD, name, kept)
    return memoryview(kept)[:size]


@lru_cache(maxsize=8)
def _codec(name: str) -> Callable[..., Any]:
    import imagecodecs

    return getattr(imagecodecs, name)  # type: ignore[no-any-return]
