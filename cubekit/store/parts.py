"""Parts of an object: from a file by its handle, from a service by few requests."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from typing import Protocol, TypeAlias

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from cubekit.store.objects import InsideView

Span: TypeAlias = tuple[int, int]
"""First byte and one past the last."""

_GAP_BYTES = 256 << 10  # unwanted bytes that cost less than one more request
_REQUEST_BYTES = 8 << 20  # a request is not made longer than this by joining
_AT_ONCE = 8


class Parts(Protocol):
    """Whoever gives parts of one object."""

    def head(self, size: int) -> bytes:
        """Return the first bytes.

        Parameters
        ----------
        size : int
            How many.

        Returns
        -------
        bytes
            Fewer where the object is shorter.
        """

    def tail(self, size: int) -> bytes:
        """Return the last bytes.

        Parameters
        ----------
        size : int
            How many.

        Returns
        -------
        bytes
            Fewer where the object is shorter.
        """

    def spans(self, spans: Sequence[Span]) -> Iterator[bytes]:
        """Yield parts.

        Parameters
        ----------
        spans : sequence of tuple of int
            Sorted ones are read fastest.

        Yields
        ------
        bytes
            In the order in which they are asked for.
        """


@contextmanager
def opened(store: InsideView, key: str, *, whole: bool) -> Iterator[Parts]:
    """Open an object to read parts of it.

    Parameters
    ----------
    store : InsideView
        A store as a reader sees it.
    key : str
        Of the object.
    whole : bool
        Whether all of it will be asked for: then a service is asked once.

    Yields
    ------
    Parts
        Open as long as the block runs.

    Raises
    ------
    FileNotFoundError
        If there is no such object; from a service perhaps only when the first part is read.
    SecurityError
        If it lies outside of the store.
    """
    if store.folder is None:
        requests = _Requests(store, key)
        yield _Memory(requests.get(None)) if whole else requests
        return
    try:
        file = FileIO(store.inside(key))
    except (IsADirectoryError, NotADirectoryError) as error:
        raise FileNotFoundError(key) from error
    with file:
        yield _File(file)


class _Memory:
    """Parts of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def head(self, size: int) -> bytes:
        return self._data[:size]

    def tail(self, size: int) -> bytes:
        return self._data[-size:]

    def spans(self, spans: Sequence[Span]) -> Iterator[bytes]:
        yield from (self._data[start:stop] for start, stop in spans)


class _File:
    """Parts of a file, each read when its turn comes."""

    def __init__(self, file: FileIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size

    def head(self, size: int) -> bytes:
        return self._read(0, size)

    def tail(self, size: int) -> bytes:
        return self._read(max(0, self._size - size), self._size)

    def spans(self, spans: Sequence[Span]) -> Iterator[bytes]:
        yield from (self._read(*span) for span in spans)

    def _read(self, start: int, stop: int) -> bytes:
        """Read a part, as far as the file goes: a damaged index must not ask for more memory than that."""
        self._file.seek(min(start, self._size))
        return self._file.read(max(0, min(stop, self._size) - start))


class _Requests:
    """Parts from a service: neighbours in one request, several requests at once."""

    def __init__(self, store: InsideView, key: str) -> None:
        self._store, self._key = store, key

    def head(self, size: int) -> bytes:
        return self.get(RangeByteRequest(0, size))

    def tail(self, size: int) -> bytes:
        return self.get(SuffixByteRequest(size))

    def spans(self, spans: Sequence[Span]) -> Iterator[bytes]:
        groups = list(_joined(spans))
        for first in range(0, len(groups), _AT_ONCE):
            some = groups[first : first + _AT_ONCE]
            asked = [RangeByteRequest(group[0][0], max(stop for _, stop in group)) for group in some]
            for group, data in zip(some, sync(self._all(asked)), strict=True):
                start = group[0][0]
                yield from (data[a - start : b - start] for a, b in group)

    def get(self, part: ByteRequest | None) -> bytes:
        """Ask once."""
        return sync(self._get(part))

    async def _all(self, parts: Sequence[ByteRequest]) -> list[bytes]:
        return await asyncio.gather(*map(self._get, parts))

    async def _get(self, part: ByteRequest | None) -> bytes:
        found = await self._store.get(self._key, default_buffer_prototype(), part)
        if found is None:
            raise FileNotFoundError(self._key)
        return found.to_bytes()


def _joined(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Put spans together that one request fetches; they come sorted by their start."""
    group: list[Span] = []
    for start, stop in spans:
        if group and (start - group[-1][1] > _GAP_BYTES or stop - group[0][0] > _REQUEST_BYTES):
            yield group
            group = []
        group.append((start, stop))
    if group:
        yield group
