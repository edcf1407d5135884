"""Laying pixels onto a block in one compiled pass, where numba is installed: the same numbers as NumPy gives.

``CUBEKIT_NUMBA=0`` in the environment turns it off. Kernels are compiled when first needed, never at import,
and numba keeps them on disk.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cubekit.cube.compiled import is_on
from cubekit.cube.kernels import fits
from cubekit.cube.places import Positions, mesh_of
from cubekit.cube.resample import Place, Window, index_of, neighbours
from cubekit.typing import Array, BoolArray, IntArray

if TYPE_CHECKING:
    from cubekit.cube.lay import Loaded, Recode

_DTYPES: Final = frozenset({"uint8", "int16", "uint16"})  # each costs 1.5 to 7.5 s a kernel to compile, once
_QUARTER: Final = np.float32(0.25)
_NO_NUMBER: Final = np.int32(-1 << 31)  # that no pixel is
_LARGEST_SHIFT: Final = 1 << 24
_SPOTS: Final = (np.int32, np.float32, np.float32, np.uint8)  # first of four pixels, shares, which is nearest


def lay(loaded: "Loaded", rule: "Recode", out: Array, status: Array | None, hidden: BoolArray | None) -> bool:
    """Do as :func:`cubekit.cube.lay.lay` where there is a kernel for it.

    Parameters
    ----------
    loaded : Loaded
        Window of a file.
    rule : Recode
        How its numbers become those of the cube.
    out : numpy.ndarray
        Changed in place; may be part of a larger array.
    status : numpy.ndarray of uint8 or None
        Changed in place.
    hidden : numpy.ndarray of bool or None
        Pixels that the mask takes out.

    Returns
    -------
    bool
        Whether it is done; if not, nothing has been changed.
    """
    place, values = loaded.place, loaded.values
    dtype = rule.coding.dtype
    if place is None or rule.may_clash or not (values.dtype == dtype and dtype in _DTYPES):
        return False
    if loaded.method not in {"nearest", "bilinear"} or abs(rule.shift) > _LARGEST_SHIFT or not is_on():
        return False
    if out.strides[1] != out.itemsize or out.strides[0] <= 0:
        return False
    nearest = loaded.method == "nearest" or (rule.shift == 0 and place.where.on_centres)
    kernel, spots = _prepared(place, values.shape, out.shape, nearest=nearest)
    numbers = _numbers(loaded.nodata, rule, values.dtype)
    kernel(np.ascontiguousarray(values), spots, numbers, _block(out, status, hidden))
    return True


def _block(out: Array, status: Array | None, hidden: BoolArray | None) -> tuple[Any, ...]:
    """Return where to write: lines of the block, of its status and of its mask, and steps from row to row.

    Lines are of one piece, however large the array is of which the block is a part, so that one compiled
    kernel serves all.
    """
    state = np.empty((1, 1), np.uint8) if status is None else status
    masked = np.empty((1, 1), bool) if hidden is None else np.ascontiguousarray(hidden)
    steps = [each.strides[0] // each.itemsize for each in (out, state, masked)]
    lines = [_in_line(each) for each in (out, state, masked)]
    pairs = [item for pair in zip(lines, steps, strict=True) for item in pair]
    return (*pairs, status is None, hidden is not None)


def _in_line(block: Array) -> Array:
    """Return the memory from the first to the last pixel of a block as one line."""
    if block.flags.c_contiguous:
        return block.reshape(-1)
    size = block.strides[0] // block.itemsize * (block.shape[0] - 1) + block.shape[1]
    return np.lib.stride_tricks.as_strided(block, (size,), (block.itemsize,))


def _numbers(nodata: float | None, rule: "Recode", dtype: "np.dtype[Any]") -> tuple[np.int32, ...]:
    """Return nodata of the file, the shift, the limits of the type, nodata of the cube, and its neighbour."""
    limits, fill = np.iinfo(dtype), rule.coding.nodata
    none, out = (
        np.int32(number) if number is not None and fits(number, dtype) else _NO_NUMBER
        for number in (nodata, fill)
    )
    beside = out - 1 if out == limits.max else out + 1
    return none, np.int32(rule.shift), np.int32(limits.min), np.int32(limits.max), out, np.int32(beside)


def _prepared(
    place: Place, shape: tuple[int, int], target: tuple[int, int], *, nearest: bool
) -> tuple[Any, Any]:
    """Choose the kernel, and work out for it where pixels come from: once for all files of one grid."""
    name = "nearest" if nearest else "bilinear"
    if name not in place.prepared:
        prepare = _prepare_axes if place.where.on_axes else _prepare_fields
        place.prepared[name] = prepare(place.where, place.window, shape, target, nearest=nearest)
    found: tuple[Any, Any] = place.prepared[name]
    return found


def _prepare_axes(
    where: Positions, window: Window, shape: tuple[int, int], _: tuple[int, int], *, nearest: bool
) -> tuple[Any, Any]:
    from cubekit.cube import lay_kernels  # loads numba, which takes half a second

    rows, columns, begin, end = _nearest_axes(where, window)
    if nearest:
        return lay_kernels.nearest_axes, (rows, columns, begin, end)
    ups = _around(where.rows[:, 0] - 0.5 - window.top, shape[0])
    lefts = tuple(part[begin:end] for part in _around(where.cols[0] - 0.5 - window.left, shape[1]))
    pairs = _pairs(ups, lefts)
    return lay_kernels.bilinear_axes, (rows, *ups, columns[begin:end], *lefts, begin, end, pairs)


def _prepare_fields(
    where: Positions, window: Window, shape: tuple[int, int], target: tuple[int, int], *, nearest: bool
) -> tuple[Any, Any]:
    from cubekit.cube import warp_kernels

    kernels: Any = warp_kernels
    fields = (*mesh_of(where, target), (window.top, window.left, *shape))
    if nearest:
        return kernels.nearest, kernels.nearest_spots(*fields, target)
    spots = (*(np.empty(target, kind) for kind in _SPOTS), *(np.empty(target[0], np.int64) for _ in "ab"))
    kernels.bilinear_spots(*fields, spots)
    return kernels.bilinear, (spots, np.empty(max(shape[0] * shape[1] - 1, 0), np.uint32), fields)


def _nearest_axes(where: Positions, window: Window) -> tuple[IntArray, IntArray, int, int]:
    """Return row and column numbers of the window, -1 outside of it, and which columns are inside."""
    rows, rows_in = index_of(where.rows[:, 0], window.top, window.bottom)
    columns, columns_in = index_of(where.cols[0], window.left, window.right)
    inside = np.flatnonzero(columns_in)
    begin, end = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    return np.where(rows_in, rows, -1), columns.astype(np.uint32), begin, end


def _around(places: Array, size: int) -> tuple[Array, ...]:
    """Return the pixels before and behind each place along an axis, and the weights of both."""
    before, behind, share = neighbours(places, size, np.float32)
    return before.astype(np.uint32), behind.astype(np.uint32), np.float32(1) - share, share


def _pairs(ups: tuple[Array, ...], lefts: tuple[Array, ...]) -> tuple[int, int, int]:
    """Find the columns of a grid twice as fine that lie in pairs between two pixels: from, to, first pixel.

    Zeros where any weight is not a quarter or three, or there is no such pair.
    """
    before, behind, _, share = lefts
    if not share.size or not all(
        bool(((each == _QUARTER) | (each == 3 * _QUARTER)).all()) for each in (ups[3], share)
    ):
        return 0, 0, 0
    start = int(np.argmax((share == _QUARTER) & (behind > before)))
    count = int((behind > before)[start:].sum()) // 2
    stop, wanted = start + 2 * count, before[start] + np.arange(2 * count) // 2
    alike = np.array_equal(before[start:stop], wanted) and np.array_equal(behind[start:stop], wanted + 1)
    by_turns = np.array_equal(share[start:stop], np.tile([_QUARTER, 3 * _QUARTER], count))
    return (start, stop, int(before[start])) if count and alike and by_turns else (0, 0, 0)
