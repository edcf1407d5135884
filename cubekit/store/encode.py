"""Encode whole objects in one pass: the chunks of a shard, then their index; nothing is written twice.

Zarr's own writer goes through an event loop and several copies for every chunk; here a shard costs little
more than compressing it. The bytes are the same as zarr-python's. How to encode is read
from the array's metadata, as a store keeps its codecs when it grows; what is not known here is left to Zarr.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numcodecs.blosc import Blosc
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from cubekit.store.layout import ArrayLayout
from cubekit.store.objects import ROOT, Objects
from cubekit.typing import Array

_ABSENT = np.uint64(2**64 - 1)
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class Encoder:
    """Turns numbers of one variable into its objects.

    Parameters
    ----------
    array : ArrayLayout
        Chunks and shards.
    stored : zarr.Array
        The array of the store: gives the codecs, and what chunks at the far edges are filled up with.
    """

    def __init__(self, array: ArrayLayout, stored: "zarr.Array[Any]") -> None:
        self._array = array
        self._metadata = stored.metadata
        self._fill = stored.fill_value
        self._kind = np.dtype(array.dtype).newbyteorder("<")

    def objects(self, block: Array) -> Iterator[list[bytes]]:
        """Encode a region object by object.

        Parameters
        ----------
        block : numpy.ndarray
            Whole objects, cut short only where the array ends.

        Yields
        ------
        list of bytes
            Content of each object in parts, which need not be joined; the last dimension runs fastest.
        """
        for window in _windows(block.shape, self._array.objects):
            if self._blosc is None:
                yield [self._by_zarr(block[window])]
            else:
                yield self._shard(block[window]) if self._array.shards else self._chunk(block[window])

    def _by_zarr(self, block: Array) -> bytes:
        """Let Zarr encode an object with the codecs that an older or later store has."""
        memory, whole = Objects(MemoryStore()), self._metadata.update_shape(block.shape)
        memory.write(ROOT, whole.to_buffer_dict(default_buffer_prototype())[ROOT].to_bytes())
        zarr.open_array(memory.store, mode="r+", config={"write_empty_chunks": True})[...] = block
        return memory.read(whole.encode_chunk_key((0,) * block.ndim)) or b""

    def _shard(self, block: Array) -> list[bytes]:
        """Encode the chunks of a shard, in the order of zarr-python, and the index of where they lie."""
        chunks = self._array.chunks
        counts = tuple(whole // part for whole, part in zip(self._array.objects, chunks, strict=True))
        index = np.full((*counts, 2), _ABSENT, dtype="<u8")
        parts, start = list[bytes](), 0
        for place in _morton(counts):
            corner = tuple(i * side for i, side in zip(place, chunks, strict=True))
            if any(at >= size for at, size in zip(corner, block.shape, strict=True)):
                continue  # beyond the end of the array
            window = tuple(slice(at, at + side) for at, side in zip(corner, chunks, strict=True))
            chunk = self._chunk(block[window])
            index[place] = start, (size := sum(map(len, chunk)))
            start += size
            parts += chunk
        return parts + _checked(index.tobytes())

    def _chunk(self, block: Array) -> list[bytes]:
        """Compress a chunk and add its checksum."""
        if block.shape != self._array.chunks:
            whole = np.full(self._array.chunks, self._fill, self._kind)
            whole[tuple(map(slice, block.shape))] = block
            block = whole
        return _checked(self._blosc.encode(np.ascontiguousarray(block, self._kind)))

    @cached_property
    def _blosc(self) -> Any:
        """Return the compressor that the metadata names; None where there are other codecs."""
        found: Any = self._metadata.to_dict()["codecs"]
        if self._array.shards:
            if [codec["name"] for codec in found] != ["sharding_indexed"]:
                return None
            shard = found[0]["configuration"]
            if shard["index_location"] != "end" or not _are_known(shard["index_codecs"], ("bytes", "crc32c")):
                return None
            found = shard["codecs"]
        if not _are_known(found, ("bytes", "blosc", "crc32c")):
            return None
        named = found[1]["configuration"]
        return Blosc(
            cname=named["cname"],
            clevel=named["clevel"],
            shuffle=_SHUFFLES[named["shuffle"]],
            blocksize=named["blocksize"],
            typesize=named["typesize"],
        )


def _are_known(found: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> bool:
    """Tell whether codecs are those that are written here: numbers with the low byte first."""
    low = found[0].get("configuration", {}).get("endian", "little") == "little"
    return low and tuple(codec["name"] for codec in found) == names


def _checked(data: bytes) -> list[bytes]:
    """Add the checksum of Zarr's crc32c codec."""
    return [data, int(crc32c(data)).to_bytes(4, "little")]


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
