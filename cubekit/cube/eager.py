"""A lazy cube into memory, each block straight to its place."""

import math
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from cubekit.errors import check_kind
from cubekit.progress import Advance
from cubekit.progress import progress as show
from cubekit.typing import Array


def load(cube: xr.Dataset, *, workers: int | None = None, progress: bool | None = None) -> xr.Dataset:
    """Load a lazy cube into memory, by threads of this process.

    The same values as ``cube.compute()``. That keeps every block until the last one is there and then copies
    them all, one after the other; this puts each block into the result as soon as it is read, so there is no
    second copy of everything.

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
    lazy = {str(name): found for name, found in cube.variables.items() if is_dask_collection(found.data)}
    arrays = {name: np.empty(found.shape, found.dtype) for name, found in lazy.items()}
    blocks = sum(math.prod(found.data.numblocks) for found in lazy.values())
    with show("load", blocks, unit="blocks", enabled=progress) as advance:
        targets = [_Target(array, advance) for array in arrays.values()]
        options: dict[str, Any] = {} if workers is None else {"num_workers": workers}
        if targets:
            sources = [found.data for found in lazy.values()]
            da.store(sources, targets, lock=False, scheduler="threads", **options)  # type: ignore[arg-type]
    return cube.assign({name: cube[name].copy(data=array) for name, array in arrays.items()})


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
