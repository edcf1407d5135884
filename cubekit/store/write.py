"""Write a cube so that it survives: region by region, resumable, verified, marked complete last."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from warnings import warn

import numcodecs
import xarray as xr
import zarr

import cubekit
from cubekit.errors import CubekitError, OptionError, StoreError
from cubekit.progress import progress as bar
from cubekit.store.execute import crew, run
from cubekit.store.layout import Layout, Sizes, Use, grain, gridded, plan_layout
from cubekit.store.lease import Lease, hold
from cubekit.store.ledger import Ledger, read_ledger, summed
from cubekit.store.lock import Lock
from cubekit.store.mark import marked, to_json
from cubekit.store.metadata import skeleton
from cubekit.store.objects import PARTIAL, ROOT, Digest, Objects
from cubekit.store.open import open_store
from cubekit.store.place import (
    Place,
    beside,
    look,
    objects_at,
    place_of,
    remove,
    replace_store,
    settle,
    share_objects,
)
from cubekit.store.plan import FORMAT, PLAN, difference, digest_of, plan_of
from cubekit.store.provenance import PROVENANCE, provenance_of
from cubekit.store.regions import (
    Region,
    all_regions,
    computations,
    region_bytes,
    region_keys,
    region_sides,
    task_of,
)
from cubekit.store.repository import is_repository, write_commit
from cubekit.store.verify import verify
from cubekit.typing import StrPath

if TYPE_CHECKING:
    from distributed import Client

Watch: TypeAlias = Callable[
    [Any, Sequence[Region], Sequence[Region]], AbstractContextManager[Callable[[Region], None]]
]
"""Somebody who follows what is written; see `write`."""

_REPORTED = 12
_TOO_OFTEN = 2.0
_AGAIN = "Run write again: it does what is missing."


def write(  # noqa: PLR0913  (the one door to a store; all keyword-only)
    cube: xr.Dataset,
    path: StrPath | Place,
    *,
    layout: Use | Sizes | Layout | None = None,
    overwrite: bool = False,
    scheduler: "str | Client | None" = None,
    workers: int | None = None,
    progress: bool | None = None,
    source: str | None = None,
    watch: Watch | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Write a cube to a Zarr store; run it again after a crash and it goes on where it stopped.

    The lazy variables are computed and written region by region, a few at a time, so memory does not grow
    with the area. A killed run resumed any number of times leaves the same bytes as one clean run. Until the
    last object is in place the store is marked as unfinished and `cubekit.open` refuses it. Calling it again
    for a finished store writes only what is missing.

    Parameters
    ----------
    cube : xarray.Dataset
        Its gridded variables have dims (…, y, x): a cube, a prediction, labels. Integers are stored as they
        are; attributes ``_FillValue``, ``scale_factor`` and ``add_offset`` become the CF coding that xarray,
        rioxarray and GDAL decode. Other variables are small and loaded whole.
    path : path-like
        Local folder, such as ``"madrid.zarr"``, or an address in an object store, such as
        ``"s3://bucket/madrid.zarr"`` (also ``gs://``, ``az://``, ``abfs://``, and ``memory://`` for trials),
        or an Icechunk repository and branch, such as ``"icechunk:///data/madrid@main"``, where the write is
        one commit.
    layout : {"series", "patches", "maps"}, mapping or Layout, optional
        What the store will be read for most; see `plan_layout`, which also takes the memory budget.
    overwrite : bool, optional
        Replace another cube at this path. It stays readable until the new one is finished and verified.
        Where the same cube is there, every object is checked and damaged ones are written again.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes. Default: the active Dask cluster if there is one, else threads.
    workers : int, optional
        Threads or processes. Default: one for each core.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.
    source : str, optional
        Name of the computation behind the lazy variables. Default: Dask's tokens, which must be the same in
        the next run for it to be continued; give a name where a function or object makes them random.
    watch : callable, optional
        Called with the Zarr store, all regions and those to be written; gives a context, which gives a
        function that is called with each region that has become safe.
    storage_options : mapping, optional
        How to reach an object store: ``endpoint``, ``region``, ``access_key_id`` and others of obstore, and
        ``client_options``. Better is the environment (``AWS_…``, ``AZURE_…``, ``GOOGLE_…``), which each
        worker reads for itself; options travel to the workers. Neither is ever stored or shown.

    Returns
    -------
    xarray.Dataset
        The store, opened as by `open_store`: lazy, not decoded.

    Raises
    ------
    StoreError
        If the path cannot be written (before anything is computed), holds another cube and ``overwrite`` is
        off (with the differences), is being written by somebody else, or a region fails.
    """
    plan = layout if isinstance(layout, Layout) else plan_layout(cube, layout)
    _check_layout(cube, plan)
    if is_repository(path):
        if scheduler not in {None, "threads"}:
            raise OptionError("An Icechunk commit is written by threads: leave scheduler out.")
        return write_commit(
            cube, str(path), plan, overwrite=overwrite, workers=workers, progress=progress, source=source,
            storage_options=storage_options,
        )  # fmt: skip
    folder = place_of(path, storage_options)
    _make_parents(folder)
    with hold(folder) as lock:
        settle(folder)
        documents = skeleton(cube, plan)
        work = plan_of(cube, plan, documents, source)
        origin = provenance_of(cube, source).signed(digest_of(work))
        documents |= {PROVENANCE: origin.document()}  # not part of the plan: it names versions
        job = _Job(cube=cube, layout=plan, documents=documents, plan=work)
        try:
            _put(job, folder, lock, _Hands(scheduler, workers, progress, watch), overwrite=overwrite)
        except CubekitError:
            raise
        except OSError as error:
            raise StoreError(f"Cannot write to {folder}: {error.strerror or error}. {_AGAIN}") from error
    return open_store(folder)


def _put(job: "_Job", folder: Place, lock: Lock | Lease, hands: "_Hands", *, overwrite: bool) -> None:
    """Bring a store into being at a path, in the place of another if that is wanted."""
    target = _target(folder, job, overwrite=overwrite)
    if target is not None:
        _build(job, objects_at(target), lock, hands)
    if target is not None and target != folder:
        _swap(folder)
    remove(beside(folder, "next"))  # of a replacement that was given up


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be written."""

    cube: xr.Dataset
    layout: Layout
    documents: Mapping[str, bytes]
    plan: Mapping[str, Any]
    sides: Mapping[str, int] | None = None
    """Of the regions; None to choose them."""

    kept: Mapping[str, Digest] = field(default_factory=dict)
    """Objects that are there already, shared with the store that is replaced."""


class _Hands(NamedTuple):
    """Who does it, and whether they show progress."""

    scheduler: Any
    workers: int | None
    progress: bool | None
    watch: Watch | None


def _target(folder: Place, job: _Job, *, overwrite: bool) -> Place | None:
    """Decide where to build: at the path, beside what is to be replaced, or (None) nowhere: all is there."""
    found = look(folder)
    same = found.plan == job.plan
    if same and found.state == "complete":
        sound = verify(folder, progress=False).ok if overwrite else _is_whole(objects_at(folder))
        return None if sound else folder
    if found.state == "absent" or (same and found.state != "foreign"):
        return folder
    if not overwrite:
        raise StoreError(_refusal(folder, found.state, difference(found.plan, job.plan)))
    successor = beside(folder, "next")
    if look(successor).plan != job.plan:
        remove(successor)
    return successor


def _build(job: _Job, objects: Objects, lock: Lock | Lease, hands: _Hands) -> None:
    """Write everything that is not written yet, and mark the store complete."""
    layout, digest = job.layout, digest_of(job.plan)
    fixed = _lay_out(objects, job)
    ledger = Ledger(objects, digest)
    sound = _sound(objects, ledger.digests) | job.kept.keys()
    ledger.digests |= {key: digest for key, digest in job.kept.items() if key not in ledger.digests}
    sides = job.sides or region_sides(job.cube, layout)
    regions = list(all_regions(layout, sides))
    todo = [region for region in regions if not sound.issuperset(region_keys(region, layout))]
    lazy = _lazy(job.cube, layout, sides, complain=not job.kept)  # of a few regions it would mislead
    share = sum(prod(array.shape) * array.itemsize for array in layout.arrays) / 1e6 / len(regions)
    fitting = max(1, layout.memory // (3 * region_bytes(layout, sides)))
    with (
        bar("write", share * len(regions), unit="MB", enabled=hands.progress) as advance,
        crew(hands.scheduler, hands.workers, fitting) as workers,
        (hands.watch or _nobody)(objects.store, regions, todo) as noticed,
    ):
        advance(share * (len(regions) - len(todo)))
        for region, digests in run(todo, lambda region: task_of(objects, region, layout, lazy), workers):
            lock.check()
            ledger.add(str(region), digests)
            advance(share)
            noticed(region)
    lock.check()
    _finish(objects, job, ledger, fixed)


@contextmanager
def _nobody(
    store: Any, regions: Sequence[Region], todo: Sequence[Region]
) -> Iterator[Callable[[Region], None]]:
    """Follow nothing."""
    del store, regions, todo
    yield lambda region: None  # noqa: ARG005


def _lay_out(objects: Objects, job: _Job) -> dict[str, Digest]:
    """Put plan, metadata and coordinates in place, and the state: building; sweep what a kill left."""
    mark = {"state": "building", "format": FORMAT, "plan": digest_of(job.plan)}
    fixed = {}
    try:
        for key in [key for key in objects.keys() if key.endswith(PARTIAL)]:  # noqa: SIM118
            objects.delete(key)
        objects.write(PLAN, to_json(job.plan))
        for key, content in job.documents.items():
            if key != ROOT:
                fixed[key] = objects.write(key, content, durable=False)
        objects.write(ROOT, marked(job.documents[ROOT], mark), durable=False)
    except OSError as error:
        raise StoreError(
            f"Cannot write to {objects}: {error.strerror or error}. Nothing was read."
        ) from error
    return fixed


def _sound(objects: Objects, digests: Mapping[str, Digest]) -> set[str]:
    """Return the objects of a killed run that are as the ledger says."""
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(objects.digest, digests)
        return {key for key, digest in zip(digests, found, strict=True) if digest == digests[key]}


def _lazy(
    cube: xr.Dataset, layout: Layout, sides: Mapping[str, int], *, complain: bool = True
) -> dict[str, Any]:
    """Return the Dask array of each gridded variable; one in memory is cut into regions."""
    arrays = {}
    for name in (array.name for array in layout.arrays):
        variable = cube.variables[name]
        if variable.chunks is None:
            variable = variable.chunk({dim: sides[str(dim)] for dim in variable.dims if dim in sides})
        elif complain and (times := computations(variable.chunksizes, sides)) > _TOO_OFTEN:
            warn(
                f"Each source chunk of {name!r} will be computed {times:.1f} times, as chunks of "
                f"{dict(grain(cube[name]))} do not fit regions of {dict(sides)}. Open the cube with "
                "other chunks, or choose another layout.",
                stacklevel=4,
            )
        arrays[name] = variable.data
    return arrays


def _finish(objects: Objects, job: _Job, ledger: Ledger, fixed: Mapping[str, Digest]) -> None:
    """Check that all objects are there, wait until they are on disk, and mark the store complete."""
    digests = dict(fixed)
    for region in all_regions(job.layout, {}):
        digests |= {key: ledger.digests[key] for key in region_keys(region, job.layout)}
    sizes = objects.sizes(digests)
    if gone := [key for key, digest in digests.items() if sizes[key] != digest.size]:
        raise StoreError(f"{objects}: {gone[0]} and {len(gone) - 1} more vanished while writing. {_AGAIN}")
    objects.flush(digests)
    ledger.close(digests)
    names = sorted({key.partition("/")[0] for key in digests})
    mark = {
        "state": "complete",
        "format": FORMAT,
        "plan": digest_of(job.plan),
        "objects": len(digests),
        "bytes": sum(digest.size for digest in digests.values()),
        "arrays": {name: summed(digests, name) for name in names},
        "versions": {module.__name__: module.__version__ for module in (cubekit, numcodecs, xr, zarr)},
    }
    objects.write(ROOT, marked(job.documents[ROOT], mark))


def _swap(folder: Place) -> None:
    """Verify the new cube and let it take the old one's place."""
    report = verify(beside(folder, "next"), progress=False)
    if not report.ok:
        raise StoreError(f"The new cube is damaged, so the old one at {folder} stays. {_AGAIN}\n{report}")
    replace_store(folder)


def succeed(  # noqa: PLR0913
    folder: Path,
    cube: xr.Dataset,
    layout: Layout,
    documents: Mapping[str, bytes],
    plan: Mapping[str, Any],
    *,
    kept: Mapping[str, Digest],
    sides: Mapping[str, int],
    lock: Lock | Lease,
    scheduler: Any = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> None:
    """Build beside a finished store one that shares objects with it, and let it take the place.

    Until the last step the old store is untouched. A killed run is continued by the next one with the same
    plan; with another plan it is forgotten.

    Parameters
    ----------
    folder : pathlib.Path
        Of the old store.
    cube : xarray.Dataset
        The whole new content; what lies in kept objects is not computed.
    layout : Layout
        Of the new store.
    documents : mapping
        All that is not chunks of gridded variables.
    plan : mapping
        What decides the bytes.
    kept : mapping
        Objects that stay as they are, with their digests.
    sides : mapping
        Size of regions along time, y and x.
    lock : Lock or Lease
        Held.
    scheduler, workers, progress : object, optional
        As for `write`.
    """
    successor = beside(folder, "next")
    if look(successor).plan != plan:
        remove(successor)
    objects = objects_at(successor)
    objects.write(PLAN, to_json(plan))
    share_objects(folder, successor, kept)
    job = _Job(cube=cube, layout=layout, documents=documents, plan=plan, sides=sides, kept=kept)
    _build(job, objects, lock, _Hands(scheduler, workers, progress, watch=None))
    fresh = {key: digest for key, digest in read_ledger(objects)[1].items() if key not in kept}
    if bad := sorted(fresh.keys() - _sound(objects, fresh)):
        raise StoreError(f"{bad[0]} is damaged as written, so the old cube at {folder} stays. {_AGAIN}")
    replace_store(folder)


def _is_whole(objects: Objects) -> bool:
    """Tell whether every object of a finished store is there, by its size; `verify` reads them."""
    _, digests = read_ledger(objects)
    sizes = objects.sizes(digests)
    return bool(digests) and all(sizes[key] == digest.size for key, digest in digests.items())


def _check_layout(cube: xr.Dataset, layout: Layout) -> None:
    """Refuse a layout that was made for another cube."""
    needed = {name: (v.dims, v.shape, str(v.dtype.newbyteorder("="))) for name, v in gridded(cube).items()}
    planned = {array.name: (array.dims, array.shape, array.dtype) for array in layout.arrays}
    if needed != planned:
        raise OptionError(
            f"The layout is for {planned}, the cube has {needed}. Plan it with plan_layout(cube)."
        )


def _make_parents(folder: Place) -> None:
    """Make the folder that the store goes into."""
    if not isinstance(folder, Path):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"Cannot make {folder.parent}: {error.strerror or error}. Nothing was read."
        ) from error


def _refusal(folder: Place, state: str, changes: list[str]) -> str:
    """Say why a path is not written to."""
    if state == "foreign":
        return f"{folder} is a Zarr store that cubekit did not write. overwrite=True replaces it."
    what = "holds another cube" if state == "complete" else "was begun with another plan"
    more = f" (and {len(changes) - _REPORTED} more)" if len(changes) > _REPORTED else ""
    return (
        f"{folder} {what}. overwrite=True replaces it once the new one is finished; to go on with it, write "
        f"what was written. Differences{more}:\n  " + "\n  ".join(changes[:_REPORTED])
    )
