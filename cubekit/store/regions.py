"""The unit of work of a writer: a box of whole objects of all variables, computed and written by one task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import ceil, lcm, prod
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.array import store
from dask.base import compute

from cubekit.errors import StoreError
from cubekit.store.encode import Encoder
from cubekit.store.layout import ArrayLayout, Layout, grain
from cubekit.store.objects import Digest, Objects
from cubekit.typing import Array

SPLIT = ("time", "y", "x")
"""Dimensions that regions divide; along all others a region is whole."""


@dataclass(frozen=True)
class Region:
    """A box of the cube; no other region shares an object with it."""

    bounds: tuple[tuple[int, int], ...]
    """First and one past the last index along time, y and x."""

    def __str__(self) -> str:
        return ", ".join(f"{dim} {a}:{b}" for dim, (a, b) in zip(SPLIT, self.bounds, strict=True))

    def window(self, array: ArrayLayout) -> tuple[slice, ...] | None:
        """Return the part of a variable that belongs to this region; None where it belongs to another one."""
        bounds = dict(zip(SPLIT, self.bounds, strict=True))
        if "time" not in array.dims and bounds["time"][0]:
            return None  # variables without time go with the first dates
        return tuple(
            slice(bounds[dim][0], min(bounds[dim][1], size)) if dim in bounds else slice(0, size)
            for dim, size in zip(array.dims, array.shape, strict=True)
        )

    def keys(self, array: ArrayLayout) -> list[str]:
        """Return the keys of the objects of a variable in this region."""
        window = self.window(array)
        if window is None:
            return []
        steps = zip(window, array.objects, strict=True)
        indices = product(*(range(part.start // step, ceil(part.stop / step)) for part, step in steps))
        return ["/".join([array.name, "c", *map(str, index)]) for index in indices]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker needs to fill a region."""

    objects: Objects
    region: Region
    blocks: tuple[tuple[ArrayLayout, Any], ...]
    """Variables with the lazy arrays of their windows."""


def region_sides(cube: xr.Dataset, layout: Layout) -> dict[str, int]:
    """Choose the size of regions: whole objects, and where memory allows whole source chunks.

    Best is the shortest length that ends where objects and source chunks both end; second one that holds a
    source chunk.

    Parameters
    ----------
    cube : xarray.Dataset
        What is written.
    layout : Layout
        Its objects and memory budget.

    Returns
    -------
    dict
        Length along time, y and x.
    """
    sizes = {
        dim: max([a.shape[a.dims.index(dim)] for a in layout.arrays if dim in a.dims], default=1)
        for dim in SPLIT
    }
    sides = {dim: _object_side(layout, dim, sizes[dim]) for dim in SPLIT}
    chunks = [grain(cube[array.name]) for array in layout.arrays]
    allowed = max(layout.memory / 4, 2 * _source_bytes(layout, chunks))
    for dims in (("y", "x"), ("time",)):
        source = {dim: max(chunk.get(dim, 1) for chunk in chunks) for dim in dims}
        ending = {dim: lcm(sides[dim], source[dim]) for dim in dims}
        holding = {dim: sides[dim] * ceil(source[dim] / sides[dim]) for dim in dims}
        for longer in (ending, holding):
            grown = sides | {dim: min(longer[dim], sizes[dim]) for dim in dims}
            if region_bytes(layout, grown) <= allowed:
                sides = grown
                break
    return sides


def region_bytes(layout: Layout, sides: Mapping[str, int]) -> int:
    """Count the bytes of one region, all variables together, before compression."""
    return sum(
        array.itemsize
        * prod(min(sides.get(dim, size), size) for dim, size in zip(array.dims, array.shape, strict=True))
        for array in layout.arrays
    )


def all_regions(layout: Layout, sides: Mapping[str, int]) -> Iterator[Region]:
    """Cut the cube into regions.

    Parameters
    ----------
    layout : Layout
        Shapes of the variables.
    sides : mapping
        From `region_sides`; a dimension that is left out stays whole.

    Yields
    ------
    Region
        Time outermost, x innermost.
    """
    axes, sizes = [], _sizes(layout)
    for dim in SPLIT:
        size = sizes[dim]
        step = sides.get(dim, size)
        axes.append([(start, min(start + step, size)) for start in range(0, size, step)])
    yield from (Region(bounds) for bounds in product(*axes))


def region_keys(region: Region, layout: Layout) -> list[str]:
    """Return the keys of all objects in a region."""
    return [key for array in layout.arrays for key in region.keys(array)]


def task_of(objects: Objects, region: Region, layout: Layout, lazy: Mapping[str, Any]) -> Task:
    """Return what a worker needs to fill a region.

    Parameters
    ----------
    objects : Objects
        Where to write.
    region : Region
        What to write.
    layout : Layout
        Of all variables.
    lazy : mapping
        Dask array of each variable.

    Returns
    -------
    Task
        With the part of each Dask array that lies in the region.
    """
    windows = [(array, region.window(array)) for array in layout.arrays]
    blocks = tuple((array, lazy[array.name][window]) for array, window in windows if window is not None)
    return Task(objects=objects, region=region, blocks=blocks)


def computations(chunks: Mapping[Any, tuple[int, ...]], sides: Mapping[str, int]) -> float:
    """Count how often a source chunk is computed on average, as regions cut through chunks.

    Parameters
    ----------
    chunks : mapping
        Dimension to lengths of the source chunks.
    sides : mapping
        From `region_sides`.

    Returns
    -------
    float
        1 where every chunk lies in one region.
    """
    times = 1.0
    for dim, lengths in chunks.items():
        ends = np.cumsum(lengths)
        side = sides.get(str(dim), int(ends[-1]))
        touched = (ends - 1) // side - (ends - lengths) // side + 1
        times *= float(touched.mean())
    return times


def fill(task: Task, **how: Any) -> dict[str, Digest]:
    """Compute a region and write its objects; runs on a worker.

    Parameters
    ----------
    task : Task
        What to compute and where to put it.
    **how : object
        Passed to `dask.compute`.

    Returns
    -------
    dict
        Digest of every object written.

    Raises
    ------
    StoreError
        If the arrays are not what they promised, or an object cannot be written. Errors of the computation
        pass through.
    """
    objects, written = task.objects, dict[str, Digest]()
    for array, block in _computed(task, how):
        try:
            encoder = Encoder(array, zarr.open_array(objects.store, path=array.name, mode="r"))
            for key, parts in zip(task.region.keys(array), encoder.objects(block), strict=True):
                written[key] = objects.write_parts(key, parts)
        except OSError as error:
            raise StoreError(
                f"Cannot write {array.name}, {task.region}, to {objects}: {error.strerror or error}. "
                "Finished regions are kept: make room, or permit writing, and run write again."
            ) from error
    return written


class _Room:
    """Room for a variable of a region: takes its blocks as they come, and refuses what was not promised."""

    def __init__(self, name: str, values: Array) -> None:
        self._name, self._values = name, values
        self.shape, self.dtype = values.shape, values.dtype

    def __dask_tokenize__(self) -> object:
        return id(self)  # what is in it does not matter: Dask would hash all of it

    def __setitem__(self, window: tuple[slice, ...], block: Array) -> None:
        part = self._values[window]
        part[...] = _checked(block, self._name, part.shape, self.dtype)


def _computed(task: Task, how: Mapping[str, Any]) -> Iterator[tuple[ArrayLayout, Array]]:
    """Compute all variables of a region together, and yield them one by one.

    Where a variable comes in several blocks, each is put into its place at once: Dask would keep them all
    until the last one is there, and copy them then.
    """
    rooms = [
        np.empty(_shape(task.region, array), array.dtype) if prod(block.numblocks) > 1 else None
        for array, block in task.blocks
    ]
    lazy = [
        block if room is None else store(block, _Room(array.name, room), lock=False, compute=False)  # type: ignore[arg-type]
        for (array, block), room in zip(task.blocks, rooms, strict=True)
    ]
    values = list(compute(*lazy, **how))  # type: ignore[no-untyped-call]
    for array, _ in task.blocks:
        value, room = values.pop(0), rooms.pop(0)
        if room is None:
            room = _checked(np.asarray(value), array.name, _shape(task.region, array), np.dtype(array.dtype))
        del value
        yield array, room


def _shape(region: Region, array: ArrayLayout) -> tuple[int, ...]:
    """Return the shape of a variable in a region that it belongs to."""
    return tuple(part.stop - part.start for part in region.window(array) or ())


def _checked(block: Array, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Refuse a block that is not what its lazy array promised: writing it would cast numbers silently."""
    if block.shape != shape or block.dtype.newbyteorder("=") != dtype:
        raise StoreError(
            f"Variable {name!r}: {block.dtype} {block.shape} computed, {dtype} {shape} expected. "
            "Give map_blocks or apply_ufunc the right dtype and shape."
        )
    return block


def _sizes(layout: Layout) -> dict[str, int]:
    """Return the length of the dimensions that regions divide; 1 for one that no variable has."""
    return {dim: next((a.size(dim) for a in layout.arrays if dim in a.dims), 1) for dim in SPLIT}


def _object_side(layout: Layout, dim: str, size: int) -> int:
    """Return the shortest length that is whole objects of every variable."""
    found = [
        (a.objects[axis], a.grid[axis])
        for a in layout.arrays
        if dim in a.dims
        for axis in [a.dims.index(dim)]
    ]
    if not found or any(count == 1 for _, count in found):
        return size
    return min(lcm(*(side for side, _ in found)), size)


def _source_bytes(layout: Layout, chunks: list[dict[str, int]]) -> int:
    """Return the size of the largest source chunk."""
    return max(
        array.itemsize * prod(chunk.get(dim, 1) for dim in array.dims) if chunk else 0
        for array, chunk in zip(layout.arrays, chunks, strict=True)
    )
