"""Encode whole objects in one pass: the chunks of a shard, then their index; nothing is written twice.

Zarr's own writer goes through an event loop and several copies for every chunk; here a shard costs little
more than compressing it. The bytes are the same as zarr-python's.
"""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.blosc import Blosc

from cubekit.store.layout import ArrayLayout, codecs
from cubekit.typing import Array

_ABSENT = np.uint64(2**64 - 1)
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class Encoder:
    """Turns numbers of one variable into its objects.

    Parameters
    ----------
    array : ArrayLayout
        Chunks and shards.
    fill : number
        What chunks at the far edges are filled up with.
    """

    def __init__(self, array: ArrayLayout, fill: Any) -> None:
        self._array = array
        self._fill = fill
        self._kind = np.dtype(array.dtype).newbyteorder("<")

    def objects(self, block: Array) -> Iterator[bytes]:
        """Encode a region object by object.

        Parameters
        ----------
        block : numpy.ndarray
            Whole objects, cut short only where the array ends.

        Yields
        ------
        bytes
            Content of each object, the last dimension running fastest.
        """
        for window in _windows(block.shape, self._array.objects):
            yield self._shard(block[window]) if self._array.shards else self._chunk(block[window])

    def _shard(self, block: Array) -> bytes:
        """Encode the chunks of a shard, in the order of zarr-python, and the index of where they lie."""
        chunks = self._array.chunks
        counts = tuple(whole // part for whole, part in zip(self._array.objects, chunks, strict=True))
        index = np.full((*counts, 2), _ABSENT, dtype="<u8")
        parts, start = [], 0
        for place in _morton(counts):
            corner = tuple(i * side for i, side in zip(place, chunks, strict=True))
            if any(at >= size for at, size in zip(corner, block.shape, strict=True)):
                continue  # beyond the end of the array
            window = tuple(slice(at, at + side) for at, side in zip(corner, chunks, strict=True))
            parts.append(self._chunk(block[window]))
            index[place] = start, len(parts[-1])
            start += len(parts[-1])
        parts.append(_checked(index.tobytes()))
        return b"".join(parts)

    def _chunk(self, block: Array) -> bytes:
        """Compress a chunk and add its checksum."""
        if block.shape != self._array.chunks:
            whole = np.full(self._array.chunks, self._fill, self._kind)
            whole[tuple(map(slice, block.shape))] = block
            block = whole
        return _checked(self._blosc.encode(np.ascontiguousarray(block, self._kind)))

    @cached_property
    def _blosc(self) -> Blosc:
        """Return the compressor that the metadata names."""
        named: Any = codecs()[0].to_dict()["configuration"]
        return Blosc(
            cname=named["cname"],
            clevel=named["clevel"],
            shuffle=_SHUFFLES[named["shuffle"]],
            blocksize=named["blocksize"],
            typesize=self._kind.itemsize,
        )


def _checked(data: bytes) -> bytes:
    """Add the checksum of Zarr's crc32c codec."""
    return data + int(crc32c(data)).to_bytes(4, "little")


def _windows(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into pieces."""
    counts = (range(ceil(size / side)) for size, side in zip(shape, sides, strict=True))
    for place in product(*counts):
        yield tuple(slice(i * side, (i + 1) * side) for i, side in zip(place, sides, strict=True))


@lru_cache(maxsize=64)
def _morton(counts: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Order the chunks of a shard along a Z curve, so that neighbours in space lie near in the file.

    The bits of the coordinates are interleaved, the first dimension's lowest bit first; a dimension takes
    part as long as it has bits (the compressed Morton code of Neuroglancer's precomputed format).
    """
    bits = [(count - 1).bit_length() for count in counts]
    turns = [
        (dim, bit) for bit in range(max(bits, default=0)) for dim in range(len(counts)) if bit < bits[dim]
    ]

    def code(place: tuple[int, ...]) -> int:
        return sum((place[dim] >> bit & 1) << rank for rank, (dim, bit) in enumerate(turns))

    return tuple(sorted(product(*map(range, counts)), key=code))
