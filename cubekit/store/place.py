"""Where a store lies on disk, what is there already, and how a new cube takes the place of an old one."""

import ctypes
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cubekit.errors import StoreError
from cubekit.store.mark import read_mark
from cubekit.store.objects import PARTIAL, ROOT, SIDE, Objects
from cubekit.store.plan import PLAN
from cubekit.typing import StrPath

State = Literal["absent", "building", "complete", "foreign"]
"""What is at a path: nothing, an unfinished store of ours, a finished one, somebody else's Zarr store."""


class Found(NamedTuple):
    """What is at a path."""

    state: State
    plan: dict[str, Any]
    """Empty where there is none, or it is damaged."""


def local(path: StrPath) -> Path:
    """Return the folder that a path names.

    Parameters
    ----------
    path : path-like
        Local; ``~`` is expanded.

    Returns
    -------
    pathlib.Path
        Absolute, links followed: a store has one lock under whatever name.

    Raises
    ------
    StoreError
        For an address of another kind.
    """
    if "://" in str(path):
        scheme = str(path).partition("://")[0]
        raise StoreError(
            f"Stores lie in local folders; {scheme}:// is not supported yet. Copy the finished one."
        )
    return Path(path).expanduser().resolve()


def beside(path: Path, what: Literal["lock", "next", "previous"]) -> Path:
    """Return the hidden neighbour of a store: its lock, its successor being built, or its predecessor."""
    return path.with_name(f".{path.name}.{what}")


def no_store(path: Path) -> str:
    """Say that there is no store at a path, and whether there is something else."""
    if path.exists():
        return (
            f"No store at {path}: what lies there is no Zarr store. Give the folder that build or write made."
        )
    return f"No store at {path}: there is nothing. Check the path."


def look(path: Path) -> Found:
    """Find out what is at a path.

    Parameters
    ----------
    path : pathlib.Path
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
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return Found("absent", {})
    objects = Objects.at(path)
    root, plan = objects.read(ROOT), _plan(objects)
    if root is None and (path / SIDE).is_dir():
        return Found("building" if plan else "absent", plan)  # absent: removed while it was written
    if root is None and not any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zmetadata")):
        raise StoreError(f"{path} exists and is not a Zarr store; it is left alone. Choose another path.")
    try:
        mark = read_mark(root, str(path)) if root else {}
    except StoreError:
        return Found("building", plan)  # damaged: the same plan mends it, another needs overwrite=True
    states: dict[str, State] = {"building": "building", "complete": "complete"}
    return Found(states.get(mark.get("state", ""), "foreign"), plan)


def settle(path: Path) -> None:
    """Finish or undo a replacement that was killed between its two renames; needs the lock."""
    old = beside(path, "previous")
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


def replace_store(path: Path) -> None:
    """Put the finished successor in the place of a store; needs the lock.

    Where the system can exchange two names there is a store at the path at every moment.
    """
    old, new = beside(path, "previous"), beside(path, "next")
    if _exchanged(new, path):
        new.rename(old)
    else:
        path.rename(old)
        new.rename(path)
    Objects.at(path.parent).flush([])
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


def _plan(objects: Objects) -> dict[str, Any]:
    """Read the plan of a store; empty where there is none, or it is damaged."""
    try:
        plan = json.loads(objects.read(PLAN) or b"{}")
    except ValueError:
        return {}
    return plan if isinstance(plan, dict) else {}
