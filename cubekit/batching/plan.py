"""Which windows of a cube to read, in which order: xbatcher plans held in a few bytes a window."""

import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Self, SupportsIndex

import numpy as np
import xarray as xr
import xbatcher

from cubekit.cube.contract import MAIN
from cubekit.errors import OptionError
from cubekit.typing import BoolArray, IntArray

_UNCHUNKED = 512  # pixels; side of a window where the data has no chunks to follow


class Windows(Mapping[int, list[dict[Hashable, slice]]]):
    """Selectors as xbatcher wants them, made when asked for from 8 bytes a dimension.

    xbatcher holds a list of dictionaries of slices for each patch, about 320 bytes; a plan of a whole tile
    with overlapping patches has half a million of them.

    Parameters
    ----------
    bounds : numpy.ndarray
        (n, 2 x dims) int32: for each dimension the first position and the one behind the last.
    dims : sequence of hashable
        Names of the dimensions, in the order of the bounds.
    """

    def __init__(self, bounds: IntArray, dims: Sequence[Hashable]) -> None:
        self.bounds = bounds
        self.dims = tuple(dims)

    @classmethod
    def product(cls, ranges: Mapping[Hashable, IntArray]) -> Self:
        """Combine ranges of every dimension, the last one fastest.

        Parameters
        ----------
        ranges : mapping
            (n, 2) bounds for each dimension.

        Returns
        -------
        Windows
            One for each combination.
        """
        counts = [len(each) for each in ranges.values()]
        bounds = np.empty((int(np.prod(counts)), 2 * len(counts)), "int32")
        whole = bounds.reshape(*counts, 2 * len(counts))
        for axis, each in enumerate(ranges.values()):
            shape = [1] * len(counts)
            shape[axis] = -1
            for end in (0, 1):
                whole[..., 2 * axis + end] = each[:, end].reshape(shape)
        return cls(bounds, list(ranges))

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int | np.integer) and bool(0 <= key < len(self))

    def __getitem__(self, key: int) -> list[dict[Hashable, slice]]:
        if key not in self:
            raise KeyError(key)
        ends = self.bounds[key].tolist()
        return [
            {
                dim: slice(first, last)
                for dim, first, last in zip(self.dims, ends[::2], ends[1::2], strict=True)
            }
        ]


class Plan(xbatcher.BatchGenerator):  # type: ignore[misc]  # xbatcher ships no types
    """An ``xbatcher.BatchGenerator`` whose selectors are small and whose windows can be chosen from.

    Takes what xbatcher takes and yields what xbatcher yields. Selectors are held as an array of integers,
    except with ``concat_input_dims``, where a batch is many windows.

    Parameters
    ----------
    ds : xarray.Dataset or xarray.DataArray
        What to cut; read when a window is asked for.
    input_dims : mapping
        Size of a window along each dimension.
    input_overlap : mapping, optional
        Overlap of neighbours along each dimension.
    batch_dims : mapping, optional
        Sizes along dimensions that are iterated over.
    concat_input_dims : bool, optional
        Whether all windows of a batch become one dataset.
    preload_batch : bool, optional
        Whether windows are loaded.
    cache : mapping, optional
        Where xbatcher keeps windows that it made.
    cache_preprocess : callable, optional
        Applied before a window is kept.
    """

    def __init__(  # noqa: PLR0917  (xbatcher's own signature)
        self,
        ds: xr.Dataset | xr.DataArray,
        input_dims: Mapping[Any, int],
        input_overlap: Mapping[Any, int] | None = None,
        batch_dims: Mapping[Any, int] | None = None,
        concat_input_dims: bool = False,  # noqa: FBT001, FBT002
        preload_batch: bool = True,  # noqa: FBT001, FBT002
        cache: dict[str, Any] | None = None,
        cache_preprocess: Callable[..., Any] | None = None,
    ) -> None:
        overlap, batch = dict(input_overlap or {}), dict(batch_dims or {})
        sizes = {dim: size for dim, size in batch.items() if dim not in input_dims} | dict(input_dims)
        # xbatcher sees one window only, so that it builds one selector and still makes all its checks
        seen = ds if concat_input_dims else ds.isel({dim: slice(0, size) for dim, size in sizes.items()})
        super().__init__(
            seen, dict(input_dims), overlap, batch, concat_input_dims, preload_batch, cache, cache_preprocess
        )
        self.ds = ds
        if not concat_input_dims:
            ranges = {
                dim: _ranges(ds.sizes[dim], size, size - (overlap.get(dim, 0) if dim in input_dims else 0))
                for dim, size in sizes.items()
            }
            self._batch_selectors.selectors = Windows.product(ranges)

    def __getitem__(self, idx: SupportsIndex) -> xr.Dataset | xr.DataArray:
        """Read one window into memory; unlike plain xbatcher, NumPy's integers are welcome."""
        window: xr.Dataset | xr.DataArray = super().__getitem__(
            operator.index(idx) if hasattr(idx, "__index__") else idx
        )
        return window

    @property
    def batcher(self) -> xbatcher.BatchGenerator:
        """The xbatcher generator behind the plan: the plan itself."""
        return self

    @property
    def windows(self) -> Windows:
        """The windows, as arrays of integers."""
        windows = self._batch_selectors.selectors
        if not isinstance(windows, Windows):
            raise OptionError("With concat_input_dims a batch is many windows: there is no table of them.")
        return windows

    def take(self, chosen: IntArray | BoolArray | list[int]) -> Self:
        """Return a plan of some of the windows.

        Parameters
        ----------
        chosen : numpy.ndarray or list of int
            Numbers of windows, in the order wanted, also repeatedly; or a mask.

        Returns
        -------
        Plan
            Over the same data.
        """
        index = np.asarray(chosen)
        bounds = self.windows.bounds[index if index.dtype == bool else index.astype(np.intp)]
        return self._with(Windows(bounds, self.windows.dims))

    def _with(self, windows: Windows) -> Self:
        """Return a copy that has other windows."""
        other = copy(self)
        schema = copy(self._batch_selectors)
        schema.selectors = windows
        other.__dict__["_batch_selectors"] = schema
        return other

    def bounds(self, dim: str) -> IntArray:
        """Return where windows begin and end along a dimension.

        Parameters
        ----------
        dim : str
            Of the data; windows take dimensions that they do not cut whole.

        Returns
        -------
        numpy.ndarray
            (n, 2) int32: the first position and the one behind the last.
        """
        if dim in self.windows.dims:
            axis = self.windows.dims.index(dim)
            return self.windows.bounds[:, 2 * axis : 2 * axis + 2]
        return np.broadcast_to(np.array([0, self.ds.sizes[dim]], "int32"), (len(self), 2))


class ChunkPlan(Plan):
    """Windows that follow the chunks of a cube, so that one pass decodes each chunk once.

    Unlike plain xbatcher, windows at the right and lower edge are kept, smaller than the others. Every window
    covers all dates and bands. The plan is an ``xbatcher.BatchGenerator``: iterate over it, index it, or give
    it to ``xbatcher.loaders.torch.MapDataset``. Lazy until a window is asked for.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        With dims ``y`` and ``x``; other dims are read whole.
    block : tuple of int, optional
        Rows and columns of a window. Default: those of the chunks, else 512.
    keep : numpy.ndarray, optional
        (y, x) bool. Windows without a True are left out.

    Raises
    ------
    OptionError
        If a dimension is missing, `block` is not positive, or `keep` has another shape.

    Examples
    --------
    >>> cube = xr.Dataset({"data": (("time", "y", "x"), np.zeros((3, 5, 4)))})
    >>> plan = ChunkPlan(cube, block=(2, 4))
    >>> [window.sizes["y"] for window in plan]
    [2, 2, 1]
    """

    def __init__(
        self,
        data: xr.Dataset | xr.DataArray,
        *,
        block: tuple[int, int] | None = None,
        keep: BoolArray | None = None,
    ) -> None:
        check_space(data)
        shape = (data.sizes["y"], data.sizes["x"])
        if block is not None and min(block) < 1:
            raise OptionError(f"block={block!r} must be two positive numbers of pixels.")
        if keep is not None and keep.shape != shape:
            raise OptionError(f"keep has shape {keep.shape}; the data has {shape} rows and columns.")
        rows, columns = (
            _steps(data, dim, size) for dim, size in zip(("y", "x"), block or (None, None), strict=True)
        )
        largest = {"y": int(np.diff(rows).max()), "x": int(np.diff(columns).max())}
        # naming every dim keeps xbatcher from flattening time and band into "sample"
        super().__init__(data, {str(dim): size for dim, size in data.sizes.items()} | largest)
        self._batch_selectors.selectors = Windows(_windows(rows, columns, keep), ("y", "x"))

    @property
    def edges(self) -> IntArray:
        """(n, 4) int32: first and last-but-one row, first and last-but-one column of each window."""
        return self.windows.bounds

    def __repr__(self) -> str:
        height, width = (self.input_dims[dim] for dim in ("y", "x"))
        shape = (self.ds.sizes["y"], self.ds.sizes["x"])
        rows, columns = self.edges[:, 1] - self.edges[:, 0], self.edges[:, 3] - self.edges[:, 2]
        share = float((rows.astype("int64") * columns).sum()) / (shape[0] * shape[1])
        return (
            f"ChunkPlan: {len(self)} windows of at most {height} x {width} pixels, {share:.0%} of "
            f"{shape[0]} x {shape[1]}, {share * self.ds.nbytes / 1e6:.1f} MB"
        )


def check_space(data: xr.Dataset | xr.DataArray) -> None:
    """Raise unless data has rows and columns.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        Candidate.

    Raises
    ------
    OptionError
        If a dimension is missing.
    """
    if {"y", "x"} - set(data.sizes):
        raise OptionError(f"A plan needs dims 'y' and 'x'; the data has {tuple(data.sizes)}.")


def _ranges(length: int, size: int, stride: int) -> IntArray:
    """Return (n, 2) bounds of the windows that fit into a length."""
    first = np.arange(0, length - size + 1, stride)
    return np.stack([first, first + size], axis=1).astype("int32")


def _steps(data: xr.Dataset | xr.DataArray, dim: str, size: int | None) -> IntArray:
    """Return where windows begin along a dimension, and the end."""
    length = data.sizes[dim]
    if size is None:
        variable = data[MAIN] if isinstance(data, xr.Dataset) and MAIN in data else data
        chunks = variable.chunksizes.get(dim)
        if chunks:
            return np.concatenate([[0], np.cumsum(chunks)]).astype("int32")
        size = _stored_chunk(variable, dim) or _UNCHUNKED
    return np.append(np.arange(0, length, size), length).astype("int32")


def _stored_chunk(variable: xr.Dataset | xr.DataArray, dim: str) -> int | None:
    """Return the chunk size of a variable that was opened from a store without dask."""
    if isinstance(variable, xr.Dataset):
        return None
    chunks = variable.encoding.get("preferred_chunks") or dict(
        zip(variable.dims, variable.encoding.get("chunks") or (), strict=False)
    )
    return chunks.get(dim)


def _windows(rows: IntArray, columns: IntArray, keep: BoolArray | None) -> IntArray:
    """Return the edges of every window, or of those that hold a True."""
    wanted = np.ones((len(rows) - 1, len(columns) - 1), bool)
    if keep is not None:
        wanted = np.logical_or.reduceat(np.logical_or.reduceat(keep, rows[:-1], axis=0), columns[:-1], axis=1)
    down, across = np.nonzero(wanted)
    return np.stack([rows[down], rows[down + 1], columns[across], columns[across + 1]], axis=1).astype(
        "int32"
    )
