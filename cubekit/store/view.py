"""A part of a stored variable, read window by window without the blocks that Dask would cut it into."""

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np

from cubekit.store.open import StoredArray
from cubekit.typing import Array, IntArray

_SELECTING = {"getitem", "_getitem", "getter", "getter_nofancy", "getter_inline"}
"""Functions of Dask that take a part of what they are given, and do nothing else."""


class StoredView:
    """Neighbouring rows and columns of a stored variable, at any dates and bands; small when pickled.

    Parameters
    ----------
    stored : StoredArray
        The variable.
    places : sequence of numpy.ndarray
        Positions in it along each dimension; without gaps along the last two.
    """

    def __init__(self, stored: StoredArray, places: Sequence[IntArray]) -> None:
        self.stored = stored
        self._lead, self._origin = tuple(places[:-2]), tuple(int(each[0]) for each in places[-2:])
        self.shape, self.ndim = tuple(len(each) for each in places), len(places)
        self.dtype = stored.dtype

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of what is decoded at once."""
        rows, columns = self.stored.chunks[-2:]
        return rows, columns

    @property
    def origin(self) -> tuple[int, ...]:
        """First row and column in the stored variable."""
        return self._origin

    def __getitem__(self, window: tuple[slice, ...]) -> Array:
        """Read a window; all of it along the dimensions before rows and columns, whatever is asked there."""
        spatial = [
            slice(part.start + first, part.stop + first)
            for part, first in zip(window[-2:], self._origin, strict=True)
        ]
        lead = [slice(int(each.min()), int(each.max()) + 1) for each in self._lead]
        values = self.stored[(*lead, *spatial)]
        for axis, (each, part) in enumerate(zip(self._lead, lead, strict=True)):
            if len(each) != part.stop - part.start or (np.diff(each) != 1).any():
                values = values.take(each - part.start, axis=axis)
        return values


def stored_view(array: da.Array) -> StoredView | None:
    """Find the stored variable that a lazy array is a part of.

    Parameters
    ----------
    array : dask.array.Array
        Such as the data of ``ck.open(…).sel(band=…).isel(…)``; two dimensions or more.

    Returns
    -------
    StoredView or None
        With the values of the array; None where it is anything else than a selection from one store, or its
        rows or columns do not lie side by side.
    """
    graph, blocks = array.dask, array.numblocks
    if array.ndim < 2 or not array.size:  # noqa: PLR2004  (rows and columns)
        return None
    places: list[IntArray] = []
    origins: set[int] = set()
    for axis in range(array.ndim):
        along: list[IntArray] = []
        for number in range(blocks[axis]):
            index = tuple(number if other == axis else 0 for other in range(array.ndim))
            found = _traced(graph, (array.name, *index))
            if found is None:
                return None
            stored, positions = found
            origins.add(id(stored))
            along.append(positions[axis])
        places.append(np.concatenate(along))
    aside = all((np.diff(each) == 1).all() for each in places[-2:])
    fits = tuple(map(len, places)) == array.shape
    return StoredView(stored, places) if aside and fits and len(origins) == 1 else None


def _traced(graph: Mapping[Any, Any], key: Any) -> tuple[StoredArray, list[IntArray]] | None:
    """Follow a block to the store; return the positions there that it consists of."""
    task: Any = graph.get(key)
    if hasattr(task, "target"):  # another name for the same block
        return _traced(graph, task.target)
    name = getattr(getattr(task, "func", None), "__name__", None)
    if name not in _SELECTING or len(task.args) < 2:  # noqa: PLR2004  (an array and an index)
        return None
    source, index = task.args[0], _value(graph, task.args[1])
    if name == "_getitem" and isinstance(index, tuple):  # of `take`: a number for its axis, index
        index = index[-1]
    below = getattr(source, "value", source)
    if isinstance(below, StoredArray):
        stored, positions = below, [np.arange(size, dtype="int64") for size in below.shape]
    elif (found := _traced(graph, getattr(source, "key", None))) is not None:
        stored, positions = found
    else:
        return None
    if not isinstance(index, tuple) or len(index) != len(positions):
        return None
    lists = [part for part in index if not isinstance(part, slice)]
    if len(lists) > 1 or any(np.ndim(part) != 1 for part in lists):
        return None
    return stored, [places[part] for places, part in zip(positions, index, strict=True)]


def _value(graph: Mapping[Any, Any], argument: Any) -> Any:
    """Return what an argument of a task stands for; None where that has to be computed."""
    if hasattr(argument, "key") and not hasattr(argument, "value"):
        argument = graph.get(argument.key)
    return getattr(argument, "value", argument)
