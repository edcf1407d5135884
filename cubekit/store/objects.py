"""The objects of a store as plain bytes: durable writes, digests, and the views of writers and readers."""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from cubekit.errors import SecurityError, StoreError
from cubekit.typing import StrPath

SIDE = ".cubekit"
"""Folder of plan and ledger; Zarr readers do not look at it."""

ROOT = "zarr.json"
"""Metadata of the whole store; also carries the completion mark."""

LEASE = f"{SIDE}/lock"
"""Key of the lock in an object store. Given back it stays, empty: a removal cannot be conditional."""

PARTIAL = ".partial"
"""Ending of files that are not finished; Zarr's own local store uses the same."""

_METADATA = (ROOT, ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class Digest(NamedTuple):
    """What an object must look like to be believed."""

    size: int
    crc: str
    """CRC-32 of all bytes, as hexadecimal text. Chunks end with their own CRC-32C, which makes a CRC-32C over
    the whole object the same for every content; CRC-32 has another polynomial and costs 4 GB/s."""

    @classmethod
    def of(cls, *parts: bytes | memoryview) -> "Digest":
        """Digest some bytes, which may lie in several parts."""
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return cls(sum(map(len, parts)), f"{crc:08x}")


class Objects:
    """Read and write whole objects of a Zarr store, durably where the store is a folder.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Any Zarr store. Folders get synced and atomic writes; others keep what their service promises.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = store.root if isinstance(store, LocalStore) else None

    @classmethod
    def at(cls, path: StrPath) -> "Objects":
        """Return the objects in a local folder, which need not exist."""
        return cls(LocalStore(Path(path)))

    def __str__(self) -> str:
        return str(self.store if self.root is None else self.root)

    def read(self, key: str) -> bytes | None:
        """Return an object, or None where there is none."""
        if self.root is None:
            found = sync(self.store.get(key, default_buffer_prototype()))
            return None if found is None else found.to_bytes()
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes, *, durable: bool = True) -> Digest:
        """Put an object in place at once: readers see the old or the new one.

        Parameters
        ----------
        key : str
            Where.
        data : bytes
            The whole content.
        durable : bool, optional
            Wait until it is on disk, so that the same holds after a power cut.

        Returns
        -------
        Digest
            Of the data.
        """
        if self.root is None:
            sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
        else:
            write_atomically(self.root / key, data, durable=durable)
        return Digest.of(data)

    def write_parts(self, key: str, parts: Sequence[bytes]) -> Digest:
        """Put an object in place that lies in several parts, one after the other, which are not joined.

        Parameters
        ----------
        key : str
            Where.
        parts : sequence of bytes
            Together the whole content. It is not waited for: `flush` does that for many objects at once.

        Returns
        -------
        Digest
            Of all parts together.
        """
        if self.root is None:
            return self.write(key, b"".join(parts), durable=False)
        write_atomically(self.root / key, *parts, durable=False)
        return Digest.of(*parts)

    def append(self, key: str, line: str) -> None:
        """Add a line to a text object and wait until it is on disk."""
        if self.root is None:
            self.write(key, (self.read(key) or b"") + line.encode() + b"\n")
            return
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            torn = file.tell() > 0 and _last_byte(path) != b"\n"
            file.write(b"\n" * torn + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read_log(self, key: str) -> bytes | None:
        """Return a text object with all lines that were added to it."""
        return self.read(key)

    def write_log(self, key: str, data: bytes) -> None:
        """Put a text object in place at once, with all its lines."""
        self.write(key, data)

    def delete(self, *keys: str) -> None:
        """Remove objects; no error where there are none."""
        for key in keys:
            sync(self.store.delete(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the objects below a prefix, unfinished ones included."""
        if self.root is not None:
            top = self.root / prefix
            yield from (
                path.relative_to(self.root).as_posix() for path in sorted(top.rglob("*")) if path.is_file()
            )
            return

        async def listed() -> list[str]:
            return [key async for key in self.store.list_prefix(prefix)]

        yield from sorted(sync(listed()))

    def digest(self, key: str) -> Digest | None:
        """Read an object and digest it; None where there is none."""
        data = self.read(key)
        return None if data is None else Digest.of(data)

    def size(self, key: str) -> int | None:
        """Return the number of bytes of an object; None where there is none."""
        if self.root is None:
            data = self.read(key)
            return None if data is None else len(data)
        try:
            return (self.root / key).stat().st_size
        except OSError:
            return None

    def sizes(self, keys: Iterable[str]) -> dict[str, int | None]:
        """Return the number of bytes of many objects; None where there is none."""
        return {key: self.size(key) for key in keys}

    def stamp(self, key: str) -> Any:
        """Return what tells one version of an object from the next; None where there is none."""
        if self.root is None:
            return self.digest(key)
        try:
            found = (self.root / key).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def flush(self, keys: Iterable[str]) -> None:
        """Wait until objects and the folders that name them are on disk."""
        if self.root is None:
            return
        paths = [self.root / key for key in keys]
        folders = {parent for path in paths for parent in path.parents if parent.is_relative_to(self.root)}
        with ThreadPoolExecutor(8) as pool:  # the disk takes many waiting writes in one go
            for waited in (pool.map(_sync_to_disk, paths), pool.map(_sync_to_disk, {self.root, *folders})):
                list(waited)


class InsideView(WrapperStore[Store]):
    """A store as a reader sees it: in a folder, links that lead out of it are refused.

    A downloaded store may link a chunk to any file of this machine; without compression that would be read as
    pixels.
    """

    @property
    def folder(self) -> Path | None:
        """Folder that the objects lie in; None where they do not lie in one."""
        return self._store.root if isinstance(self._store, LocalStore) else None

    def inside(self, key: str) -> Path:
        """Return the path of an object in a folder; raise where it lies elsewhere."""
        root = cast("LocalStore", self._store).root.resolve()
        path = (root / key).resolve()
        if not path.is_relative_to(root):
            raise SecurityError(f"{root}: {key} is a link that leads out of the store.")
        return path

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object; raise where it lies elsewhere."""
        if self.folder is not None:
            self.inside(key)
        return await super().get(key, prototype, byte_range)


class WholeView(InsideView):
    """A finished store as a reader sees it: every chunk was written, so a missing one is an error."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object; raise where a chunk is missing."""
        found = await super().get(key, prototype, byte_range)
        if found is None and not is_metadata(key):
            raise StoreError(f"chunk {key} is missing")
        return found


def is_metadata(key: str) -> bool:
    """Tell metadata documents from chunks by their key."""
    return key.rpartition("/")[2] in _METADATA


def write_atomically(path: Path, *parts: bytes, durable: bool = True) -> None:
    """Write a file so that a crash leaves the old or the new content, never a part.

    Parameters
    ----------
    path : pathlib.Path
        Its folder is made where it is missing.
    *parts : bytes
        The whole content, one after the other.
    durable : bool, optional
        Wait until it is on disk, so that the same holds after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with unfinished.open("wb") as file:
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if durable:
        _sync_to_disk(path.parent)


def _sync_to_disk(path: Path) -> None:
    """Wait until a file or folder is on disk; folders cannot be synced on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _last_byte(path: Path) -> bytes:
    """Return the last byte of a file that has one."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
