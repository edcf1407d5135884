"""Mend a store: read again just what is missing or damaged, from the scenes that the store remembers."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubekit.errors import CubekitError, StoreError, check_kind
from cubekit.progress import progress as bar
from cubekit.store.append import stored_layout
from cubekit.store.layout import Layout
from cubekit.store.lease import Lease, hold
from cubekit.store.ledger import LEDGER, Ledger, read_ledger, summed
from cubekit.store.lock import Lock
from cubekit.store.mark import read_mark, to_json
from cubekit.store.metadata import small_documents, zarr_document
from cubekit.store.objects import LEASE, ROOT, Digest
from cubekit.store.open import open_store
from cubekit.store.overviews import GROUP, without_overviews
from cubekit.store.place import Place, folder_of, objects_at, place_of, settle
from cubekit.store.plan import PLAN
from cubekit.store.provenance import PROVENANCE, Provenance, read_provenance, to_date
from cubekit.store.regions import SPLIT
from cubekit.store.remake import Remaker, encoded, region_of
from cubekit.store.verify import verify
from cubekit.store.write import succeed
from cubekit.typing import StrPath

log = logging.getLogger(__name__)

_SHOWN = 10

_ELSEWHERE = "Mend a local copy, or write the cube there again with overwrite=True."


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What `repair` did; ``print`` says it."""

    path: str
    mended: tuple[str, ...] = ()
    """Keys of objects that are again as they were written, byte for byte."""

    changed: Mapping[str, str] = field(default_factory=dict)
    """Keys whose scenes now give other pixels than were written, with dates and items."""

    accepted: tuple[str, ...] = ()
    """Keys that hold these other pixels now, as was asked for."""

    failed: Mapping[str, str] = field(default_factory=dict)
    """Keys that could not be made again, with the reason."""

    @property
    def ok(self) -> bool:
        """Whether the store is sound now."""
        return not self.changed and not self.failed

    def __str__(self) -> str:
        if self.ok and not self.mended and not self.accepted:
            return f"{self.path}: sound, nothing to mend"
        lines = [f"{self.path}: {len(self.mended)} mended, " + ("sound again" if self.ok else "NOT SOUND")]
        lines += _listed("mended", dict.fromkeys(self.mended, "as it was written"))
        lines += _listed("changed", self.changed)
        lines += _listed("accepted", dict.fromkeys(self.accepted, "as its scenes are now"))
        return "\n".join(lines + _listed("failed", self.failed))


def repair(
    path: StrPath,
    cube: xr.Dataset | None = None,
    *,
    accept_changed: bool = False,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> RepairReport:
    """Find what is missing or damaged in a store, and read just that again.

    The scenes are those that the store remembers. What they give is compared with the digest taken when the
    store was written: it is put in place only if it is the same, object by object, so that a repair may be
    killed at any moment.

    Parameters
    ----------
    path : path-like
        A finished store, local or in an object store.
    cube : xarray.Dataset, optional
        The cube that was written, for stores that do not say how it was made: from numbers in memory, or with
        computations of your own.
    accept_changed : bool, optional
        Where the scenes now give other pixels than before, take those; the store is replaced as by `append`,
        which needs a local folder.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.
    storage_options : mapping, optional
        How to reach an object store; see `write`.

    Returns
    -------
    RepairReport
        What was mended, what has changed at its source, and what could not be made again.

    Raises
    ------
    StoreError
        If there is no finished store, or it is being written.
    """
    if cube is not None:
        check_kind("cube", cube, xr.Dataset, "give the cube that was written")
    local = folder_of(path, "accept_changed=True", _ELSEWHERE) if accept_changed else None
    folder = local or place_of(path, storage_options)
    found = verify(folder, progress=False)
    if found.ok:
        return RepairReport(path=str(folder))
    if found.state not in {"complete", "unknown"}:
        raise StoreError(f"{folder} is not a finished store of cubekit. Run write again to finish it.")
    with hold(folder) as lock:
        settle(folder)
        mending = _Mending(folder, cube)
        bad = [*found.missing, *found.damaged]
        mending.documents(bad)
        mending.pixels(bad, progress=progress)
        if local is not None and mending.changed:
            mending.accept(local, lock, progress=progress)
    return RepairReport(
        path=str(folder),
        mended=tuple(sorted(mending.mended)),
        changed=dict(sorted(mending.changed.items())),
        accepted=tuple(sorted(mending.accepted)),
        failed=dict(sorted(mending.failed.items())),
    )


class _Mending:
    """A repair on its way.

    Parameters
    ----------
    folder : pathlib.Path or Remote
        Of the store.
    given : xarray.Dataset or None
        What was written, if the user has it.
    """

    def __init__(self, folder: Place, given: xr.Dataset | None) -> None:
        self.folder, self.objects = folder, objects_at(folder)
        self.mended, self.accepted = set[str](), set[str]()
        self.changed, self.failed = dict[str, str](), dict[str, str]()
        self.digests = read_ledger(self.objects)[1]
        self._given = given

    def documents(self, bad: list[str]) -> None:
        """Restore what is not pixels, as far as other parts of the store say the same."""
        root = self.objects.read(ROOT)
        inside = {} if root is None or ROOT in bad else json.loads(root)["consolidated_metadata"]["metadata"]
        for key in bad:
            if key == LEDGER:
                self._ledger()
            elif key.endswith(f"/{ROOT}") and (document := inside.get(key.rpartition("/")[0])):
                self._place(key, [zarr_document(document), to_json(document)])
            elif key == PROVENANCE or key in {ROOT, PLAN}:
                self.failed[key] = "it is kept in one place only: write the cube again with overwrite=True"
        for key in bad:
            if key not in self.mended and not key.endswith(ROOT):
                self._small(key)

    def _small(self, key: str) -> None:
        """Restore a coordinate from what is known of the scenes; other keys are passed over."""
        name = key.partition("/")[0]
        try:
            provenance = read_provenance(self.objects) or Provenance()
            cube = self._given if self._given is not None else provenance.origins[0].cube()
        except (CubekitError, IndexError):
            return
        dates = [to_date(date.time) for date in provenance.dates]
        if name == "time" and dates:
            variable = xr.Variable("time", np.array(dates, "datetime64[ns]"))
        elif name in cube.variables and not {"y", "x"} < set(cube[name].dims):
            variable = cube[name].variable
        else:
            return
        with suppress(CubekitError):
            self._place(key, [small_documents(name, variable.load()).get(key, b"")])

    def _ledger(self) -> None:
        """Write the ledger anew from the objects, if these are what the mark says."""
        mark = read_mark(self.objects.read(ROOT) or b"", str(self.folder))
        keys = [key for key in self._keys() if key.partition("/")[0] in mark["arrays"]]  # no overviews
        found = {key: digest for key in keys if (digest := self.objects.digest(key))}
        if all(summed(found, name) == total for name, total in mark["arrays"].items()):
            Ledger(self.objects, mark["plan"]).close(found)
            self.digests = found
            self.mended.add(LEDGER)
        else:
            self.failed[LEDGER] = "other objects are damaged too, so that it cannot be told what they were"

    def _keys(self) -> list[str]:
        """List the objects that a ledger holds."""
        return [key for key in self.objects.keys() if key not in {ROOT, PLAN, LEDGER, LEASE}]  # noqa: SIM118

    def _place(self, key: str, candidates: list[bytes]) -> bool:
        """Put the content in place that has the digest of the ledger."""
        for content in candidates:
            if Digest.of(content) == self.digests.get(key):
                self.objects.write(key, content)
                self.mended.add(key)
                return True
        return False

    def pixels(self, bad: list[str], *, progress: bool | None) -> None:
        """Make chunks again: those of gridded variables from scenes, others from the documents' cube."""
        todo = [key for key in bad if key not in self.mended and key not in self.failed]
        if not todo:
            return
        try:
            self._prepare()
        except CubekitError as error:
            self.failed |= dict.fromkeys(todo, str(error))
            return
        grids = {array.name for array in self.layout.arrays}
        with bar("repair", len(todo), unit="objects", enabled=progress) as advance:
            for key in todo:
                if key.startswith(f"{GROUP}/"):
                    self.failed[key] = "it belongs to an overview: run cubekit.add_overviews"
                elif key.partition("/")[0] not in grids or key.endswith(ROOT):
                    self.failed[key] = "it is no pixels: write the cube again with overwrite=True"
                elif key not in self.mended and key not in self.changed:
                    self._chunk(key)
                advance(1)

    def _prepare(self) -> None:
        """Open what is needed to make pixels again."""
        self.layout: Layout = stored_layout(self.folder)
        stored = open_store(self.folder)
        self.coords = {str(name): stored[name] for name in stored.dims if name in stored.coords}
        self.provenance = read_provenance(self.objects) or Provenance()
        self.remaker = Remaker(self.provenance, self._given)

    def _chunk(self, key: str) -> None:
        """Make the objects of one region again; none is put in place that is not as it was."""
        array = self.layout[key.partition("/")[0]]
        region = region_of(array, key)
        window = region.window(array) or ()
        try:
            block = self.remaker.block(array, window, self.coords)
            document = self.objects.read(f"{array.name}/{ROOT}") or b""
            found = encoded(array, region, block, document)
        except (CubekitError, OSError, ValueError) as error:
            self.failed[key] = str(error)
            return
        if not self._place(key, [found[key]]):
            self.changed[key] = f"its scenes give other pixels now ({self._origin(region.bounds[0])})"

    def _origin(self, span: tuple[int, int]) -> str:
        """Name dates and items of some time steps."""
        texts = []
        for date in self.provenance.dates[slice(*span)]:
            origin = self.provenance.origins[date.origin] if date.origin >= 0 else None
            items = (
                [p.scenes[s] for p, scenes in origin.scenes(to_date(date.time)) for s in scenes]
                if origin
                else []
            )
            texts.append(" ".join([str(to_date(date.time))[:10], *items]))
        return "; ".join(texts) or "no dates are known"

    def accept(self, folder: Path, lock: Lock | Lease, *, progress: bool | None) -> None:
        """Let a store with the pixels of today take the place; the old one stays until it is finished."""
        lazy: dict[str, Any] = {}
        bad = set(self.changed)
        for array in self.layout.arrays:
            if any(key.startswith(f"{array.name}/") for key in bad):
                lazy[array.name] = (array.dims, self.remaker.array(array, self.coords))
            else:
                lazy[array.name] = (array.dims, open_store(self.folder)[array.name].data)
        grids = set(lazy)
        kept = {
            k: d
            for k, d in self.digests.items()
            if k.partition("/")[0] in grids and "/c/" in k and k not in bad
        }
        others = [*(key for key in self.digests if key not in kept and key not in bad), ROOT]
        documents = {key: self.objects.read(key) or b"" for key in others}
        documents[ROOT] = without_overviews(documents[ROOT])
        sides = {
            dim: max(a.objects[a.dims.index(dim)] for a in self.layout.arrays if dim in a.dims)
            for dim in SPLIT
            if any(dim in a.dims for a in self.layout.arrays)
        }
        succeed(
            folder,
            xr.Dataset(lazy),
            self.layout,
            documents,
            json.loads(self.objects.read(PLAN) or b"{}"),
            kept=kept,
            sides=sides,
            lock=lock,
            progress=progress,
        )
        self.accepted, self.changed = bad, {}


def _listed(what: str, keys: Mapping[str, str]) -> list[str]:
    lines = [f"  {what}: {key}: {text}" for key, text in list(keys.items())[:_SHOWN]]
    return lines + ([f"  {what}: and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else [])
