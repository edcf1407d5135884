"""Chunks, shards and codecs for a use: series of pixels, patches for networks, or maps to look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from dask.utils import parse_bytes

from cubekit.errors import OptionError, StoreError, UnknownNameError, check_option, did_you_mean

Use = Literal["series", "patches", "maps"]
"""What a store is read for most."""

Sizes: TypeAlias = Mapping[str, int | tuple[int, int]]
"""Dimension to chunk side, or to (chunk side, shard side); -1 means the whole dimension."""

SPACE = ("y", "x")
"""Last two dimensions of every gridded variable."""

_CHUNK_BYTES: Mapping[str, int] = {"series": 8 << 20, "patches": 16 << 20, "maps": 1 << 20}
_CHUNK_SIDE: Mapping[str, int] = {"series": 64, "patches": 128, "maps": 1024}
_SHARD_SIDE: Mapping[str, int] = {"series": 512, "patches": 512, "maps": 4096}
_SMALLEST_SIDE: Mapping[str, int] = {"series": 16, "patches": 16, "maps": 512}
_COMPANION_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """How one variable is cut into objects."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    """Smallest piece that can be read and decoded alone."""

    shards: tuple[int, ...] | None = None
    """Piece kept in one object, a multiple of the chunk; None where one chunk is one object."""

    @property
    def objects(self) -> tuple[int, ...]:
        """Shape of one object: the shard, or the chunk where there are no shards."""
        return self.shards or self.chunks

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of objects along each dimension."""
        return tuple(ceil(size / step) for size, step in zip(self.shape, self.objects, strict=True))

    def size(self, dim: str) -> int:
        """Return the length along a dimension.

        Parameters
        ----------
        dim : str
            Name of the dimension.

        Returns
        -------
        int
            Number of values.
        """
        return self.shape[self.dims.index(dim)]

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return int(np.dtype(self.dtype).itemsize)

    def __str__(self) -> str:
        pieces = [f"{self.name} {self._sizes(self.shape)} {self.dtype}", f"chunk {self._sizes(self.chunks)}"]
        if self.shards:
            pieces.append(f"shard {self._sizes(self.shards)}")
        return ", ".join(pieces) + f", {prod(self.grid)} objects"

    def _sizes(self, shape: tuple[int, ...]) -> str:
        """Show a shape with its size in bytes before compression."""
        return f"{'x'.join(map(str, shape))} ({shown_bytes(prod(shape) * self.itemsize)})"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Chunk, shard and codec plan of a store; ``print`` says it."""

    use: str
    arrays: tuple[ArrayLayout, ...]
    memory: int
    """Bytes that a writer may hold."""

    notes: tuple[str, ...] = ()
    """What a user should know, such as source chunks that do not fit the shards."""

    def __getitem__(self, name: str) -> ArrayLayout:
        """Return the layout of one variable."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise UnknownNameError(
            f"The layout has no variable {name!r}. {did_you_mean(name, [a.name for a in self.arrays])}"
        )

    def __str__(self) -> str:
        lines = [
            f"Layout for {self.use}, {shown_bytes(self.memory)} of memory, Blosc zstd 1 bitshuffle + crc32c"
        ]
        lines += [f"  {array}" for array in self.arrays]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def gridded(cube: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the variables that lie on the grid and are written block by block.

    Parameters
    ----------
    cube : xarray.Dataset
        Nothing is computed.

    Returns
    -------
    dict
        Name to variable, for data variables and coordinates whose last dimensions are ``y`` and ``x``.

    Raises
    ------
    StoreError
        If there is none, one is empty, or one has ``y`` and ``x`` elsewhere or a type that is not stored.
    """
    found = {}
    for name, variable in sorted(cube.variables.items(), key=lambda item: str(item[0])):
        if not set(SPACE) <= set(variable.dims):
            continue
        if variable.dims[-2:] != SPACE:
            raise StoreError(
                f"Variable {name!r} has dims {variable.dims}, expected (…, y, x): use .transpose()."
            )
        if variable.dtype.kind not in "biuf":
            raise StoreError(
                f"Variable {name!r} has type {variable.dtype}; a store takes numbers and booleans."
            )
        if not variable.size:
            raise StoreError(f"Variable {name!r} is empty: its shape is {variable.shape}.")
        found[str(name)] = cube[name]
    if not found:
        raise StoreError(f"Nothing to write: no variable has dims (…, y, x); found {dict(cube.sizes)}.")
    return found


def plan_layout(cube: xr.Dataset, use: Use | Sizes | None = None, *, memory: int | str = "2GB") -> Layout:
    """Choose chunks and shards from shapes, types and a memory budget.

    Parameters
    ----------
    cube : xarray.Dataset
        What will be written; nothing is computed. Where its variables are lazy, shards are fitted to their
        chunks, so that no source chunk is computed twice.
    use : {"series", "patches", "maps"} or mapping, optional
        ``series``: all times and bands of 64 px squares in one chunk. ``patches``: the same with 128 px.
        ``maps``: single images in chunks of 512 or 1024 px. A mapping names dimensions and gives each a chunk
        side or a pair (chunk side, shard side); dimensions that it leaves out stay whole. Default: series
        where there is time, else maps.
    memory : int or str, optional
        What a writer may hold, as bytes or text such as ``"2GB"``. The result depends on nothing else of the
        machine.

    Returns
    -------
    Layout
        One entry for each gridded variable.

    Raises
    ------
    OptionError
        For an unknown use, or sizes that do not fit each other.
    """
    variables = gridded(cube)
    budget = parse_bytes(memory)
    if use is None:
        use = "series" if any("time" in v.dims for v in variables.values()) else "maps"
    if isinstance(use, Mapping):
        arrays = [_explicit(name, variable, use) for name, variable in variables.items()]
        return Layout(use="sizes given", arrays=tuple(arrays), memory=budget, notes=_notes(variables, arrays))
    check_option("layout", use, ("series", "patches", "maps"))
    sides = _sides(variables, use, budget)
    arrays = [_array(name, variable, use, sides) for name, variable in variables.items()]
    return Layout(use=use, arrays=tuple(arrays), memory=budget, notes=_notes(variables, arrays))


def codecs() -> tuple[Any, ...]:
    """Return the compressors of every array: Blosc, then a checksum.

    Measured on CBERS-4 int16, ten Sentinel-2 bands as uint16 and NDVI as float32: zstd 1 with bitshuffle
    wrote 430-570 MB/s per core and was as small as zstd 3 (ratios 1.3, 2.9, 1.35); byte shuffle was larger
    for all three and slower for two. Blosc alone lets most single-bit flips pass; crc32c catches them all
    for 4 bytes a chunk.

    Returns
    -------
    tuple of zarr codecs
        Blosc takes the size of the numbers from the array.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()


def grain(variable: xr.DataArray) -> dict[str, int]:
    """Return the regular chunk side of a lazy variable along each dimension.

    Parameters
    ----------
    variable : xarray.DataArray
        Lazy or in memory.

    Returns
    -------
    dict
        Dimension to side; empty for a variable in memory.
    """
    return {str(dim): max(sizes) for dim, sizes in variable.chunksizes.items()}


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """What all variables share: pixels along a chunk and a shard, and times in a chunk (None: all)."""

    chunk: int
    shard: int
    steps: int | None


def _sides(variables: Mapping[str, xr.DataArray], use: Use, budget: int) -> _Sides:
    """Choose chunk side, shard side and, where even the smallest chunk is too heavy, a number of times."""
    heavy = max(variables.values(), key=lambda v: v.nbytes)
    deep = use != "maps"
    weight = heavy.dtype.itemsize * (prod(heavy.shape[:-2]) if deep else 1)
    chunk = _CHUNK_SIDE[use]
    while chunk > _SMALLEST_SIDE[use] and weight * chunk**2 > _CHUNK_BYTES[use]:
        chunk //= 2
    steps = None
    if deep and "time" in heavy.dims and weight * chunk**2 > 2 * _CHUNK_BYTES[use]:
        steps = max(1, _CHUNK_BYTES[use] * heavy.sizes["time"] // (weight * chunk**2))
    chunk = _fitted(chunk, grain(heavy))
    pixel = sum(v.dtype.itemsize * _depth(v, steps, deep=deep) for v in variables.values())
    shard = chunk
    while shard * 2 <= _SHARD_SIDE[use] * 1.25 and pixel * (shard * 2) ** 2 <= budget / 8:
        shard *= 2
    return _Sides(chunk=chunk, shard=_shared(chunk, shard, grain(heavy)), steps=steps)


def _depth(variable: xr.DataArray, steps: int | None, *, deep: bool) -> int:
    """Count the numbers under one pixel that a writer holds at once."""
    sizes = {str(dim): size for dim, size in variable.sizes.items() if dim not in SPACE}
    if "time" in sizes:  # maps are written image by image, but a lazy chunk comes whole
        sizes["time"] = min(sizes["time"], steps or sizes["time"]) if deep else grain(variable).get("time", 1)
    return prod(sizes.values())


def _fitted(chunk: int, source: Mapping[str, int]) -> int:
    """Take the nearest chunk side that divides the source's square chunks, if one is near."""
    side = source.get("y", 0)
    if not side or side != source.get("x") or side % chunk == 0 or chunk % side == 0:
        return chunk
    near = [n for n in range(max(16, chunk // 2), chunk * 3 // 2 + 1) if side % n == 0]
    return min(near, key=lambda n: (abs(n - chunk), n)) if near else chunk


def _shared(chunk: int, shard: int, source: Mapping[str, int]) -> int:
    """Take the largest shard side up to ``shard`` that divides the source's chunks, or is their multiple."""
    side = source.get("y", 0)
    for candidate in range(shard, shard // 2, -chunk) if side else ():
        if side % candidate == 0 or candidate % side == 0:
            return candidate
    return shard


def _array(name: str, variable: xr.DataArray, use: Use, sides: _Sides) -> ArrayLayout:
    """Lay out one variable with the sides that all variables share."""
    lead = variable.shape[:-2]
    inner, outer = list(lead), list(lead)
    if use == "maps":
        inner = [1] * len(lead)
        outer = [1 if dim == "time" else size for dim, size in zip(variable.dims, lead, strict=False)]
    elif sides.steps and "time" in variable.dims:
        axis = variable.dims.index("time")
        inner[axis] = outer[axis] = min(sides.steps, lead[axis])
    weight = variable.dtype.itemsize * prod(inner)
    side = sides.chunk
    while use != "maps" and sides.shard % (side * 2) == 0 and weight * (side * 2) ** 2 <= _COMPANION_BYTES:
        side *= 2  # thin companions are cut less finely
    for size in variable.shape[-2:]:
        step = min(side, size)
        inner.append(step)
        outer.append(step if size <= step else min(sides.shard, ceil(size / step) * step))
    return _layout(name, variable, tuple(inner), tuple(outer))


def _explicit(name: str, variable: xr.DataArray, sizes: Sizes) -> ArrayLayout:
    """Lay out one variable with the sizes that a user gave."""
    inner, outer = [], []
    for dim, size in zip(map(str, variable.dims), variable.shape, strict=True):
        given = sizes.get(dim, -1)
        small, large = given if isinstance(given, tuple) else (given, given)
        small, large = (size if side == -1 else side for side in (small, large))
        if small < 1 or large % small:
            raise OptionError(
                f"layout {dim}={given!r}: sides are positive or -1, and a shard is a multiple of its chunk."
            )
        inner.append(min(small, size))
        outer.append(inner[-1] * min(large // small, ceil(size / inner[-1])))
    return _layout(name, variable, tuple(inner), tuple(outer))


def _layout(name: str, variable: xr.DataArray, inner: tuple[int, ...], outer: tuple[int, ...]) -> ArrayLayout:
    """Drop shards that would hold a single chunk."""
    return ArrayLayout(
        name=name,
        dims=tuple(map(str, variable.dims)),
        shape=variable.shape,
        dtype=str(variable.dtype.newbyteorder("=")),
        chunks=inner,
        shards=None if inner == outer else outer,
    )


def _notes(variables: Mapping[str, xr.DataArray], arrays: list[ArrayLayout]) -> tuple[str, ...]:
    """Tell where source chunks lie across the borders of shards."""
    notes = []
    for array in arrays:
        for dim, side in grain(variables[array.name]).items():
            axis = array.dims.index(dim)
            step, size = array.objects[axis], array.shape[axis]
            if dim in SPACE and side < size and side % step and step % side and step < size:
                notes.append(
                    f"source chunks of {array.name} are {side} px along {dim}, objects {step}: "
                    "chunks across a border are computed more than once"
                )
    return tuple(notes)


def shown_bytes(count: float) -> str:
    """Show a number of bytes.

    Parameters
    ----------
    count : float
        Bytes.

    Returns
    -------
    str
        Such as ``"8.39 MB"``.
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
