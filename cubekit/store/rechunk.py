"""Bring a stored cube into another layout in bounded memory: one pass, or two over a store in between."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
import zarr
from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from cubekit.errors import StoreError
from cubekit.store.layout import Layout, Sizes, Use, gridded, plan_layout, shown_bytes
from cubekit.store.metadata import skeleton
from cubekit.store.objects import SIDE
from cubekit.store.open import open_store
from cubekit.store.place import Place, beside, look, no_store, objects_at, place_of, remove
from cubekit.store.plan import plan_of
from cubekit.store.regions import SPLIT, computations, region_bytes
from cubekit.store.write import write
from cubekit.typing import StrPath

_TOO_OFTEN = 2.0
_NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
_OTHER_NAMES = {"lat": "y", "latitude": "y", "lon": "x", "longitude": "x"}


@dataclass(frozen=True, kw_only=True)
class Rechunking:
    """How a cube is brought into another layout; ``print`` says it."""

    layout: Layout
    """Of the result."""

    sides: Mapping[str, int]
    """Lengths of what the last pass writes at once."""

    between: Layout | None
    """Of the store in between; None for a single pass."""

    between_sides: Mapping[str, int]
    """Lengths of what the first of two passes writes at once."""

    reads: float
    """How often a chunk of the source is decoded on average."""

    memory: int
    """Bytes held at once, all workers together, at most."""

    def __str__(self) -> str:
        passes = (
            "one pass"
            if self.between is None
            else f"two passes, {shown_bytes(_volume(self.between))} in between"
        )
        return (
            f"Rechunk in {passes}, at most {shown_bytes(self.memory)} of memory, "
            f"each source chunk is decoded {self.reads:.1f} times\n{self.layout}"
        )


def plan_rechunk(
    source: StrPath,
    layout: Use | Sizes | Layout | None = None,
    *,
    memory: int | str = "2GB",
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Rechunking:
    """Say how `rechunk` would work, before a pixel is read.

    Parameters
    ----------
    source : path-like
        As for `rechunk`.
    layout : {"series", "patches", "maps"}, mapping or Layout, optional
        Of the result.
    memory : int or str, optional
        What all workers together may hold.
    workers : int, optional
        Threads or processes. Default: one for each core.
    storage_options : mapping, optional
        How to reach an object store.

    Returns
    -------
    Rechunking
        Passes, memory and layout.

    Raises
    ------
    StoreError
        If the source cannot be opened, or one source chunk and one target shard do not fit the memory.
    """
    found = _Source.at(source, storage_options)
    final = _layout(found, layout, parse_bytes(memory))
    return _plan(found, final, parse_bytes(memory), workers or CPU_COUNT)


def rechunk(  # noqa: PLR0913  (as write: all keyword-only)
    source: StrPath,
    path: StrPath,
    *,
    layout: Use | Sizes | Layout | None = None,
    memory: int | str = "2GB",
    overwrite: bool = False,
    scheduler: Any = None,
    workers: int | None = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Copy a cube into a store of another layout; run it again after a crash and it goes on.

    Where a single pass would decode every source chunk more than twice, the cube goes through a store in
    between, whose chunks suit both sides (the scheme of the rechunker package). It lies beside the result,
    takes about as much room, and is removed at the end. Numbers and attributes stay as they are.

    Parameters
    ----------
    source : path-like
        A finished store, any Zarr store of version 2 or 3 (checked first; see `open_store`), or a NetCDF
        file. Dimensions ``lat`` and ``lon`` become ``y`` and ``x``. A lazy cube is simply written.
    path : path-like
        Where to write, as for `write`; not the source.
    layout : {"series", "patches", "maps"}, mapping or Layout, optional
        See `plan_layout`.
    memory : int or str, optional
        What all workers together may hold. `plan_rechunk` says what will be taken.
    overwrite : bool, optional
        Replace another cube at ``path`` once the new one is finished and verified.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes, as for `write`.
    workers : int, optional
        Threads or processes. Default: one for each core.
    progress : bool, optional
        Whether to draw bars. Default: where standard error is a terminal.
    storage_options : mapping, optional
        How to reach an object store, for source and result; see `write`.

    Returns
    -------
    xarray.Dataset
        The new store, opened as by `open_store`.

    Raises
    ------
    StoreError
        If the source cannot be opened or is unfinished, changed since an interrupted run, is the result, or
        does not fit the memory; and as `write` does.
    """
    found = _Source.at(source, storage_options)
    target = place_of(path, storage_options if "://" in str(path) else None)
    if str(found.place) == str(target):
        raise StoreError(f"{target} cannot be rechunked onto itself: give another path.")
    final = _layout(found, layout, parse_bytes(memory))
    plan = _plan(found, final, parse_bytes(memory), workers or CPU_COUNT)
    cube, between = found.open(plan.sides), beside(target, "between")
    hands = _Hands(scheduler=scheduler, workers=workers, progress=progress, source=found.digest())
    if plan.between is not None and not _is_done(target, cube, final, hands.source):
        write(found.open(plan.between_sides), between, layout=plan.between, overwrite=True, **hands._asdict())
        kept = open_store(between, chunks=plan.sides)
        cube = cube.assign({a.name: cube[a.name].copy(data=kept[a.name].data) for a in final.arrays})
    write(cube, target, layout=final, overwrite=overwrite, **hands._asdict())
    remove(between)
    return open_store(target)


class _Hands(NamedTuple):
    """Who writes, and what the writer calls the source."""

    scheduler: Any
    workers: int | None
    progress: bool | None
    source: str


@dataclass(frozen=True)
class _Source:
    """What is to be rechunked."""

    place: Place
    foreign: bool

    @classmethod
    def at(cls, source: StrPath, options: Mapping[str, Any] | None) -> "_Source":
        """Find out what there is at a path."""
        place = place_of(source, options if "://" in str(source) else None)
        if isinstance(place, Path) and place.is_file() and place.suffix.lower() in _NETCDF:
            return cls(place, foreign=True)
        found = look(place)
        if found.state == "absent":
            raise StoreError(no_store(place))
        return cls(place, foreign=found.state == "foreign")

    @property
    def is_file(self) -> bool:
        """Whether it is a NetCDF file."""
        return isinstance(self.place, Path) and self.place.is_file()

    def open(self, sides: Mapping[str, int] | None = None) -> xr.Dataset:
        """Open it lazily as stored numbers, to be read in windows of these lengths, or (None) whole."""
        whole = -1 if self.is_file else 1 << 62
        wanted = {**dict.fromkeys((*SPLIT, *_OTHER_NAMES), whole), **(sides or {})}
        chunks = wanted | {old: wanted[new] for old, new in _OTHER_NAMES.items()}
        cube = self._netcdf(chunks) if self.is_file else self._store(chunks)
        names = {old: new for old, new in _OTHER_NAMES.items() if old in cube.dims and new not in cube.dims}
        return cube.rename(names)

    def _store(self, chunks: Mapping[str, int]) -> xr.Dataset:
        return open_store(self.place, allow_incomplete=self.foreign, chunks=chunks)

    def _netcdf(self, chunks: Mapping[str, int]) -> xr.Dataset:
        from xarray.coders import CFDatetimeCoder

        try:
            cube = xr.open_dataset(
                str(self.place),
                mask_and_scale=False,
                decode_times=CFDatetimeCoder(time_unit="ns"),
                decode_timedelta=False,
                decode_coords="all",
            )
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.place} cannot be opened as NetCDF: {error}") from error
        return cube.chunk({dim: side for dim, side in chunks.items() if dim in cube.dims})

    def chunks(self, cube: xr.Dataset) -> dict[str, int]:
        """Return the lengths in which the heaviest variable can be decoded."""
        heavy = max(gridded(cube).values(), key=lambda variable: variable.nbytes)
        if self.is_file:
            own = heavy.encoding.get("chunksizes") or (*(1,) * (heavy.ndim - 1), heavy.shape[-1])
        else:
            own = zarr.open_array(objects_at(self.place).store, path=str(heavy.name), mode="r").chunks
        return dict(zip(map(str, heavy.dims), map(int, own), strict=True))

    def digest(self) -> str:
        """Name the source by what it is: another content is another name, so that nothing is mixed."""
        total = hashlib.sha256(str(self.place).encode())
        if isinstance(self.place, Path) and self.is_file:
            found = self.place.stat()
            total.update(f"{found.st_size} {found.st_mtime_ns}".encode())
        else:
            objects = objects_at(self.place)
            for key in objects.keys():  # noqa: SIM118
                if not key.startswith((SIDE, "overviews/")):
                    total.update(f"{key} {objects.size(key)} {objects.stamp(key)}\n".encode())
        return f"rechunk-{total.hexdigest()[:32]}"


def _layout(source: _Source, layout: Use | Sizes | Layout | None, memory: int) -> Layout:
    """Return the layout of the result; the chunks of the source do not bind it, as it is read in windows."""
    return layout if isinstance(layout, Layout) else plan_layout(source.open(), layout, memory=memory)


def _is_done(target: Place, cube: xr.Dataset, layout: Layout, source: str) -> bool:
    """Tell whether the result is there already, so that no store in between is needed."""
    found = look(target)
    return found.state == "complete" and found.plan == plan_of(cube, layout, skeleton(cube, layout), source)


def _plan(source: _Source, layout: Layout, memory: int, workers: int) -> Rechunking:
    """Choose one pass, or two and what lies in between."""
    sizes = {dim: next((a.size(dim) for a in layout.arrays if dim in a.dims), 1) for dim in SPLIT}
    cube = source.open()
    chunks = source.chunks(cube)
    room = memory // (3 * min(workers + 1, 3))  # a writer holds a region about three times
    target = _objects(layout, sizes)
    last = _grown(target, {d: chunks.get(d, 1) for d in SPLIT}, sizes, layout, room)
    if (least := region_bytes(layout, target)) * 3 > memory:
        raise StoreError(
            f"One shard of the result takes {shown_bytes(least)}; three times that is more than the "
            f"memory of {shown_bytes(memory)}. Give more memory, or a layout with smaller shards."
        )
    reads = _reads(chunks, last, sizes)
    if reads <= _TOO_OFTEN:
        held = min(workers + 1, max(1, memory // (3 * region_bytes(layout, last))))
        return Rechunking(
            layout=layout, sides=last, between=None, between_sides={}, reads=reads,
            memory=3 * held * region_bytes(layout, last),
        )  # fmt: skip
    first = {dim: min(chunks.get(dim, 1), sizes[dim]) for dim in SPLIT}
    first = _grown(first, target, sizes, layout, room)
    piece = {dim: min(first[dim], last[dim]) for dim in SPLIT}
    first = {dim: min(piece[dim] * ceil(first[dim] / piece[dim]), sizes[dim]) for dim in SPLIT}
    between = plan_layout(cube, piece, memory=memory)
    heaviest = max(region_bytes(layout, sides) for sides in (first, last))
    held = min(workers + 1, max(1, memory // (3 * heaviest)))
    return Rechunking(
        layout=layout, sides=last, between=between, between_sides=first,
        reads=_reads(chunks, first, sizes), memory=3 * held * heaviest,
    )  # fmt: skip


def _grown(
    start: Mapping[str, int], towards: Mapping[str, int], sizes: Mapping[str, int], layout: Layout, room: int
) -> dict[str, int]:
    """Lengthen a box by whole multiples towards another one, as far as it fits the room."""
    sides = {dim: min(start[dim], sizes[dim]) for dim in SPLIT}
    for dim in ("x", "y", "time"):
        goal = min(max(towards[dim], sides[dim]), sizes[dim])
        times = ceil(goal / sides[dim])
        fitting = max(1, room // max(1, region_bytes(layout, sides)))
        sides[dim] = min(sides[dim] * min(times, fitting), sizes[dim])
    return sides


def _objects(layout: Layout, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the lengths that hold whole objects of every variable."""
    sides = {}
    for dim in SPLIT:
        found = [a.objects[a.dims.index(dim)] for a in layout.arrays if dim in a.dims]
        longest = max(found, default=1)
        sides[dim] = sizes[dim] if any(longest % side for side in found) else min(longest, sizes[dim])
    return sides


def _reads(chunks: Mapping[str, int], sides: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Count how often a source chunk is decoded on average."""
    lengths = {
        dim: (step,) * (sizes[dim] // step) + ((sizes[dim] % step,) if sizes[dim] % step else ())
        for dim in SPLIT
        for step in [min(chunks.get(dim, 1), sizes[dim])]
    }
    return computations(lengths, sides)


def _volume(layout: Layout) -> int:
    """Count the bytes of all variables."""
    return sum(prod(array.shape) * array.itemsize for array in layout.arrays)
