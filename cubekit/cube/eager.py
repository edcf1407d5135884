"""A lazy cube into memory, each block straight to its place."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from dask.system import CPU_COUNT

from cubekit.cube.fuse import load_block
from cubekit.cube.load import plan_behind
from cubekit.errors import check_kind
from cubekit.progress import Advance
from cubekit.progress import progress as show
from cubekit.typing import Array

Window: TypeAlias = tuple[slice, ...]


@runtime_checkable
class Stored(Protocol):
    """An array on disk that puts parts of itself right into their place."""

    shape: tuple[int, ...]

    def pieces(self) -> Iterable[Window]:
        """Windows to read, in any order, which together are the whole array."""

    def read(self, window: Window, *, out: Array) -> Array:
        """Read a window.

        Parameters
        ----------
        window : tuple of slice
            One for each dimension.
        out : numpy.ndarray
            Where it goes, of its shape.

        Returns
        -------
        numpy.ndarray
            `out`.
        """


def load(cube: xr.Dataset, *, workers: int | None = None, progress: bool | None = None) -> xr.Dataset:
    """Load a lazy cube into memory, by threads of this process.

    The same values as ``cube.compute()``. That keeps every block until the last one is there and then copies
    them all, one after the other; this puts each block into the result as soon as it is made, so there is no
    second copy of everything. Blocks of scenes, and variables of a store, are even made in their place.

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
    found = {name: list(_pieces(name, lazy, arrays[name])) for name in lazy}
    pieces = [piece for every in found.values() for piece in every]
    others = {name: data for name, data in lazy.items() if not found[name]}
    blocks = sum(math.prod(other.numblocks) for other in others.values())
    threads = workers or dask.config.get("num_workers", None) or CPU_COUNT
    with show("load", blocks + len(pieces), unit="blocks", enabled=progress) as advance:
        _make(pieces, threads, advance)
        if others:
            targets: list[Any] = [_Target(arrays[name], advance) for name in others]
            da.store([*others.values()], targets, lock=False, scheduler="threads", num_workers=threads)
    return cube.assign({name: cube[name].copy(data=array) for name, array in arrays.items()})


def _pieces(name: str, lazy: Mapping[str, Any], out: Array) -> Iterator[Callable[[], object]]:
    """Yield what makes a variable piece by piece in its place; nothing where Dask has to put it together."""
    data = lazy[name]
    source = _stored(data)
    if source is not None:
        yield from (partial(source.read, at, out=out[at]) for at in source.pieces())
        return
    shared = any(data.name in other.dask.layers for key, other in lazy.items() if key != name)
    plan = None if shared else plan_behind(data)
    if plan is None or plan.on_error == "record":  # which gives pairs of blocks
        return
    for block in np.ndindex(*map(len, plan.chunks)):
        times, rows, cols = plan.region(block)
        yield partial(load_block, plan, block, out[times, :, rows, cols])


def _make(pieces: list[Callable[[], object]], threads: int, advance: Advance) -> None:
    with ThreadPoolExecutor(threads, "cubekit-load") as pool:
        made = [pool.submit(piece) for piece in pieces]
        try:
            for done in as_completed(made):
                done.result()
                advance()
        finally:
            pool.shutdown(cancel_futures=True)


def _stored(data: Any) -> Stored | None:
    """Return what a lazy array reads, where it is all of it, unchanged."""
    layers = data.dask.layers
    if len(layers) != 1:
        return None
    (layer,) = layers.values()
    found = [each for each, _ in getattr(layer, "indices", ()) if isinstance(each, Stored)]
    return found[0] if len(found) == 1 and found[0].shape == data.shape else None


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
