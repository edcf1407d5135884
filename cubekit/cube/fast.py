"""Laying pixels onto a block in one compiled pass, where numba is installed: the same numbers as NumPy gives.

``CUBEKIT_NUMBA=0`` in the environment turns it off. Kernels are compiled when first needed, never at import,
and numba keeps them on disk.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cubekit.cube.compiled import is_on
from cubekit.cube.kernels import fits
from cubekit.cube.resample import Positions, Window, index_of, neighbours
from cubekit.typing import Array, BoolArray

if TYPE_CHECKING:
    from cubekit.cube.lay import Loaded, Recode

_DTYPES: Final = frozenset({"uint8", "int16", "uint16"})  # each costs a second or two to compile, once


_EXACT: Final = 1e-9  # of a pixel


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
    where, window, values = loaded.where, loaded.window, loaded.values
    dtype = rule.coding.dtype
    if where is None or window is None or rule.may_clash or not (values.dtype == dtype and dtype in _DTYPES):
        return False
    if loaded.method not in {"nearest", "bilinear"} or not is_on():
        return False
    nodata = loaded.nodata
    known = nodata is not None and fits(nodata, values.dtype)
    limits = np.iinfo(values.dtype)
    fill = rule.coding.nodata
    has_fill = fill is not None and fits(fill, values.dtype)
    numbers = (
        np.int64(nodata or 0) if known else np.int64(-1 << 40),
        np.int64(rule.shift),
        np.int64(limits.min),
        np.int64(limits.max),
        np.int64(fill or 0) if has_fill else np.int64(-1 << 40),
    )
    masked = np.zeros((1, 1), bool) if hidden is None else hidden
    kernels = _kernels()
    axes = where.rows.shape[1] == 1 and where.cols.shape[0] == 1
    values = np.ascontiguousarray(values)
    if loaded.method == "nearest" or (rule.shift == 0 and _on_centres(where)):
        kernel, places = (kernels.nearest_axes, _nearest_axes) if axes else (kernels.nearest, _fields)
    else:
        kernel, places = (kernels.bilinear_axes, _bilinear_axes) if axes else (kernels.bilinear, _fields)
    kernel(values, places(where, window, values.shape), numbers, masked, hidden is not None, out, status)
    return True


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from cubekit.cube import lay_compiled  # loads numba, which takes half a second

    return lay_compiled


def _on_centres(where: Positions) -> bool:
    """Tell whether all places are centres of pixels, so that weighing gives the nearest pixel itself."""
    if where.rows.shape[1] > 1 or where.cols.shape[0] > 1:
        return False
    return all(bool((np.abs(places % 1 - 0.5) < _EXACT).all()) for places in (where.rows, where.cols))


def _nearest_axes(where: Positions, window: Window, shape: tuple[int, int]) -> tuple[Array, ...]:
    """Return row and column numbers of the window, -1 outside of it."""
    del shape
    rows, rows_in = index_of(where.rows[:, 0], window.top, window.bottom)
    cols, cols_in = index_of(where.cols[0], window.left, window.right)
    return np.where(rows_in, rows, -1), np.where(cols_in, cols, -1)


def _bilinear_axes(where: Positions, window: Window, shape: tuple[int, int]) -> tuple[Array, ...]:
    """Return, along each axis, the nearest pixel, the two around a place, and the weights of both."""
    found: list[Array] = list(_nearest_axes(where, window, shape))
    for places, start, size in (
        (where.rows[:, 0], window.top, shape[0]),
        (where.cols[0], window.left, shape[1]),
    ):
        before, behind, share = neighbours(places - 0.5 - start, size, np.float32)
        found += [before, behind, np.float32(1) - share, share]
    return tuple(found)


def _fields(where: Positions, window: Window, shape: tuple[int, int]) -> tuple[Any, ...]:
    """Return the places themselves, and where the window begins."""
    del shape
    rows, cols = np.broadcast_arrays(where.rows, where.cols)
    return np.ascontiguousarray(rows), np.ascontiguousarray(cols), window.top, window.left
