"""One writer per store in an object store: a record changed only by conditional puts, with a heartbeat."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, TypeAlias

from cubekit.errors import StoreError
from cubekit.store import lock
from cubekit.store.objects import LEASE
from cubekit.store.place import Place, beside
from cubekit.store.remote import Remote, told

_Version: TypeAlias = dict[str, str]
_Held: TypeAlias = tuple[dict[str, Any], _Version]


class Lease:
    """A held lock.

    Parameters
    ----------
    place : Remote
        Of the store.
    record : dict
        What the lock says.
    version : dict
        Of the object that says it.
    """

    def __init__(self, place: Remote, record: dict[str, Any], version: _Version) -> None:
        self._place, self._record, self._version = place, record, version
        self._stop, self._lost = Event(), Event()
        self._pulse = Thread(target=self._beat, name="cubekit-lease", daemon=True)
        self._pulse.start()

    def check(self) -> None:
        """Raise if another writer has taken the lock, as after a long sleep of this machine.

        Raises
        ------
        StoreError
            Naming the new owner.
        """
        if self._lost.is_set():
            found = _read(self._place)
            raise StoreError(
                f"{self._place} was taken over by {lock.owner(found[0] if found else {})}; this writer stops."
            )

    def release(self) -> None:
        """Stop the heartbeat and give the lock back, if it is still ours."""
        self._stop.set()
        self._pulse.join()
        if not self._lost.is_set():
            _put(self._place, {}, self._version)

    def _beat(self) -> None:
        """Count up in the record until released."""
        while not self._stop.wait(lock.BEAT):
            self._record["beat"] += 1
            try:
                version = _put(self._place, self._record, self._version)
            except StoreError:  # the network is away: the writer itself will say so
                continue
            if version is None:
                self._lost.set()
                return
            self._version = version


def hold(place: Place) -> "AbstractContextManager[Lease | lock.Lock]":
    """Hold the lock of a store, wherever it lies, while a block runs.

    Parameters
    ----------
    place : pathlib.Path or Remote
        Of the store.

    Returns
    -------
    context manager
        Gives a lock; call its ``check`` now and then.
    """
    return _leased(place) if isinstance(place, Remote) else lock.locked(beside(place, "lock"))


@contextmanager
def _leased(place: Remote) -> Iterator[Lease]:
    """Hold the lock of a store in an object store."""
    record = lock.new_record()
    version = _put(place, record, None)
    while version is None:
        found = _read(place)
        if found is None:  # removed between the two requests
            version = _put(place, record, None)
            continue
        if found[0] and not _left_behind(place, found):
            raise StoreError(
                f"{place}: {lock.owner(found[0])} is writing this store. Wait for it, or end it first."
            )
        version = _put(place, record, found[1])
    lease = Lease(place, record, version)
    try:
        yield lease
    finally:
        lease.release()


def _put(place: Remote, record: dict[str, Any], over: _Version | None) -> _Version | None:
    """Write the record over one version of it, or (None) where there is none; None: somebody was quicker."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

    data, token = json.dumps(record).encode(), record.get("token")
    with told(place):
        try:
            done = obstore.put(place.service, LEASE, data, mode="create" if over is None else over)  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError, NotFoundError):
            found = _read(place)  # an answer that was lost makes our own record look like somebody else's
            return found[1] if found and token and found[0] == record else None
    return _version(done)


def _read(place: Remote) -> _Held | None:
    """Return the record and its version; None where there is none, empty where it is free or damaged."""
    import obstore

    with told(place):
        try:
            found = obstore.get(place.service, LEASE)
        except FileNotFoundError:
            return None
        try:
            record = json.loads(bytes(found.bytes()))
        except ValueError:
            record = {}
        return (record if isinstance(record, dict) else {}), _version(found.meta)


def _version(head: Any) -> _Version:
    """Return what a conditional put asks for."""
    return {key: head[key] for key in ("e_tag", "version") if head.get(key) is not None}


def _left_behind(place: Remote, held: _Held) -> bool:
    """Tell whether the owner is gone: by its process on this host, by its heartbeat on another."""
    gone = lock.owner_is_gone(held[0])
    if gone is not None:
        return gone
    end = monotonic() + lock.PATIENCE * lock.BEAT
    while monotonic() < end:
        sleep(min(lock.BEAT / 5, 1))
        if _read(place) != held:
            return False
    return True
