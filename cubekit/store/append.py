"""Put dates into a finished store: at its end, in the middle, in the place of others; all or nothing."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import xarray as xr
import zarr

from cubekit.cube.contract import geobox_of
from cubekit.cube.load import open_cube
from cubekit.cube.recipe import again, replay
from cubekit.cube.saved import by_date
from cubekit.errors import StoreError, check_kind, check_option
from cubekit.store.dates import ToDo, compare_dates
from cubekit.store.fits import differences
from cubekit.store.layout import ArrayLayout, Layout, gridded
from cubekit.store.lease import hold
from cubekit.store.ledger import read_ledger
from cubekit.store.mark import to_json
from cubekit.store.metadata import skeleton, with_documents
from cubekit.store.objects import ROOT, Digest, Objects
from cubekit.store.open import open_store
from cubekit.store.place import Place, beside, folder_of, objects_at, remove, settle
from cubekit.store.plan import digest_of, plan_of
from cubekit.store.provenance import (
    PROVENANCE,
    UNKNOWN,
    Made,
    Provenance,
    joined,
    microseconds,
    narrowed,
    provenance_of,
    read_provenance,
    to_date,
)
from cubekit.store.regions import all_regions, region_keys, region_sides
from cubekit.store.write import succeed
from cubekit.typing import StrPath

if TYPE_CHECKING:
    import pystac
    from distributed import Client

log = logging.getLogger(__name__)

OnChange = Literal["update", "replace", "keep", "raise"]
"""What happens to a date that the store has already, made from something else."""

_MEMORY = 2 * 10**9

_ELSEWHERE = (
    "Append to a local copy, or write the longer cube there with overwrite=True: the old one stays readable "
    "until the new one is whole."
)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What `append` does to a store, and what that costs; ``print`` says it."""

    path: str
    appended: tuple[np.datetime64, ...]
    """Dates after the last one of the store."""

    inserted: tuple[np.datetime64, ...]
    """Dates between or before those of the store."""

    replaced: tuple[np.datetime64, ...]
    """Dates that the store had, made from other scenes or with other options."""

    kept: int
    """Dates of the store that stay as they are."""

    written: int
    """Objects (chunks or shards) that are written; the others are shared with the old store."""

    objects: int
    """Objects of the store afterwards."""

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.appended or self.inserted or self.replaced)

    def __str__(self) -> str:
        if not self.any:
            return f"{self.path}: nothing to do, all dates are there ({self.kept} kept)"
        parts = [
            f"{len(dates)} {what} ({_shown(dates)})"
            for what, dates in (
                ("appended", self.appended),
                ("inserted", self.inserted),
                ("replaced", self.replaced),
            )
            if dates
        ]
        done = ", ".join([*parts, f"{self.kept} kept"])
        return f"{self.path}: {done}; {self.written} of {self.objects} objects written"


def append(
    cube: "xr.Dataset | Sequence[pystac.Item]",
    path: StrPath,
    *,
    on_change: OnChange = "update",
    scheduler: "str | Client | None" = None,
    workers: int | None = None,
    progress: bool | None = None,
    source: str | None = None,
) -> xr.Dataset:
    """Put the dates of a cube into a finished store; what the store has already is not read again.

    A date is known by its time and by the scenes it was made from. A new one goes where it falls, so time
    stays sorted; one that is there from the same scenes is left alone, so that calling this twice changes
    nothing; one that is there from other scenes is replaced. The new state is built beside the old one and
    takes its place in one step: killed at any moment, the old cube stays, and the same call goes on.

    Parameters
    ----------
    cube : xarray.Dataset or sequence of pystac.Item
        With the grid, bands, types, coding and options of the store; a search over old and new dates will do,
        as only the scenes of new dates are read. Variables without time are taken from the store. Items are
        opened with the options of the store.
    path : path-like
        Local folder with a finished store.
    on_change : {"update", "replace", "keep", "raise"}, optional
        What to do with a date that the store has from other scenes. ``"update"``: replace it, but refuse
        where a stored scene would be lost, which the cube neither has nor covers with a newer version.
        ``"replace"``: take the cube's. ``"keep"``: take the store's. ``"raise"``: an error.
    scheduler, workers, progress : object, optional
        As for `write`.
    source : str, optional
        Name of the computation, where Dask's own names are random; see `write`.

    Returns
    -------
    xarray.Dataset
        The store, opened as by `open_store`.

    Raises
    ------
    IncompleteStoreError
        If the store is not finished.
    StoreError
        If there is no store, the cube does not fit it (with the differences), or the store is being written.

    Notes
    -----
    Objects whose dates stay are shared (hard links; copies where the file system has none), so the cost is
    that of the changed ones. With ``t`` dates in an object: dates at the end write their own objects and
    rewrite the last one if it is not full; a replaced date rewrites the objects of its ``t`` dates; an
    inserted one rewrites all objects from its place on. A cube whose dates are made from each other
    (`fill_gaps`) changes at every date, and is written anew. Overviews are left out,
    as they show the old dates: call `add_overviews` again.
    """
    check_option("on_change", on_change, ("update", "replace", "keep", "raise"))
    folder = folder_of(path, "append", _ELSEWHERE)
    open_store(folder)  # before anything is locked or made
    with hold(folder) as lock:
        settle(folder)
        work = _Work.of(cube, folder, on_change, source)
        log.info("%s", work.changes)
        if work.changes.any:
            succeed(
                folder,
                work.cube,
                work.layout,
                work.documents,
                work.plan,
                kept=work.kept,
                sides=work.sides,
                lock=lock,
                scheduler=scheduler,
                workers=workers,
                progress=progress,
            )
        remove(beside(folder, "next"))  # of an append that was given up
    return open_store(folder)


def plan_append(
    cube: "xr.Dataset | Sequence[pystac.Item]",
    path: StrPath,
    *,
    on_change: OnChange = "update",
    source: str | None = None,
) -> Changes:
    """Say what `append` would do, and what it would cost; nothing is read or written.

    Parameters
    ----------
    cube : xarray.Dataset or sequence of pystac.Item
        As for `append`, like the other parameters.
    path : path-like
        Of the store.
    on_change : {"update", "replace", "keep", "raise"}, optional
        What to do with a date that the store has from other scenes.
    source : str, optional
        Name of the computation.

    Returns
    -------
    Changes
        Dates and numbers of objects.

    Raises
    ------
    StoreError
        As for `append`.
    """
    check_option("on_change", on_change, ("update", "replace", "keep", "raise"))
    return _Work.of(cube, folder_of(path, "append", _ELSEWHERE), on_change, source).changes


class _Work(NamedTuple):
    """A store and a cube, put together."""

    cube: xr.Dataset
    layout: Layout
    documents: dict[str, bytes]
    plan: dict[str, Any]
    kept: dict[str, Digest]
    sides: dict[str, int]
    changes: Changes

    @classmethod
    def of(cls, given: Any, folder: Place, on_change: OnChange, source: str | None) -> "_Work":
        """Compare a cube with a store, and plan what is to be written."""
        stored, objects = open_store(folder), objects_at(folder)
        recorded = read_provenance(objects)
        check_kind("cube", given, (xr.Dataset, Sequence), "open one with cubekit.open_cube")
        cube = given if isinstance(given, xr.Dataset) else _opened(given, stored, recorded)
        if found := differences(stored, cube):
            raise StoreError(
                f"The cube does not fit the store at {folder}:\n  "
                + "\n  ".join(found)
                + "\nOpen it with the "
                "options of the store, or write it to another one."
            )
        if not cube.indexes["time"].is_monotonic_increasing:  # sorting changes Dask's names
            cube = cube.sortby("time")
        old = recorded or _unknown(stored)
        new = provenance_of(cube, source)
        todo = compare_dates(old, new, on_change, str(folder))
        layout = stored_layout(folder, len(todo.order))
        sides = region_sides(stored, layout) | {"time": _steps(layout)}
        kept = _kept(objects, layout, sides, todo)
        merged = _merged(stored, _narrow(cube, new, todo), todo)
        sides = sides if kept else region_sides(merged, layout)
        origin = joined(old, new, todo.order)
        merged.attrs |= _listed(merged, origin)
        documents = _documents(objects, merged, layout)
        plan = plan_of(merged, layout, documents, origin.digest())
        documents[PROVENANCE] = origin.signed(digest_of(plan)).document()
        keys = [key for region in all_regions(layout, {}) for key in region_keys(region, layout)]
        changes = Changes(
            path=str(folder),
            **{
                name: tuple(to_date(new.dates[number].time) for number in getattr(todo, name))
                for name in ("appended", "inserted", "replaced")
            },
            kept=sum(not is_new for is_new, _ in todo.order),
            written=len(keys) - len(kept),
            objects=len(keys),
        )
        return cls(merged, layout, documents, plan, kept, sides, changes)


def _opened(items: "Sequence[pystac.Item]", stored: xr.Dataset, provenance: Provenance | None) -> xr.Dataset:
    """Open items with the options of a store, and take its steps."""
    known = [origin for origin in provenance.origins if len(origin.plans) == 1] if provenance else []
    if not known:
        raise StoreError("The store does not say how items were opened for it. Open them, and give the cube.")
    origin, plan = known[-1], known[-1].opened[0]
    masks = str(origin.attrs.get("mask", ""))
    given = {form.dtype for form in plan.forms}
    cube = open_cube(
        items,
        geobox_of(stored),
        bands=plan.bands,
        mask=masks.split("+") if masks else None,
        dilate=plan.mask.dilate if plan.mask else 0,
        opening=plan.mask.opening if plan.mask else 0,
        resampling=dict(zip(plan.bands, plan.resampling, strict=True)),  # type: ignore[arg-type]
        group_by=origin.attrs.get("group_by", "solar_day"),
        dtype="float32" if plan.encoding.dtype == "float32" and "float32" not in given else None,
        on_error="record" if plan.on_error == "record" else "raise",
    )
    return again(cube, origin.recipe, stored.indexes["time"].to_numpy())


def stored_layout(folder: Place, times: int | None = None) -> Layout:
    """Return the layout of a store.

    Parameters
    ----------
    folder : pathlib.Path or Remote
        Of the store.
    times : int, optional
        Number of dates that it is to have; chunks and shards stay as they are.

    Returns
    -------
    Layout
        Of its gridded variables.
    """
    group = zarr.open_group(objects_at(folder).store, mode="r")
    arrays = []
    for name, variable in gridded(open_store(folder)).items():
        array: Any = group[name]
        dims = tuple(map(str, variable.dims))
        sizes = zip(dims, array.shape, strict=True)
        shape = tuple(size if times is None or dim != "time" else times for dim, size in sizes)
        arrays.append(
            ArrayLayout(
                name=name,
                dims=dims,
                shape=shape,
                dtype=str(array.dtype.newbyteorder("=")),
                chunks=tuple(array.chunks),
                shards=None if array.shards is None else tuple(array.shards),
            )
        )
    return Layout(use="as stored", arrays=tuple(arrays), memory=_MEMORY)


def _steps(layout: Layout) -> int:
    """Return the dates in one object; variables with other numbers end together at the largest."""
    sides = [array.objects[array.dims.index("time")] for array in layout.arrays if "time" in array.dims]
    return int(np.lcm.reduce(sides)) if sides else 1


def _kept(objects: Objects, layout: Layout, sides: dict[str, int], todo: ToDo) -> dict[str, Digest]:
    """Return the objects in which no date changes."""
    digests = read_ledger(objects)[1]
    step, before = sides["time"], todo.before
    same = [place < before and entry == (False, place) for place, entry in enumerate(todo.order)]
    length = len(todo.order)
    quiet = {
        start
        for start in range(0, length, step)
        if all(same[start : start + step]) and min(start + step, before) == min(start + step, length)
    }
    kept = {}
    for region in all_regions(layout, sides):
        for array in layout.arrays:
            if region.bounds[0][0] in quiet or "time" not in array.dims:
                for key in region.keys(array):
                    if key not in digests:
                        raise StoreError(f"{objects}: the ledger does not know {key}. Run cubekit.repair.")
                    kept[key] = digests[key]
    return kept


def _narrow(cube: xr.Dataset, new: Provenance, todo: ToDo) -> xr.Dataset:
    """Return the cube with new dates only, made from their scenes only: other scenes are not even opened."""
    numbers = sorted(number for is_new, number in todo.order if is_new)
    origin = new.origins[0]
    if origin.proved and numbers:
        origin = narrowed(origin, [new.dates[number].time for number in numbers])
        small = replay(by_date(origin.opened[0]), origin.attrs, origin.recipe)
        wanted = cube["time"].isel(time=numbers)
        if np.isin(wanted, small["time"]).all():
            return small.sel(time=wanted)
    return cube.isel(time=numbers)


def _merged(stored: xr.Dataset, fresh: xr.Dataset, todo: ToDo) -> xr.Dataset:
    """Lay dates of the store and of the cube behind each other."""
    dated = [name for name, variable in stored.variables.items() if "time" in variable.dims]
    place = {number: n for n, number in enumerate(sorted(number for is_new, number in todo.order if is_new))}
    pieces = []
    for is_new, run in groupby(todo.order, key=lambda entry: entry[0]):
        numbers = [place[number] if is_new else number for _, number in run]
        pieces.append((fresh if is_new else stored).isel(time=_span(numbers)))
    merged = stored.drop_vars(dated)
    for name in dated:
        variables = [piece[name].variable.to_base_variable() for piece in pieces]
        first = stored[name].variable
        concat: Any = xr.Variable.concat
        joint = concat(variables, "time") if len(variables) > 1 else variables[0]
        joint = xr.Variable(first.dims, joint.data, first.attrs, first.encoding)
        merged = (
            merged.assign_coords({name: joint}) if name in stored.coords else merged.assign({name: joint})
        )
    return merged


def _span(numbers: Sequence[int]) -> slice | list[int]:
    """Return a slice where numbers follow each other, which keeps the blocks of lazy arrays whole."""
    whole = list(range(numbers[0], numbers[0] + len(numbers)))
    return slice(numbers[0], numbers[-1] + 1) if list(numbers) == whole else list(numbers)


def _documents(objects: Objects, merged: xr.Dataset, layout: Layout) -> dict[str, bytes]:
    """Encode everything but pixels; gridded arrays keep the codecs of the objects that are shared."""
    documents = skeleton(merged, layout)
    for array in layout.arrays:
        key = f"{array.name}/{ROOT}"
        fresh, kept = json.loads(documents[key]), json.loads(objects.read(key) or b"{}")
        kept["shape"] = list(array.shape)
        if kept != fresh:
            documents[key] = to_json(kept)
    return documents | {ROOT: with_documents(documents[ROOT], documents)}


def _listed(merged: xr.Dataset, origin: Provenance) -> dict[str, Any]:
    """Return the attributes that list items, for the dates there are."""
    if "items" not in merged.attrs or any(date.origin == UNKNOWN for date in origin.dates):
        return {}
    found = origin.items()
    return {"items": list(found), "item_shifts": list(found.values())} if found else {}


def _unknown(stored: xr.Dataset) -> Provenance:
    """Stand in for what a store does not say about its dates."""
    return Provenance(dates=tuple(Made(int(time), "", UNKNOWN) for time in microseconds(stored)))


def _shown(dates: Iterable[np.datetime64]) -> str:
    """Show a few dates."""
    texts = [str(date)[:10] for date in dates]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
