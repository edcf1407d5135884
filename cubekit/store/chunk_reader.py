"""Windows of a stored array, chunk by chunk: read, checked, and decoded straight into their place.

Zarr's own reader takes every chunk through an event loop and several copies; here a chunk costs little more
than decompressing it, and other threads go on meanwhile. Values and checks are the same as zarr-python's. How
to decode is read from the array's metadata; a layout that is not known here is left to Zarr.
``CUBEKIT_CHUNK_READER=0`` in the environment leaves all of them to Zarr.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd

from cubekit.errors import StoreError
from cubekit.store.blosc_blocks import blocks_of
from cubekit.store.objects import InsideView, WholeView
from cubekit.store.parts import Parts, Span, opened
from cubekit.typing import Array, IntArray

Window = tuple[slice, ...]

_ABSENT = 2**64 - 1
_CHECKSUM = 4
_BLOSC_HEAD = 16
_COMPRESSED = ((), ("crc32c",), ("blosc",), ("blosc", "crc32c"), ("zstd",), ("zstd", "crc32c"))


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How an array is stored."""

    shape: tuple[int, ...]
    objects: tuple[int, ...]
    chunks: tuple[int, ...]
    stored: np.dtype[Any]
    """Type of the numbers, with the order of their bytes."""
    steps: tuple[str, ...]
    """What was done to the bytes of a chunk, in this order."""
    index: "_Index | None"
    """Where the chunks of a shard are listed; None where an object is one chunk."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks in an object along each dimension."""
        return tuple(whole // part for whole, part in zip(self.objects, self.chunks, strict=True))


class _Index(NamedTuple):
    """Where a shard lists its chunks."""

    first: bool
    checked: bool


class _Part(NamedTuple):
    """What a window wants of one chunk."""

    place: tuple[int, ...]
    """Of the chunk in its object."""
    within: Window
    """Part of the chunk."""
    target: Window
    """Where it goes in the result."""


class ChunkReader:
    """Reads windows of one array; several threads may use one reader.

    Get one by :meth:`of`, which knows where it may be used.

    Parameters
    ----------
    array : zarr.Array
        Opened; only its metadata is used.
    store : InsideView
        That it was opened from. A `WholeView` lacks no object; elsewhere a missing one reads as fill value.
    form : _Form
        How the array is stored.
    """

    def __init__(self, array: Any, store: InsideView, form: _Form) -> None:
        self._store, self._form = store, form
        self._key, self._fill, self._name = array.metadata.encode_chunk_key, array.fill_value, array.path
        self.shape: tuple[int, ...] = form.shape
        self.dtype = form.stored.newbyteorder("=")
        self.chunks: tuple[int, ...] = form.chunks
        """Shape of what is decoded at once."""
        self.objects: tuple[int, ...] = form.objects
        """Shape of what lies in one object: a shard, or a chunk."""

    @classmethod
    def of(cls, array: Any, store: InsideView) -> "ChunkReader | None":
        """Return a reader, or None where Zarr has to read: another layout, or switched off.

        Parameters
        ----------
        array : zarr.Array
            Opened.
        store : InsideView
            That it was opened from.

        Returns
        -------
        ChunkReader or None
            A reader for Zarr v3 with regular chunks of numbers or booleans, in shards or not, packed by
            Blosc, Zstandard or not at all, with or without CRC-32C.
        """
        if os.environ.get("CUBEKIT_CHUNK_READER", "1") == "0":
            return None
        form = _form(array)
        return None if form is None else cls(array, store, form)

    def read(self, window: Window, *, out: Array | None = None) -> Array:
        """Read a window.

        Parameters
        ----------
        window : tuple of slice
            One for each dimension, with step 1; may end anywhere, also inside chunks.
        out : numpy.ndarray, optional
            Takes the values: shape of the window, any layout, also part of a larger array. Chunks that it
            holds contiguously are decompressed right there. Default: a new array.

        Returns
        -------
        numpy.ndarray
            ``out``, or a new array in the array's dtype.

        Raises
        ------
        StoreError
            If an object is missing in a finished store.
        SecurityError
            If an object lies outside of the store.
        ValueError, RuntimeError
            If a chunk or an index is damaged, as zarr-python raises them; `StoredArray` makes a StoreError of
            them that names the window.
        """
        bounds = [part.indices(size)[:2] for part, size in zip(window, self.shape, strict=True)]
        if out is None:
            out = np.empty([max(0, stop - start) for start, stop in bounds], self.dtype)
        scratch = _Scratch(self._form)
        for place in _places(bounds, self.objects):
            self._read_object(place, bounds, out, scratch)
        return out

    def _read_object(
        self, place: tuple[int, ...], bounds: Sequence[Span], out: Array, scratch: "_Scratch"
    ) -> None:
        """Read what the window wants of one object."""
        parts = list(_parts(place, bounds, self._form))
        corner = tuple(i * side for i, side in zip(place, self.objects, strict=True))
        there = (
            -(-min(size - at, whole) // side)
            for at, size, whole, side in zip(corner, self.shape, self.objects, self.chunks, strict=True)
        )
        key = "/".join(filter(None, (self._name, self._key(place))))
        try:
            with opened(self._store, key, whole=len(parts) == prod(there)) as source:
                for part, data in self._encoded(source, parts):
                    if data is None:
                        out[part.target] = self._fill
                    else:
                        scratch.decode(data, part, out)
        except FileNotFoundError as error:
            if isinstance(self._store, WholeView):
                raise StoreError(f"chunk {key} is missing") from error
            for part in parts:
                out[part.target] = self._fill

    def _encoded(self, source: Parts, parts: Sequence[_Part]) -> Iterator[tuple[_Part, bytes | None]]:
        """Yield the bytes of chunks in the order in which they lie; None for one that was left out."""
        index = self._form.index
        if index is None:
            yield parts[0], source.tail(1 << 62)
            return
        found = _listed(source, index, self._form.counts)
        spans = {part.place: (int(found[part.place][0]), int(found[part.place][1])) for part in parts}
        there = sorted(
            (part for part in parts if spans[part.place] != (_ABSENT, _ABSENT)),
            key=lambda part: spans[part.place],
        )
        yield from ((part, None) for part in parts if spans[part.place] == (_ABSENT, _ABSENT))
        lengths = ((start, start + size) for start, size in (spans[part.place] for part in there))
        yield from zip(there, source.spans(list(lengths)), strict=True)


class _Scratch:
    """Decodes chunks, through one piece of memory that is used again."""

    def __init__(self, form: _Form) -> None:
        self._form = form
        self._memory: Array | None = None

    def decode(self, data: bytes, part: _Part, out: Array) -> None:
        """Put what is wanted of a chunk into its place."""
        target = out[part.target]
        direct = target.shape == self._form.chunks and target.dtype == self._form.stored
        values = self._unpacked(data, target if direct and target.flags.c_contiguous else None, part.within)
        if values is not target:
            target[...] = values[part.within]

    def _unpacked(self, data: bytes, target: Array | None, within: Window) -> Array:
        """Check and decompress a chunk, at least what is wanted of it; Blosc does it in place."""
        form, packed = self._form, np.frombuffer(data, np.uint8)
        if form.steps[-1:] == ("crc32c",):
            packed = _checked(packed)
        if "blosc" in form.steps:
            if target is None:
                if self._memory is None:
                    self._memory = np.empty(form.chunks, form.stored)
                target = self._memory
            _check_blosc(packed, target.nbytes)
            start, stop = (each * target.itemsize for each in _span(within, form.chunks))
            some = blocks_of(packed, start, stop) if stop - start <= target.nbytes // 2 else None
            if some is None:
                Blosc().decode(packed, target)
            else:
                Blosc().decode(
                    some.packed, target.reshape(-1).view("u1")[some.first : some.first + some.size]
                )
            return target
        if "zstd" in form.steps:
            packed = np.frombuffer(Zstd().decode(packed), np.uint8)
        return packed.view(form.stored).reshape(form.chunks)


def _span(within: Window, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the first and the last number of a part of a chunk, the latter plus one, in the order stored."""
    first, last = (
        int(np.ravel_multi_index(corner, shape))
        for corner in ([part.start for part in within], [part.stop - 1 for part in within])
    )
    return first, last + 1


def _listed(source: Parts, index: _Index, counts: tuple[int, ...]) -> IntArray:
    """Read the index of a shard: start and length of each chunk."""
    size = prod(counts) * 16 + _CHECKSUM * index.checked
    packed = np.frombuffer(source.head(size) if index.first else source.tail(size), np.uint8)
    if index.checked:
        packed = _checked(packed)
    return packed.view("<u8").reshape((*counts, 2))


def _checked(packed: Array) -> Array:
    """Compare bytes with the checksum behind them, and take it off."""
    inner, stored = packed[:-_CHECKSUM], packed[-_CHECKSUM:].tobytes()
    computed = int(crc32c(inner)).to_bytes(_CHECKSUM, "little")
    if computed != stored:
        raise ValueError(f"Stored and computed checksum do not match: {stored!r}, {computed!r}")
    return inner


def _check_blosc(packed: Array, size: int) -> None:
    """Refuse what would not fill the chunk, or says that it is longer than it is."""
    head = packed[:_BLOSC_HEAD].tobytes()
    found, length = int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little")
    if len(head) < _BLOSC_HEAD or found != size or length > packed.size:
        raise ValueError(
            f"{packed.size} bytes of Blosc for {found} bytes of numbers, expected {length} for {size}"
        )


def _places(bounds: Sequence[Span], sides: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """List the boxes of a grid that a window touches."""
    if any(start >= stop for start, stop in bounds):
        return
    pairs = zip(bounds, sides, strict=True)
    yield from product(*(range(start // side, -(-stop // side)) for (start, stop), side in pairs))


def _parts(place: tuple[int, ...], bounds: Sequence[Span], form: _Form) -> Iterator[_Part]:
    """List the chunks of an object that a window touches."""
    axes = []
    for at, (start, stop), whole, side in zip(place, bounds, form.objects, form.chunks, strict=True):
        corner = at * whole
        first, last = max(start, corner), min(stop, corner + whole)
        axes.append(
            [
                _along(corner, n, side, start, stop)
                for n in range((first - corner) // side, -(-(last - corner) // side))
            ]
        )
    for found in product(*axes):
        yield _Part(*(tuple(each) for each in zip(*found, strict=True)))


def _along(corner: int, number: int, side: int, start: int, stop: int) -> tuple[int, slice, slice]:
    """Return along one dimension: the number of a chunk, the part of it that is wanted, and where it goes."""
    begin = corner + number * side
    first, last = max(start, begin), min(stop, begin + side)
    return number, slice(first - begin, last - begin), slice(first - start, last - start)


def _form(array: Any) -> _Form | None:
    """Find out how an array is stored; None for what is not known here."""
    found: Mapping[str, Any] = array.metadata.to_dict()
    if found.get("zarr_format") != 3 or array.dtype.kind not in "biuf" or not array.ndim:  # noqa: PLR2004
        return None
    if found["chunk_grid"]["name"] != "regular" or found.get("storage_transformers"):
        return None
    objects = chunks = tuple(found["chunk_grid"]["configuration"]["chunk_shape"])
    codecs, index = found["codecs"], None
    if codecs[0]["name"] == "sharding_indexed" and len(codecs) == 1:
        shard = codecs[0]["configuration"]
        listed = _names(shard["index_codecs"])
        if listed not in {("bytes",), ("bytes", "crc32c")} or not _is_low(shard["index_codecs"][0]):
            return None
        index = _Index(first=shard["index_location"] == "start", checked="crc32c" in listed)
        chunks, codecs = tuple(shard["chunk_shape"]), shard["codecs"]
    steps = _names(codecs)
    if steps[0] != "bytes" or steps[1:] not in _COMPRESSED:
        return None
    stored = array.dtype.newbyteorder("<" if _is_low(codecs[0]) else ">")
    shape = tuple(array.shape)
    return _Form(shape=shape, objects=objects, chunks=chunks, stored=stored, steps=steps[1:], index=index)


def _names(codecs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(codec["name"] for codec in codecs)


def _is_low(codec: Mapping[str, Any]) -> bool:
    """Tell whether numbers are stored with the low byte first."""
    return bool((codec.get("configuration") or {}).get("endian", "little") == "little")
