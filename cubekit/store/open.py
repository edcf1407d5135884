"""Open a finished store lazily and not decoded; refuse one that is unfinished or asks for too much."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Literal
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from xarray.coders import CFDatetimeCoder

from cubekit.errors import IncompleteStoreError, SecurityError, StoreError
from cubekit.store.chunk_reader import ChunkReader
from cubekit.store.layout import SPACE
from cubekit.store.mark import read_mark
from cubekit.store.metadata import user_attributes
from cubekit.store.objects import ROOT, InsideView, Objects, WholeView
from cubekit.store.place import Place, begun, beside, no_store, objects_at, place_of
from cubekit.store.remote import Remote
from cubekit.store.repository import is_repository, open_commit
from cubekit.store.trust import check_trusted
from cubekit.typing import Array, StrPath

_READ_BYTES = 64e6
_PIECE_BYTES = 16 << 20


def open_store(
    path: StrPath | Place,
    *,
    allow_incomplete: bool = False,
    chunks: Literal["auto"] | Mapping[str, int] = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a store as a lazy cube of stored numbers.

    Nothing is decoded: integers stay integers, with ``_FillValue``, ``scale_factor`` and ``add_offset`` in
    the attributes (`xarray.open_zarr` decodes the same store to floats). Reading a chunk that is missing or
    damaged raises.

    Parameters
    ----------
    path : path-like
        Local folder or address in an object store (``"s3://bucket/madrid.zarr"``) that `write` made, or any
        Zarr store (v2 or v3) with ``allow_incomplete``, or a state of an Icechunk repository, such as
        ``"icechunk:///data/madrid@2026-11-20T10:00"`` (see `open_commit`).
    allow_incomplete : bool, optional
        Open also what carries no completion mark: a half-written store, whose missing parts read as nodata,
        or one that cubekit did not write.
    chunks : "auto" or mapping, optional
        Dask chunks. Default: whole objects (shards) of about 64 MB. A mapping gives dimensions other lengths.
    storage_options : mapping, optional
        How to reach an object store; see `write`.

    Returns
    -------
    xarray.Dataset
        ``time`` as datetime64[ns]; the CRS in coordinate ``spatial_ref``.

    Raises
    ------
    IncompleteStoreError
        If the store carries no completion mark.
    StoreError
        If there is no store, or its metadata is damaged.
    SecurityError
        If it asks for a codec, type or size that is not accepted.
    """
    if is_repository(path):
        return open_commit(str(path), storage_options=storage_options)
    folder = place_of(path, storage_options)
    objects = objects_at(folder)
    root = objects.read(ROOT)
    mark = _mark(folder, root)
    if mark.get("state") == "moved":  # the successor is finished and being copied here
        return open_store(beside(folder, "next"), allow_incomplete=allow_incomplete, chunks=chunks)
    if mark.get("state") != "complete" and not allow_incomplete:
        raise IncompleteStoreError(_incomplete(folder, mark))
    check_trusted(objects, str(folder))
    try:
        cube = xr.open_zarr(
            InsideView(objects.store.with_read_only(read_only=True)),
            chunks=None,
            consolidated=_is_consolidated(objects, root),
            mask_and_scale=False,
            decode_times=CFDatetimeCoder(time_unit="ns"),
            decode_timedelta=False,
            decode_coords="all",
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(f"{folder} cannot be opened: {error}. Run cubekit.verify.") from error
    return _arranged(cube, folder, mark, chunks)


class StoredArray:
    """A variable of a store as an array that Dask cuts into blocks; small when pickled.

    Parameters
    ----------
    folder : pathlib.Path or Remote
        Of the store.
    name : str
        Of the variable.
    plan : str or None
        Digest that the store must still have when it is read; None for a store without the completion mark.
    like : xarray.Variable
        Gives shape and type.
    """

    def __init__(self, folder: Place, name: str, plan: str | None, like: xr.Variable) -> None:
        self.folder, self.name, self.plan = folder, name, plan
        self.shape, self.dtype, self.ndim = like.shape, like.dtype, like.ndim

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what is decoded at once: a chunk, also inside a shard."""
        return self._stored().chunks

    def pieces(self) -> Iterator[tuple[slice, ...]]:
        """Cut the array into windows to read by several threads: whole objects, or some chunks of large ones.

        Yields
        ------
        tuple of slice
            Together they are the whole array.
        """
        array = self._stored()
        sides = array.objects if isinstance(self.folder, Remote) else _several(array, self.dtype.itemsize)
        ranges = (range(0, size, side) for size, side in zip(self.shape, sides, strict=True))
        for corner in product(*ranges):
            ends = zip(corner, sides, self.shape, strict=True)
            yield tuple(slice(start, min(start + side, size)) for start, side, size in ends)

    def __getitem__(self, window: tuple[slice, ...]) -> Array:
        """Read a window; an error says which."""
        return self.read(window)

    def read(self, window: tuple[slice, ...], *, out: Array | None = None) -> Array:
        """Read a window; an error says which.

        Parameters
        ----------
        window : tuple of slice
            One for each dimension, with step 1.
        out : numpy.ndarray, optional
            Takes the values: shape of the window, any layout, part of a larger array too. Default: a new one.

        Returns
        -------
        numpy.ndarray
            The values, ``out`` where it was given.

        Raises
        ------
        StoreError
            If a chunk is missing or damaged, or the store has been replaced since it was opened.
        SecurityError
            If an object lies outside of the store.
        """
        try:
            return self._read(window, out)
        except SecurityError:
            raise
        except Exception as error:
            where = ", ".join(f"{part.start}:{part.stop}" for part in window)
            raise StoreError(
                f"{self.folder}: variable {self.name!r} cannot be read at [{where}]: {error}. "
                "Run cubekit.verify to see which chunks are damaged."
            ) from error

    def _stored(self) -> "_Stored":
        return _array(self.folder, self.name, self.plan, objects_at(self.folder).stamp(ROOT))

    def _read(self, window: tuple[slice, ...], out: Array | None) -> Array:
        """Read a window; refuse it where the store became another one before, or meanwhile."""
        objects = objects_at(self.folder)
        stamp = objects.stamp(ROOT)
        values = _array(self.folder, self.name, self.plan, stamp).read(window, out)
        if objects.stamp(ROOT) != stamp:
            _array(self.folder, self.name, self.plan, objects.stamp(ROOT))
        return values


class _Stored:
    """An array of a store, opened: read chunk by chunk, or by Zarr where its layout is not known here."""

    def __init__(self, store: InsideView, name: str) -> None:
        array: Any = zarr.open_group(store, mode="r")[name]
        self._array, self._reader = array, ChunkReader.of(array, store)
        self.chunks: tuple[int, ...] = tuple(array.chunks)
        self.objects: tuple[int, ...] = tuple(array.shards or array.chunks)

    def read(self, window: tuple[slice, ...], out: Array | None) -> Array:
        """Read a window."""
        if self._reader is not None:
            return self._reader.read(window, out=out)
        values = np.asarray(self._array[window])
        if out is None:
            return values
        out[...] = values
        return out


@lru_cache(maxsize=64)
def _array(folder: Place, name: str, plan: str | None, stamp: Any) -> _Stored:  # noqa: ARG001
    """Open one variable, once in each process, and again when the stamp of the store has changed."""
    objects = objects_at(folder)
    store = objects.store.with_read_only(read_only=True)
    if plan is None:
        return _Stored(InsideView(store), name)
    if _mark(folder, objects.read(ROOT)).get("plan") != plan:
        raise StoreError("the store has been replaced since it was opened; open it again")
    return _Stored(WholeView(store), name)


def _several(array: _Stored, itemsize: int) -> tuple[int, ...]:
    """Return the shape of some chunks of an object, the last dimensions first."""
    sides, weight = list(array.chunks), prod(array.chunks) * itemsize
    for axis in reversed(range(len(sides))):
        times = max(1, min(array.objects[axis] // sides[axis], _PIECE_BYTES // weight))
        sides[axis] *= times
        weight *= times
    return tuple(sides)


def _mark(folder: Place, root: bytes | None) -> dict[str, Any]:
    """Read the mark; complain where there is no store at all."""
    if root is not None:
        return read_mark(root, str(folder))
    if begun(folder):
        return {"state": "building"}
    if any(objects_at(folder).size(name) is not None for name in (".zgroup", ".zattrs", ".zmetadata")):
        return {}
    if not isinstance(folder, Remote) and beside(folder, "previous").is_dir():
        raise StoreError(f"Replacing {folder} was interrupted between two renames: run write again.")
    raise StoreError(no_store(folder))


def _incomplete(folder: Place, mark: Mapping[str, Any]) -> str:
    """Say why a store is refused."""
    if mark.get("state") == "building":
        return (
            f"{folder} is not finished. Run the same write or build again: it goes on where it stopped. "
            "allow_incomplete=True opens it as it is; missing parts read as nodata."
        )
    return f"{folder} carries no completion mark of cubekit. allow_incomplete=True opens it nevertheless."


def _is_consolidated(objects: Objects, root: bytes | None) -> bool:
    """Tell whether all metadata lies in one document."""
    if root is None:
        return objects.size(".zmetadata") is not None
    return bool(json.loads(root).get("consolidated_metadata"))


def _arranged(
    cube: xr.Dataset, folder: Place, mark: Mapping[str, Any], chunks: Literal["auto"] | Mapping[str, int]
) -> xr.Dataset:
    """Make large variables lazy, load small ones, and leave out what the store itself added."""
    plan = mark["plan"] if mark.get("state") == "complete" else None
    large = {str(name): variable for name, variable in cube.variables.items() if variable.ndim > 1}
    sides = _sides(large) | ({} if chunks == "auto" else dict(chunks))
    for name, variable in cube.variables.items():
        if name in large:
            cube[name] = _lazy(folder, str(name), variable, plan, sides)
        elif variable.dtype.kind in "OT":
            cube[name] = (variable.dims, np.array(variable.values.tolist(), dtype=str), variable.attrs)
    for name in set(cube.variables) - set(large):
        cube.variables[name].load()
    cube.attrs = user_attributes(cube.attrs)
    cube.encoding["source"] = str(folder)  # where xarray notes it too; cubekit.why looks there
    return cube


def _lazy(
    folder: Place, name: str, variable: xr.Variable, plan: str | None, sides: Mapping[str, int]
) -> xr.Variable:
    """Return a variable that is read block by block."""
    steps = zip(variable.dims, variable.shape, _object(variable), strict=True)
    blocks = tuple(min(size, sides.get(str(dim), step)) for dim, size, step in steps)
    if (
        variable.encoding.get("dtype", variable.dtype) != variable.dtype
    ):  # xarray decodes it: dates, CF booleans
        return variable.chunk(dict(zip(variable.dims, blocks, strict=True)))
    token = tokenize(str(folder), plan or uuid4().hex, name, blocks)
    lazy = da.from_array(  # type: ignore[no-untyped-call]
        StoredArray(folder, name, plan, variable),
        blocks,
        name=f"{name}-{token}",
        inline_array=True,
        fancy=False,
        meta=np.empty((0,) * variable.ndim, variable.dtype),
    )
    mapping = {key: value for key, value in variable.encoding.items() if key == "grid_mapping"}
    return xr.Variable(variable.dims, lazy, variable.attrs, mapping)


def _sides(large: Mapping[str, xr.Variable]) -> dict[str, int]:
    """Choose lengths along y and x that are whole objects of the largest variable, of about 64 MB."""
    heavy = max(large.values(), key=lambda variable: variable.nbytes, default=None)
    if heavy is None or heavy.dims[-2:] != SPACE:
        return {}
    *lead, high, wide = _object(heavy)
    square, times = heavy.dtype.itemsize * prod(lead) * high * wide, 1
    while square * (2 * times) ** 2 <= _READ_BYTES and times * max(high, wide) < max(heavy.shape[-2:]):
        times *= 2
    return {"y": high * times, "x": wide * times}


def _object(variable: xr.Variable) -> tuple[int, ...]:
    """Return the shape of the objects that a variable lies in."""
    return tuple(variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape)
