"""Which windows of a cube to read, in which order: xbatcher plans that follow the chunks and lose no edge."""

from collections.abc import Hashable, Iterator, Mapping
from operator import index
from typing import SupportsIndex

import numpy as np
import xarray as xr
import xbatcher

from cubekit.cube.contract import MAIN
from cubekit.errors import OptionError
from cubekit.typing import BoolArray, IntArray

_UNCHUNKED = 512  # pixels; side of a window where the data has no chunks to follow


class Windows(Mapping[int, list[dict[Hashable, slice]]]):
    """Selectors as xbatcher wants them, made when asked for from 16 bytes each.

    xbatcher holds a list of dictionaries of slices for each patch, about 320 bytes; a plan of a whole tile
    with overlapping patches has half a million of them.

    Parameters
    ----------
    edges : numpy.ndarray
        (n, 4) int32: first and last-but-one row, first and last-but-one column.
    sizes : mapping
        Dimensions that every window takes whole, with their sizes.
    """

    def __init__(self, edges: IntArray, sizes: Mapping[str, int]) -> None:
        self.edges = edges
        self._whole: dict[Hashable, slice] = {dim: slice(0, size) for dim, size in sizes.items()}

    def __len__(self) -> int:
        return len(self.edges)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int | np.integer) and bool(0 <= key < len(self))

    def __getitem__(self, key: int) -> list[dict[Hashable, slice]]:
        if key not in self:
            raise KeyError(key)
        top, bottom, left, right = self.edges[key].tolist()
        return [{**self._whole, "y": slice(top, bottom), "x": slice(left, right)}]


class ChunkPlan(xbatcher.BatchGenerator):  # type: ignore[misc]  # xbatcher ships no types
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
        missing = {"y", "x"} - set(data.sizes)
        if missing:
            raise OptionError(f"A plan needs dims 'y' and 'x'; the data has {tuple(data.sizes)}.")
        shape = (data.sizes["y"], data.sizes["x"])
        if block is not None and min(block) < 1:
            raise OptionError(f"block={block!r} must be two positive numbers of pixels.")
        if keep is not None and keep.shape != shape:
            raise OptionError(f"keep has shape {keep.shape}; the data has {shape} rows and columns.")
        rows, columns = (
            _bounds(data, dim, size) for dim, size in zip(("y", "x"), block or (None, None), strict=True)
        )
        sizes = {str(dim): size for dim, size in data.sizes.items()}
        largest = {"y": int(np.diff(rows).max()), "x": int(np.diff(columns).max())}
        # naming every dim keeps xbatcher from flattening time and band into "sample"
        super().__init__(data, input_dims=sizes | largest)
        self._shape = shape
        whole = {dim: size for dim, size in sizes.items() if dim not in largest}
        self._batch_selectors.selectors = Windows(_windows(rows, columns, keep), whole)

    def __getitem__(self, idx: SupportsIndex) -> xr.Dataset | xr.DataArray:
        """Read one window into memory; unlike plain xbatcher, NumPy's integers are welcome."""
        window: xr.Dataset | xr.DataArray = super().__getitem__(index(idx))
        return window

    @property
    def batcher(self) -> xbatcher.BatchGenerator:
        """The xbatcher generator behind the plan: the plan itself."""
        return self

    @property
    def edges(self) -> IntArray:
        """(n, 4) int32: first and last-but-one row, first and last-but-one column of each window."""
        windows: Windows = self._batch_selectors.selectors
        return windows.edges

    def __repr__(self) -> str:
        height, width = (self.input_dims[dim] for dim in ("y", "x"))
        rows, columns = self.edges[:, 1] - self.edges[:, 0], self.edges[:, 3] - self.edges[:, 2]
        share = float((rows.astype("int64") * columns).sum()) / (self._shape[0] * self._shape[1])
        return (
            f"ChunkPlan: {len(self)} windows of at most {height} x {width} pixels, {share:.0%} of "
            f"{self._shape[0]} x {self._shape[1]}, {share * self.ds.nbytes / 1e6:.1f} MB"
        )


def _bounds(data: xr.Dataset | xr.DataArray, dim: str, size: int | None) -> IntArray:
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
