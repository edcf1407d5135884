"""Stores in object stores (S3, Google, Azure, memory) through obstore: places, objects, discreet errors."""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from json import dumps, loads
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from zarr.abc.store import Store

from cubekit.errors import MissingDependencyError, OptionError, StoreError
from cubekit.security import BUCKET_SCHEMES, redact
from cubekit.store.objects import Digest, Objects

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Service

SCHEMES = (*sorted(BUCKET_SCHEMES), "memory")
"""Object stores by the start of their addresses."""

_AT_ONCE = 16
_CLIENT = ("client_options", "retry_config")


@dataclass(frozen=True)
class Remote:
    """Where a store lies in an object store; small when pickled, and silent about credentials."""

    url: str
    """``scheme://bucket/key``, without user, query or trailing slash."""

    options: str = field(default="{}", repr=False)
    """Options of the connection as JSON. Credentials from the environment are not among them: each process
    reads its own."""

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any] | None = None) -> "Remote":
        """Return the place that an address names.

        Parameters
        ----------
        url : str
            Such as ``"s3://bucket/madrid.zarr"``.
        options : mapping, optional
            Passed to obstore, such as ``endpoint``, ``region``, ``access_key_id``, ``client_options``. What
            is not given is read from the environment (``AWS_…``, ``AZURE_…``, ``GOOGLE_…``).

        Returns
        -------
        Remote
            Nothing is asked of the service yet.

        Raises
        ------
        StoreError
            For an address that carries credentials, names no key, or has an unknown scheme.
        OptionError
            For options that are no plain values.
        MissingDependencyError
            Without obstore.
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise StoreError(
                f"{redact(url)}: {parts.scheme}:// is not supported; stores lie in local folders or at "
                f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}."
            )
        key = parts.path.strip("/")
        user = "@" in parts.netloc and not parts.scheme.startswith("abfs")  # container@account
        if user or parts.query or parts.fragment:
            raise StoreError(
                f"{redact(url)}: an address must not carry credentials. Give storage_options, or set them in "
                "the environment."
            )
        if not parts.netloc or not key or ".." in key.split("/"):
            raise StoreError(f"{redact(url)}: expected {parts.scheme}://bucket/name.zarr.")
        if find_spec("obstore") is None:
            raise MissingDependencyError(
                "Stores in object stores need obstore: pip install 'cubekit[cloud]'."
            )
        try:
            return cls(f"{parts.scheme}://{parts.netloc}/{key}", dumps(dict(options or {}), sort_keys=True))
        except TypeError as error:
            raise OptionError(
                "storage_options takes plain values: text, numbers and mappings of them."
            ) from error

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url.startswith("memory:"):
            raise StoreError(f"{self.url} lies in the memory of one process: use scheduler='threads'.")
        return Remote, (self.url, self.options)

    def with_name(self, name: str) -> "Remote":
        """Return the neighbour of another name."""
        return Remote(f"{self.url.rpartition('/')[0]}/{name}", self.options)

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def service(self) -> "Service":
        """Connection to the objects below this address; one for each process."""
        return _connect(self.url, self.options, os.getpid())

    def zarr_store(self, *, read_only: bool = False) -> Store:
        """Return the same for Zarr."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.service, read_only=read_only)


class RemoteObjects(Objects):
    """Read and write whole objects in an object store; a put is whole or not at all, and durable.

    Parameters
    ----------
    place : Remote
        Address and options; nothing else travels to other processes.
    """

    def __init__(self, place: Remote) -> None:
        super().__init__(place.zarr_store())
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteObjects, (self.place,)

    def __str__(self) -> str:
        return str(self.place)

    def read(self, key: str) -> bytes | None:
        """Return an object, or None where there is none."""
        import obstore

        with told(self.place):
            try:
                return bytes(obstore.get(self.place.service, key).bytes())
            except FileNotFoundError:
                return None

    def write(self, key: str, data: bytes, *, durable: bool = True) -> Digest:  # noqa: ARG002
        """Put an object in place at once; the answer of the service means that it is safe."""
        import obstore

        with told(self.place):
            obstore.put(self.place.service, key, data)
        return Digest.of(data)

    def delete(self, *keys: str) -> None:
        """Remove objects; no error where there are none."""
        import obstore

        with told(self.place):
            for batch in _batches(keys, 500):
                with suppress(FileNotFoundError):
                    obstore.delete(self.place.service, batch)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the objects below a prefix."""
        import obstore

        with told(self.place):
            found = obstore.list(self.place.service, prefix.rstrip("/") or None)
            yield from sorted(entry["path"] for batch in found for entry in batch)

    def size(self, key: str) -> int | None:
        """Return the number of bytes of an object; None where there is none."""
        head = self._head(key)
        return None if head is None else int(head["size"])

    def sizes(self, keys: Iterable[str]) -> dict[str, int | None]:
        """Return the number of bytes of many objects, by listing: a request for a thousand, not for each."""
        import obstore

        with told(self.place):
            listed = obstore.list(self.place.service)
            found = {entry["path"]: int(entry["size"]) for batch in listed for entry in batch}
        return {key: found.get(key) for key in keys}

    def stamp(self, key: str) -> Any:
        """Return what tells one version of an object from the next."""
        head = self._head(key)
        return None if head is None else (head["e_tag"], head["version"], str(head["last_modified"]))

    def append(self, key: str, line: str) -> None:
        """Add a line to a log; objects cannot grow, so each line is one until the log is closed."""
        self.write(f"{self._part(key)}{uuid4().hex}", line.encode() + b"\n")

    def read_log(self, key: str) -> bytes | None:
        """Return a log with the lines added to it."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            lines = list(pool.map(self.read, sorted(self._parts(key, self._part(key)))))
        head = self.read(key)
        return head if not lines else b"".join([head or b"", *(line or b"" for line in lines)])

    def write_log(self, key: str, data: bytes) -> None:
        """Begin or close a log: lines added before are in ``data``, or belong to another first line."""
        self.write(key, data)
        self.delete(*self._parts(key))

    def flush(self, keys: Iterable[str]) -> None:
        """Do nothing: a put is durable."""

    def _head(self, key: str) -> Any:
        import obstore

        with told(self.place):
            try:
                return obstore.head(self.place.service, key)
            except FileNotFoundError:
                return None

    def _part(self, key: str) -> str:
        """Return how the keys of lines begin; it names the first line, so that no other log takes them up."""
        first = (self.read(key) or b"").partition(b"\n")[0]
        return f"{key}.{zlib.crc32(first):08x}."

    def _parts(self, key: str, beginning: str | None = None) -> list[str]:
        folder = key.rpartition("/")[0]
        return [found for found in self.keys(folder) if found.startswith(beginning or f"{key}.")]


def copy_objects(source: Remote, target: Remote, keys: Iterable[str]) -> None:
    """Copy objects between two neighbouring places, inside the service.

    Parameters
    ----------
    source, target : Remote
        In one bucket.
    keys : iterable of str
        What to copy.
    """
    import obstore

    top = replace(source, url=source.url.rpartition("/")[0])

    def copy(key: str) -> None:
        with told(target):
            if source.url.startswith("memory:"):
                obstore.put(target.service, key, obstore.get(source.service, key).bytes())
            else:
                obstore.copy(top.service, f"{source.name}/{key}", f"{target.name}/{key}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, keys))


@contextmanager
def told(place: Remote) -> Iterator[None]:
    """Turn errors of the service into ours: one line, without secrets.

    Parameters
    ----------
    place : Remote
        What was asked for.

    Raises
    ------
    StoreError
        Naming the place.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{place}: {_line(error)}. Is there such a bucket?") from None
    except (BaseError, PermissionError) as error:
        raise StoreError(f"{place}: the service refuses or fails: {_line(error)}.") from None


def _line(error: Exception) -> str:
    """Return what an error says first; the rest repeats it with the whole request."""
    return redact(str(error).partition("\n")[0])[:500].rstrip(". ")


@lru_cache(maxsize=64)
def _connect(url: str, options: str, process: int) -> "Service":  # noqa: ARG001  (a fork needs its own)
    """Connect, once in each process for each address."""
    from obstore.exceptions import BaseError
    from obstore.store import MemoryStore, from_url

    if url.startswith("memory:"):
        return MemoryStore()
    given = loads(options)
    more = {name: given.pop(name) for name in _CLIENT if name in given}
    try:
        return from_url(url, config=given, **more)
    except (BaseError, TypeError, ValueError) as error:
        raise OptionError(
            f"{url}: storage_options {sorted([*given, *more])} are not accepted: {_line(error)}."
        ) from None


def _batches(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut keys into lists of a length that services take at once."""
    left = iter(keys)
    while batch := list(islice(left, size)):
        yield batch
