"""Functions over blocks of lazy arrays: one typed door to Dask, which gives its functions no types."""

from collections.abc import Callable, Mapping
from inspect import signature
from math import prod
from typing import Any, TypeAlias, TypeVar

import dask.array as da
import numpy as np
from dask.highlevelgraph import MaterializedLayer

Chunks: TypeAlias = tuple[tuple[int, ...], ...]
"""Sizes of the blocks along each axis."""

_F = TypeVar("_F", bound=Callable[..., Any])

_WORKING: dict[str, tuple[float, float]] = {}


def working_memory(*, each: float, each_of_a_date: float = 0.0) -> Callable[[_F], _F]:
    """State next to a block function what it holds while it works, beside its input and its result.

    Parameters
    ----------
    each : float
        Bytes for each value of the input block.
    each_of_a_date : float, optional
        Bytes for each value of one date of it.

    Returns
    -------
    callable
        Decorator; `cubekit.plan` looks the numbers up by the name of the function.
    """

    def note(function: _F) -> _F:
        _WORKING[function.__name__] = (each, each_of_a_date)
        return function

    return note


def working_bytes(step: str, shape: tuple[int, ...], itemsize: int) -> int:
    """Return what a block function holds while it works.

    Parameters
    ----------
    step : str
        Name of the function.
    shape : tuple of int
        Of its input block, dates first.
    itemsize : int
        Bytes of a value of the input.

    Returns
    -------
    int
        Bytes; for a function that says nothing, those of one copy of its input.
    """
    each, each_of_a_date = _WORKING.get(step, (itemsize, 0.0))
    return round(prod(shape) * each + prod(shape[1:]) * each_of_a_date)


def is_lazy(values: Any) -> bool:
    """Tell whether an array is a Dask array."""
    return isinstance(values, da.Array)


def map_blocks(
    function: Callable[..., Any],
    *arrays: Any,
    chunks: Chunks,
    dtype: Any,
    options: Mapping[str, Any],
    name: str | None = None,
) -> Any:
    """Apply a function to each block; the graph stays one layer however many blocks there are.

    Parameters
    ----------
    function : callable
        Gets the blocks, `options` as keywords, and ``block_id`` if it has an argument of that name.
    *arrays : dask.array.Array
        With equal numbers of blocks; none for functions that make blocks from `options` alone.
    chunks : tuple of tuple of int
        Of the result. One axis less than the inputs means that their second one is reduced.
    dtype : numpy.dtype or str
        Of the result.
    options : mapping
        Keywords; Dask objects among them are passed by reference.
    name : str, optional
        Key of the result.

    Returns
    -------
    dask.array.Array
        Lazy.
    """
    drop = [1] if arrays and arrays[0].ndim > len(chunks) else None
    return da.map_blocks(  # type: ignore[no-untyped-call]
        function,
        *arrays,
        **options,
        chunks=chunks,
        drop_axis=drop,
        dtype=dtype,
        meta=np.empty((0,) * len(chunks), dtype),
        name=name,
    )


def pair(array: Any, *, dtypes: tuple[Any, Any], names: tuple[str, str], flat: bool = False) -> Any:
    """Take apart an array whose blocks are pairs of blocks, both of the same periods and pixels.

    Parameters
    ----------
    array : dask.array.Array
        Lazy, (time, band, y, x); both of a pair are made at once.
    dtypes : tuple of numpy.dtype or str
        Of both.
    names : tuple of str
        Keys of both.
    flat : bool, optional
        Whether the second has no bands.

    Returns
    -------
    tuple of dask.array.Array
        Lazy.
    """
    axes = tuple(range(array.ndim))
    return tuple(
        da.blockwise(  # type: ignore[no-untyped-call]
            function, kept, array, axes, dtype=dtype, name=name, meta=np.empty((0,) * len(kept), dtype)
        )
        for function, kept, dtype, name in zip(
            (_first, _second), (axes, (axes[0], *axes[2:]) if flat else axes), dtypes, names, strict=True
        )
    )


def _first(found: tuple[Any, Any]) -> Any:
    return found[0]


def _second(found: Any) -> Any:
    while isinstance(found, list):  # of the blocks along an axis that is dropped
        found = found[0]
    return found[1]


def held_in(layer: Any) -> Any:
    """Return the object that a layer of a graph holds for others to refer to.

    Parameters
    ----------
    layer : dask layer
        Of a high-level graph.

    Returns
    -------
    object
        None where the layer is a computation.
    """
    alone = isinstance(layer, MaterializedLayer) and len(layer) == 1
    held = next(iter(layer.values())) if alone else None
    return getattr(held, "value", held)


def on_blocks(
    function: Callable[..., Any], *arrays: Any, chunks: Chunks, dtype: Any, options: Mapping[str, Any]
) -> Any:
    """Apply a function to each block of lazy arrays, or at once to plain ones.

    Parameters
    ----------
    function : callable
        As for :func:`map_blocks`.
    *arrays : dask.array.Array or numpy.ndarray
        All of one kind.
    chunks : tuple of tuple of int
        Of the result.
    dtype : numpy.dtype or str
        Of the result.
    options : mapping
        Keywords.

    Returns
    -------
    dask.array.Array or numpy.ndarray
        As lazy as the arrays.
    """
    if is_lazy(arrays[0]):
        return map_blocks(function, *arrays, chunks=chunks, dtype=dtype, options=options)
    numbered = "block_id" in signature(function).parameters
    place = {"block_id": (0,) * len(chunks)} if numbered else {}
    return function(*arrays, **options, **place)


def chunks_of(values: Any) -> Chunks:
    """Return the sizes of the blocks of a lazy array; of a plain one, that it is one block."""
    chunks: Chunks = values.chunks if is_lazy(values) else tuple((size,) for size in values.shape)
    return chunks


def normalise(sizes: Any, shape: tuple[int, ...], dtype: str) -> Chunks:
    """Return the sizes of all blocks from one size, or a tuple of sizes, for each axis."""
    chunks: Chunks = da.core.normalize_chunks(sizes, shape=shape, dtype=dtype)  # type: ignore[no-untyped-call]
    return chunks
