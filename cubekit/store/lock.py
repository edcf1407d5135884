"""One writer per store: a lock record beside it with owner and heartbeat; a dead owner's is taken over."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from cubekit.errors import StoreError
from cubekit.store.objects import write_atomically

BEAT = 5.0
"""Seconds between heartbeats."""

PATIENCE = 4
"""Heartbeats that the owner on another host may miss before its lock counts as left behind."""


class Lock:
    """A held lock.

    Parameters
    ----------
    path : pathlib.Path
        Of the lock record.
    record : dict
        What it says.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self._path = path
        self._record = record
        self._stop = Event()
        self._lost = Event()
        self._pulse = Thread(target=self._beat, name="cubekit-lock", daemon=True)
        self._pulse.start()

    def check(self) -> None:
        """Raise if another writer has taken the lock, as after a long sleep of this machine.

        Raises
        ------
        StoreError
            Naming the new owner.
        """
        if self._lost.is_set():
            raise StoreError(f"{self._path} was taken over by {owner(_read(self._path))}; this writer stops.")

    def release(self) -> None:
        """Stop the heartbeat and remove the record, if it is still ours, and what killed contenders left."""
        self._stop.set()
        self._pulse.join()
        if _read(self._path).get("token") == self._record["token"]:
            for left in self._path.parent.iterdir():
                if left.name.startswith(f"{self._path.name}."):
                    left.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        """Count up in the record until released."""
        while not self._stop.wait(BEAT):
            if _read(self._path).get("token") != self._record["token"]:
                self._lost.set()
                return
            self._record["beat"] += 1
            try:
                write_atomically(self._path, json.dumps(self._record).encode(), durable=False)
            except OSError:  # a full disk: the writer itself will say so
                continue


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Hold the lock of a store while the block runs.

    Parameters
    ----------
    path : pathlib.Path
        Of the lock record; its folder must be writable.

    Yields
    ------
    Lock
        Call its ``check`` now and then.

    Raises
    ------
    StoreError
        If another writer holds it, or the folder cannot be written.
    """
    record = new_record()
    while not _created(path, record):
        if (held := _found(path)) is None:
            continue  # released meanwhile: what lies there by now is somebody else's
        if held and not _left_behind(path, held):
            raise StoreError(f"{path}: {owner(held)} is writing this store. Wait for it, or end it first.")
        _take_away(path, held)
    lock = Lock(path, record)
    try:
        yield lock
    finally:
        lock.release()


def new_record() -> dict[str, Any]:
    """Return a lock record of this process."""
    return {
        "host": socket.gethostname(),
        "space": _process_space(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "token": uuid4().hex,
        "beat": 0,
    }


def owner_is_gone(held: Mapping[str, Any]) -> bool | None:
    """Tell whether the owner of a lock is gone, as far as that can be seen from here.

    Parameters
    ----------
    held : mapping
        Lock record.

    Returns
    -------
    bool or None
        Whether its process has ended; None for one on another host.
    """
    here = held.get("host") == socket.gethostname() and held.get("space") == _process_space()
    if here and os.name == "posix":
        return held.get("born") != _born(int(held["pid"]))
    return None


def owner(record: Mapping[str, Any]) -> str:
    """Name the owner of a lock.

    Parameters
    ----------
    record : mapping
        Lock record.

    Returns
    -------
    str
        Process and host.
    """
    return f"process {record.get('pid', '?')} on {record.get('host', 'an unknown host')}"


def _created(path: Path, record: dict[str, Any]) -> bool:
    """Create the record, whole or not at all; return False where there is one."""
    draft = path.with_name(f"{path.name}.{record['token']}")
    try:
        write_atomically(draft, json.dumps(record).encode(), durable=False)
    except OSError as error:
        raise StoreError(
            f"Cannot write in {path.parent}: {error.strerror or error}. Nothing was read."
        ) from error
    try:
        os.link(draft, path)  # fails where the name is taken
    except (FileExistsError, FileNotFoundError):  # taken, or swept by an owner that has just left
        return False
    except OSError:  # a file system without links
        with suppress(FileExistsError), path.open("xb") as file:
            file.write(json.dumps(record).encode())
            return True
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _left_behind(path: Path, held: dict[str, Any]) -> bool:
    """Tell whether the owner is gone: by its process on this host, by its heartbeat on another.

    Heartbeats are watched, not compared with a clock: clocks of two hosts differ, and jump.
    """
    gone = owner_is_gone(held)
    if gone is not None:
        return gone
    end = monotonic() + PATIENCE * BEAT
    while monotonic() < end:
        sleep(min(BEAT / 5, 1))
        if _read(path) != held:
            return False
    return True


def _take_away(path: Path, held: dict[str, Any]) -> None:
    """Remove a record that was left behind, unless somebody else was quicker."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) != held:  # the new owner's record: give it back
        with suppress(FileExistsError, FileNotFoundError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """Return what tells a process from a later one of the same number; None where it does not run."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return None if state in {"Z", "X"} else fields[18]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "running"
    return "running"


def _process_space() -> str:
    """Name the space of process numbers: containers with one host name have several."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    """Return a lock record; empty where there is none, or where it is damaged."""
    return _found(path) or {}


def _found(path: Path) -> dict[str, Any] | None:
    """Return a lock record; None where there is none, empty where it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
