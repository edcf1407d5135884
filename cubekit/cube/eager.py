"""A lazy cube into memory, each block straight to its place."""

import math
from collections.abc import Mapping
from typing import Any

import dask.array as da
import dask.threaded
import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from cubekit.cube.fuse import load_block
from cubekit.cube.load import plan_behind
from cubekit.cube.plan import Plan
from cubekit.errors import check_kind
from cubekit.progress import Advance
from cubekit.progress import progress as show
from cubekit.typing import Array


def load(cube: xr.Dataset, *, workers: int | None = None, progress: bool | None = None) -> xr.Dataset:
    """Load a lazy cube into memory, by threads of this process.

    The same values as ``cube.compute()``. That keeps every block until the last one is there and then copies
    them all, one after the other; this puts each block into the result as soon as it is made, so there is no
    second copy of everything. Blocks of scenes are even made in their place.

    Parameters
    ----------
    cube : xarray.Dataset
        From :func:`open_cube`, :func:`composite`, :func:`open` and the like. Variables that are in memory
        already are shared, not copied.
    workers : int, optional
        Threads. Default: what Dask is configured for, else the number of processors.
    progress : bool, optional
        Whether to draw a bar; by default on a terminal only, elsewhere a line at each tenth of long work.

    Returns
    -------
    xarray.Dataset
        Same variables, coordinates, attributes and coding; NumPy arrays in the dtype of `cube`.

    Raises
    ------
    SourceError
        When an asset cannot be read; names item and asset.

    Examples
    --------
    >>> cube = load(open_cube(items, bands=["red", "nir"]))  # doctest: +SKIP
    """
    check_kind("cube", cube, xr.Dataset, "pass what open_cube() returns")
    lazy = {str(name): found.data for name, found in cube.variables.items() if is_dask_collection(found.data)}
    arrays = {name: np.empty(found.shape, found.dtype) for name, found in lazy.items()}
    blocks = sum(math.prod(found.numblocks) for found in lazy.values())
    options: dict[str, Any] = {} if workers is None else {"num_workers": workers}
    with show("load", blocks, unit="blocks", enabled=progress) as advance:
        plans = _plans(lazy)
        for name, plan in plans.items():
            _read(plan, arrays[name], advance, options)
        targets = [_Target(array, advance) for name, array in arrays.items() if name not in plans]
        if targets:
            sources = [found for name, found in lazy.items() if name not in plans]
            da.store(sources, targets, lock=False, scheduler="threads", **options)  # type: ignore[arg-type]
    return cube.assign({name: cube[name].copy(data=array) for name, array in arrays.items()})


def _plans(lazy: Mapping[str, Any]) -> dict[str, Plan]:
    """Return the plans of variables that are read from scenes as they are, and by nobody else."""
    plans: dict[str, Plan] = {}
    for name, array in lazy.items():
        shared = any(array.name in other.dask.layers for key, other in lazy.items() if key != name)
        plan = None if shared else plan_behind(array)
        if plan is not None and plan.on_error != "record":  # which gives pairs of blocks
            plans[name] = plan
    return plans


def _read(plan: Plan, out: Array, advance: Advance, options: Mapping[str, Any]) -> None:
    """Let every block of a cube be made in its place: memory is touched once."""
    blocks = list(np.ndindex(*map(len, plan.chunks)))

    def fill(number: int) -> None:
        times, rows, cols = plan.region(blocks[number])
        load_block(plan, blocks[number], out[times, :, rows, cols])
        advance()

    tasks = {("load", number): (fill, number) for number in range(len(blocks))}
    dask.threaded.get(tasks, list(tasks), **options)


class _Target:
    """An array that counts the blocks that it is given."""

    def __init__(self, array: Array, advance: Advance) -> None:
        self._array, self._advance = array, advance
        self.shape, self.dtype = array.shape, array.dtype

    def __dask_tokenize__(self) -> object:
        return id(self)  # what is in it does not matter: Dask would hash all of it

    def __setitem__(self, region: tuple[slice, ...], block: Array) -> None:
        self._array[region] = block
        self._advance()
