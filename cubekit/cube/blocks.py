"""Functions over blocks of lazy arrays: one typed door to Dask, which gives its functions no types."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import dask.array as da
import numpy as np

Chunks: TypeAlias = tuple[tuple[int, ...], ...]
"""Sizes of the blocks along each axis."""


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


def normalise(sizes: Any, shape: tuple[int, ...], dtype: str) -> Chunks:
    """Return the sizes of all blocks from one size, or a tuple of sizes, for each axis."""
    chunks: Chunks = da.core.normalize_chunks(sizes, shape=shape, dtype=dtype)  # type: ignore[no-untyped-call]
    return chunks
