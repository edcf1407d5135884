"""Laying pixels onto a block in one compiled pass, where numba is installed: the same numbers as NumPy gives.

``CUBEKIT_NUMBA=0`` in the environment turns it off. Kernels are compiled when first needed, never at import,
and numba keeps them on disk.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cubekit.cube.compiled import is_on
from cubekit.cube.kernels import fits
from cubekit.cube.resample import Place, Positions, Window, index_of, neighbours
from cubekit.typing import Array, BoolArray

if TYPE_CHECKING:
    from cubekit.cube.lay import Loaded, Recode

_DTYPES: Final = frozenset({"uint8", "int16", "uint16"})  # each costs a second or two to compile, once
_EXACT: Final = 1e-9  # of a pixel
_QUARTER: Final = np.float32(0.25)
_NO_NUMBER: Final = np.int64(-1 << 40)  # that no pixel is


def lay(loaded: "Loaded", rule: "Recode", out: Array, status: Array, hidden: BoolArray | None) -> bool:
    """Do as :func:`cubekit.cube.lay.lay` where there is a kernel for it.

    Parameters
    ----------
    loaded : Loaded
        Window of a file.
    rule : Recode
        How its numbers become those of the cube.
    out, status : numpy.ndarray
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
    if loaded.method not in {"nearest", "bilinear"} or not is_on():
        return False
    masked = np.zeros((1, 1), bool) if hidden is None else hidden
    nearest = loaded.method == "nearest" or (rule.shift == 0 and _on_centres(place.where))
    kernel, spots = _prepared(place, values.shape, nearest=nearest)
    numbers = _numbers(loaded.nodata, rule, values.dtype)
    kernel(np.ascontiguousarray(values), spots, numbers, masked, hidden is not None, out, status)
    return True


def _numbers(nodata: float | None, rule: "Recode", dtype: "np.dtype[Any]") -> tuple[np.int64, ...]:
    """Return nodata of the file, the shift, the limits of the type, and nodata of the cube."""
    limits, fill = np.iinfo(dtype), rule.coding.nodata
    none, out = (
        np.int64(number) if number is not None and fits(number, dtype) else _NO_NUMBER
        for number in (nodata, fill)
    )
    return none, np.int64(rule.shift), np.int64(limits.min), np.int64(limits.max), out


def _prepared(place: Place, shape: tuple[int, int], *, nearest: bool) -> tuple[Any, Any]:
    """Choose the kernel, and work out for it where pixels come from: once for all files of one grid."""
    name = "nearest" if nearest else "bilinear"
    if name not in place.prepared:
        place.prepared[name] = _prepare(place.where, place.window, shape, nearest=nearest)
    found: tuple[Any, Any] = place.prepared[name]
    return found


def _prepare(where: Positions, window: Window, shape: tuple[int, int], *, nearest: bool) -> tuple[Any, Any]:
    kernels = _kernels()
    axes = where.rows.shape[1] == 1 and where.cols.shape[0] == 1
    if axes and nearest:
        return kernels.nearest_axes, _nearest_axes(where, window)
    if axes:
        found = _bilinear_axes(where, window, shape)
        return kernels.bilinear_quarters if _by_quarters(found) else kernels.bilinear_axes, found
    fields = _fields(where, window)
    if nearest or min(shape) < 2:  # noqa: PLR2004  (four pixels to weigh)
        return kernels.nearest if nearest else kernels.bilinear, fields
    return kernels.bilinear_spots, (fields, kernels.spots(*fields, *shape))


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from cubekit.cube import lay_kernels  # loads numba, which takes half a second

    return lay_kernels


def _on_centres(where: Positions) -> bool:
    """Tell whether all places are centres of pixels, so that weighing gives the nearest pixel itself."""
    if where.rows.shape[1] > 1 or where.cols.shape[0] > 1:
        return False
    return all(bool((np.abs(places % 1 - 0.5) < _EXACT).all()) for places in (where.rows, where.cols))


def _nearest_axes(where: Positions, window: Window) -> tuple[Array, ...]:
    """Return row and column numbers of the window, -1 outside of it."""
    rows, rows_in = index_of(where.rows[:, 0], window.top, window.bottom)
    cols, cols_in = index_of(where.cols[0], window.left, window.right)
    return np.where(rows_in, rows, -1), np.where(cols_in, cols, -1)


def _bilinear_axes(where: Positions, window: Window, shape: tuple[int, int]) -> tuple[Array, ...]:
    """Return, along each axis, the nearest pixel, the two around a place, and the weights of both."""
    found: list[Array] = list(_nearest_axes(where, window))
    for places, start, size in (
        (where.rows[:, 0], window.top, shape[0]),
        (where.cols[0], window.left, shape[1]),
    ):
        before, behind, share = neighbours(places - 0.5 - start, size, np.float32)
        found += [before, behind, np.float32(1) - share, share]
    return tuple(found)


def _by_quarters(places: tuple[Array, ...]) -> bool:
    """Tell whether every weight is a quarter or three, as on a grid twice as fine."""
    _, _, _, _, _, downs, _, _, _, rights = places
    return all(bool(((share == _QUARTER) | (share == 3 * _QUARTER)).all()) for share in (downs, rights))


def _fields(where: Positions, window: Window) -> tuple[Any, ...]:
    """Return the places themselves, and where the window begins."""
    rows, cols = np.broadcast_arrays(where.rows, where.cols)
    return np.ascontiguousarray(rows), np.ascontiguousarray(cols), window.top, window.left
