"""Where a store lies, what is there already, and how a new cube takes the place of an old one.

A folder is replaced by exchanging two names, or by two renames. Object stores know no renames: there the mark
in the root document is the pointer. One put turns it to the finished successor (state ``moved``), which
`cubekit.open` reads from then. The successor's objects are copied into place inside the service, the mark
becomes ``complete``, and the successor is removed. A kill in between loses nothing: the next writer goes on.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

from cubekit.errors import OptionError, StoreError
from cubekit.security import redact
from cubekit.store.mark import marked, read_mark, to_json
from cubekit.store.objects import LEASE, PARTIAL, ROOT, SIDE, Objects
from cubekit.store.plan import FORMAT, PLAN
from cubekit.store.remote import SCHEMES, Remote, RemoteObjects, copy_objects
from cubekit.typing import StrPath

State = Literal["absent", "building", "complete", "moved", "foreign"]
"""What is at a path: nothing, an unfinished store of ours, a finished one, one whose finished successor is
being copied into its place, somebody else's Zarr store."""

Place: TypeAlias = Path | Remote
"""A local folder, or an address in an object store."""

_P = TypeVar("_P", bound=Place)

_V2 = (".zgroup", ".zattrs", ".zmetadata")


class Found(NamedTuple):
    """What is at a path."""

    state: State
    plan: dict[str, Any]
    """Empty where there is none, or it is damaged."""


def place_of(path: StrPath | Place, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Return the place that a path or address names.

    Parameters
    ----------
    path : path-like or Remote
        Local, ``~`` is expanded; or an address such as ``"s3://bucket/madrid.zarr"``.
    storage_options : mapping, optional
        For object stores; see `Remote.at`.

    Returns
    -------
    pathlib.Path or Remote
        Local ones absolute, links followed: a store has one lock under whatever name.

    Raises
    ------
    StoreError
        For an address of another kind, or one that carries credentials.
    OptionError
        For options that do not belong to the place.
    """
    if isinstance(path, Remote):
        return path
    text = str(path)
    if isinstance(path, Path) and text.startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
        text = text.replace(":/", "://", 1)  # pathlib makes one slash of two
    if "://" in text:
        return Remote.at(text, storage_options)
    if storage_options:
        raise OptionError(f"storage_options are for object stores; {path} is a local folder.")
    return Path(path).expanduser().resolve()


def folder_of(path: StrPath, what: str, instead: str) -> Path:
    """Return the folder that a path names, for what cannot be done elsewhere.

    Parameters
    ----------
    path : path-like
        Local.
    what : str
        What is to be done, for the message.
    instead : str
        What can be done elsewhere: a whole sentence.

    Returns
    -------
    pathlib.Path
        As `place_of` gives it.

    Raises
    ------
    StoreError
        For an address.
    """
    place = None if "://" in str(path) else place_of(path)
    if not isinstance(place, Path):
        raise StoreError(f"{redact(str(path))}: {what} needs a store in a local folder. {instead}")
    return place


def objects_at(place: Place) -> Objects:
    """Return the objects at a place, where there need not be any."""
    return RemoteObjects(place) if isinstance(place, Remote) else Objects.at(place)


def beside(place: _P, what: Literal["lock", "next", "previous", "between"]) -> _P:
    """Return the hidden neighbour of a store: its lock, successor, predecessor, or a step to it."""
    return cast("_P", place.with_name(f".{place.name}.{what}"))


def no_store(place: Place) -> str:
    """Say that there is no store at a place, and whether there is something else."""
    if _holds_something(place):
        return f"No store at {place}: what lies there is no Zarr store. Give what build or write made."
    return f"No store at {place}: there is nothing. Check the path."


def look(place: Place) -> Found:
    """Find out what is at a place.

    Parameters
    ----------
    place : pathlib.Path or Remote
        Need not exist.

    Returns
    -------
    Found
        State and plan.

    Raises
    ------
    StoreError
        If there is something that is no Zarr store: it is never touched.
    """
    if _is_file(place):
        raise StoreError(f"{place} exists and is not a Zarr store; it is left alone. Choose another path.")
    objects = objects_at(place)
    root, plan = objects.read(ROOT), _plan(objects)
    if root is None and begun(place):
        return Found("building" if plan else "absent", plan)  # absent: removed while it was written
    if root is None and not any(objects.size(name) is not None for name in _V2):
        if not _holds_something(place):
            return Found("absent", {})
        raise StoreError(f"{place} exists and is not a Zarr store; it is left alone. Choose another path.")
    try:
        mark = read_mark(root, str(place)) if root else {}
    except StoreError:
        return Found("building", plan)  # damaged: the same plan mends it, another needs overwrite=True
    states: dict[str, State] = {state: state for state in ("building", "complete", "moved")}
    return Found(states.get(mark.get("state", ""), "foreign"), plan)


def begun(place: Place) -> bool:
    """Tell whether a writer of ours has been at a place."""
    if isinstance(place, Remote):
        return any(key != LEASE for key in RemoteObjects(place).keys(SIDE))
    return (place / SIDE).is_dir()


def remove(place: Place) -> None:
    """Remove a store, or what there is of it; no error where there is nothing."""
    if isinstance(place, Remote):
        objects = RemoteObjects(place)
        objects.delete(*objects.keys())
    else:
        shutil.rmtree(place, ignore_errors=True)


def settle(place: Place) -> None:
    """Finish or undo a replacement that was killed half way; needs the lock."""
    if isinstance(place, Remote):
        if look(place).state == "moved":
            _move(place)
        return
    old = beside(place, "previous")
    if not old.exists():
        return
    if place.exists():
        shutil.rmtree(old)
    else:
        old.rename(place)


def replace_store(place: Place) -> None:
    """Put the finished successor in the place of a store; needs the lock.

    Where the system can exchange two names there is a store in a folder at every moment.
    """
    if isinstance(place, Remote):
        _turn_pointer(place)
        _move(place)
        return
    old, new = beside(place, "previous"), beside(place, "next")
    if _exchanged(new, place):
        new.rename(old)
    else:
        place.rename(old)
        new.rename(place)
    Objects.at(place.parent).flush([])
    shutil.rmtree(old)


def share_objects(old: Path, new: Path, keys: Iterable[str]) -> None:
    """Give a store objects of another one without copying them, where the file system has hard links.

    Parameters
    ----------
    old, new : pathlib.Path
        Folders of the stores. No writer ever changes an object in place, so sharing is safe.
    keys : iterable of str
        Of the objects; those that are shared already are left alone.

    Raises
    ------
    StoreError
        If the old store lacks one.
    """
    folders = set[Path]()
    for key in keys:
        source, target = old / key, new / key
        if target.parent not in folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.add(target.parent)
        try:
            if target.exists() and target.samefile(source):
                continue
            target.unlink(missing_ok=True)
            _link(source, target)
        except FileNotFoundError as error:
            raise StoreError(
                f"{old}: {key} is missing. Run cubekit.verify, and cubekit.repair to read it again."
            ) from error


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where that cannot be done."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        unfinished = target.with_name(target.name + PARTIAL)
        shutil.copyfile(source, unfinished)
        unfinished.replace(target)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where the system cannot."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    here = -100  # AT_FDCWD; the paths are absolute
    swap = 2  # RENAME_EXCHANGE
    done: int = exchange(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(swap))
    return done == 0


def _turn_pointer(place: Remote) -> None:
    """Let the mark of a store name its successor; plain readers find an empty group, never a mixture."""
    successor = RemoteObjects(beside(place, "next"))
    mark = read_mark(successor.read(ROOT) or b"", str(successor))
    empty = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}},
    }
    root = marked(to_json(empty), {"state": "moved", "format": FORMAT, "plan": mark["plan"]})
    RemoteObjects(place).write(ROOT, root)


def _move(place: Remote) -> None:
    """Copy the successor into place, its root document last."""
    following = beside(place, "next")
    here, new = RemoteObjects(place), RemoteObjects(following)
    root, keys = new.read(ROOT), [key for key in new.keys() if key != ROOT]  # noqa: SIM118
    if root is None:
        raise StoreError(f"{following} is gone, though {place} names it: write the cube again elsewhere.")
    kept = {*keys, ROOT}
    here.delete(*(key for key in here.keys() if key not in kept and key != LEASE))  # noqa: SIM118
    copy_objects(following, place, keys)
    here.write(ROOT, root)
    remove(following)


def _is_file(place: Place) -> bool:
    """Tell whether there is a single file where a store should be."""
    return isinstance(place, Path) and place.exists() and not place.is_dir()


def _holds_something(place: Place) -> bool:
    """Tell whether there is anything at a place but a lock."""
    if isinstance(place, Remote):
        return any(key != LEASE for key in RemoteObjects(place).keys())  # noqa: SIM118
    return place.exists() and (not place.is_dir() or any(place.iterdir()))


def _plan(objects: Objects) -> dict[str, Any]:
    """Read the plan of a store; empty where there is none, or it is damaged."""
    try:
        plan = json.loads(objects.read(PLAN) or b"{}")
    except ValueError:
        return {}
    return plan if isinstance(plan, dict) else {}
