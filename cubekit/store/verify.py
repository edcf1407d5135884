"""Check every object of a store against its digest, and name what is missing or damaged."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import zarr

from cubekit.errors import SecurityError, StoreError
from cubekit.progress import progress as bar
from cubekit.store.ledger import LEDGER, read_ledger, summed
from cubekit.store.mark import read_mark
from cubekit.store.objects import PARTIAL, ROOT, Digest, Objects
from cubekit.store.place import Place, begun, beside, no_store, objects_at, place_of
from cubekit.store.plan import PLAN, digest_of
from cubekit.store.trust import check_document
from cubekit.typing import StrPath

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What `verify` found; ``print`` says it."""

    path: str
    state: str
    """``complete``, ``building``, ``foreign`` (cubekit did not write it) or ``unknown`` (mark damaged)."""

    chunks: int
    """Objects looked at: chunks, shards and metadata."""

    missing: tuple[str, ...] = ()
    """Keys of objects that are not there."""

    damaged: tuple[str, ...] = ()
    """Keys of objects whose content is not what was written."""

    leftover: tuple[str, ...] = ()
    """Files that a killed writer left; harmless, and removed by the next `write`."""

    @property
    def ok(self) -> bool:
        """Whether the store is finished and every object is as it was written."""
        return self.state == "complete" and not self.missing and not self.damaged

    def __str__(self) -> str:
        state = {"complete": "finished", "building": "not finished", "foreign": "not written by cubekit"}
        lines = [
            f"{self.path}: {'sound' if self.ok else 'NOT SOUND'}, {state.get(self.state, 'state unknown')}",
            f"  {self.chunks} objects, {len(self.missing)} missing, {len(self.damaged)} damaged",
        ]
        for what, keys in (
            ("missing", self.missing),
            ("damaged", self.damaged),
            ("left over", self.leftover),
        ):
            lines += [f"  {what}: {key}" for key in keys[:_SHOWN]]
            lines += [f"  {what}: and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
        return "\n".join(lines)


def verify(
    path: StrPath | Place,
    *,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> VerifyReport:
    """Check a store: every object there, every object as it was written.

    Objects are read and compared with the digests taken when they were written. Where the ledger of digests
    is lost or damaged itself, or cubekit did not write the store, every chunk is decoded instead, which
    finds what checksums inside the chunks find.

    Parameters
    ----------
    path : path-like
        Local folder, or address in an object store.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.
    storage_options : mapping, optional
        How to reach an object store; see `write`.

    Returns
    -------
    VerifyReport
        Names every missing and damaged object. To mend a store, run the same `write` again with
        ``overwrite=True``: it does just those.

    Raises
    ------
    StoreError
        If there is no store.
    """
    folder = place_of(path, storage_options)
    objects = objects_at(folder)
    if all(objects.size(key) is None for key in (ROOT, PLAN, ".zgroup", ".zmetadata")):
        raise StoreError(no_store(folder))
    mark, damaged = _root(objects, folder)
    if mark.get("state") == "moved":  # the successor is finished and being copied here
        return verify(beside(folder, "next"), progress=progress)
    plan, digests = read_ledger(objects)
    if mark.get("state") == "complete":
        damaged += _side_damage(objects, mark, plan, digests)
        digests = {k: d for k, d in digests.items() if k.partition("/")[0] not in _doubted(mark, digests)}
    missing, leftover = [], [key for key in objects.keys() if key.endswith(PARTIAL)]  # noqa: SIM118
    with (
        bar("verify", len(digests), unit="objects", enabled=progress) as advance,
        ThreadPoolExecutor(4) as pool,
    ):
        for (key, digest), found in zip(digests.items(), pool.map(objects.digest, digests), strict=True):
            if found is None:
                missing.append(key)
            elif found != digest:
                damaged.append(key)
            advance(1)
    state = str(mark.get("state", "foreign"))
    others, lost, broken = _decode_others(objects, digests, damaged, sparse=state == "foreign")
    return VerifyReport(
        path=str(folder),
        state=state,
        chunks=len(digests) + others,
        missing=tuple(sorted({*missing, *lost})),
        damaged=tuple(sorted({*damaged, *broken})),
        leftover=tuple(leftover),
    )


def _root(objects: Objects, folder: Place) -> tuple[dict[str, Any], list[str]]:
    """Read the mark; a root document that is damaged, or missing in a store of ours, is the first finding."""
    root = objects.read(ROOT)
    if root is None:
        return ({"state": "building"}, [ROOT]) if begun(folder) else ({}, [])
    try:
        return read_mark(root, str(folder)), []
    except StoreError:
        return {"state": "unknown"}, [ROOT]


def _side_damage(
    objects: Objects, mark: Mapping[str, Any], plan: str | None, digests: Mapping[str, Digest]
) -> list[str]:
    """Check plan and ledger against the mark."""
    damaged = [LEDGER] if plan != mark["plan"] or _doubted(mark, digests) else []
    try:
        sound = digest_of(json.loads(objects.read(PLAN) or b"{}")) == mark["plan"]
    except ValueError:
        sound = False
    return damaged if sound else [*damaged, PLAN]


def _doubted(mark: Mapping[str, Any], digests: Mapping[str, Digest]) -> set[str]:
    """Return the arrays whose digests in the ledger do not add up to what the mark says."""
    return {name for name, total in mark["arrays"].items() if summed(digests, name) != total}


def _decode_others(
    objects: Objects, digests: Mapping[str, Digest], damaged: list[str], *, sparse: bool
) -> tuple[int, list[str], list[str]]:
    """Decode every chunk that has no digest; return how many, and which are missing and damaged."""
    count, missing, broken = 0, list[str](), list[str]()
    for key in [key for key in objects.keys() if key.endswith((f"/{ROOT}", "/.zarray"))]:  # noqa: SIM118
        array = None if key in damaged else _opened(objects, key)
        if array is None:
            broken.append(key)
            continue
        for chunk, window in _windows(array, key.rpartition("/")[0]):
            if chunk in digests:
                continue
            count += 1
            if objects.size(chunk) is None:
                missing += [] if sparse else [chunk]
            elif not _decodes(array, window):
                broken.append(chunk)
    return count, missing, broken


def _opened(objects: Objects, key: str) -> Any:
    """Open an array, or a group, by the key of its metadata; None where that is damaged."""
    try:
        check_document(key, json.loads(objects.read(key) or b""), str(objects))
        return zarr.open(objects.store, path=key.rpartition("/")[0], mode="r")
    except SecurityError:
        raise
    except Exception:  # noqa: BLE001  # damage shows in more ways than can be listed
        return None


def _windows(array: Any, name: str) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """List the objects of an array with the part of the array that each holds; none for a group."""
    if isinstance(array, zarr.Group):
        return
    steps = array.shards or array.chunks
    counts = (range(ceil(size / step)) for size, step in zip(array.shape, steps, strict=True))
    for index in product(*counts):
        window = tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, steps, strict=True))
        yield f"{name}/{array.metadata.encode_chunk_key(index)}".lstrip("/"), window


def _decodes(array: Any, window: tuple[slice, ...]) -> bool:
    """Tell whether a chunk can be decoded."""
    try:
        array[window]
    except Exception:  # noqa: BLE001  # damage shows in more ways than can be listed
        return False
    return True
