"""Fill gaps in time from the observations before and after; what was observed is never touched."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from cubekit.cube.blocks import chunks_of, is_lazy, on_blocks, working_memory
from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of, noted
from cubekit.cube.kernels import off_nodata, valid_in
from cubekit.cube.plan import BLOCK_BYTES
from cubekit.cube.smooth import harmonic, whittaker
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

Fill: TypeAlias = Literal["linear", "nearest", "whittaker", "harmonic"]
"""Ways to fill gaps."""

_PIECE = 2**12  # series smoothed at once
_MOST_WAVES = 12


def fill_gaps(
    cube: xr.Dataset,
    *,
    how: Fill = "linear",
    limit: float | None = None,
    smoothness: float = 10.0,
    harmonics: int = 2,
) -> xr.Dataset:
    """Fill values without data from other dates of the same pixel and band.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory.
    how : {"linear", "nearest", "whittaker", "harmonic"}
        ``"linear"``: between the observations before and after, by true distance in days; beyond the first
        and last observation the nearest one. ``"nearest"``: the nearest in time, the earlier of two equally
        near. ``"whittaker"``: from a smooth curve, ``"harmonic"``: from waves of the year, both fitted to the
        observations of the series (see :mod:`cubekit.cube.smooth`) and kept within the range of what it
        observed.
    limit : float, optional
        Days. A gap is filled only where the two observations around it are at most this far apart; beyond the
        first and last one, only up to this distance. Default: no limit.
    smoothness : float, optional
        Of ``"whittaker"``: Eilers' lambda, for steps of the mean length.
    harmonics : int, optional
        Of ``"harmonic"``: waves of a year, half a year, and so on; fewer where a series has few observations.

    Returns
    -------
    xarray.Dataset
        ``data`` in the same dtype and coding (integers rounded, halves to the even number); series without
        any observation stay nodata. ``filled`` (time, y, x) bool is true where at least one band was filled.
        As lazy as the input.

    Raises
    ------
    OptionError
        For an unknown `how`, a `limit` below 0, a `smoothness` that is not above 0, or `harmonics` not from 1
        to 12.
    CubeError
        For a cube without a nodata value.
    """
    check_cube(cube)
    check_option("how", how, get_args(Fill))
    if limit is not None and not limit >= 0:
        raise OptionError(f"limit={limit!r}: give days, 0 or more, or leave it out.")
    if not 0 < smoothness < np.inf:
        raise OptionError(f"smoothness={smoothness!r}: give a number above 0, such as 10.")
    if harmonics not in range(1, _MOST_WAVES + 1):
        raise OptionError(f"harmonics={harmonics!r}: give a whole number from 1 to {_MOST_WAVES}.")
    data = cube[MAIN]
    nodata = encoding_of(data).nodata
    if nodata is None:
        raise CubeError("The cube has no nodata value (_FillValue): nothing says what a gap is.")
    days = (cube.indexes["time"] - cube.indexes["time"][0]).to_numpy() / np.timedelta64(1, "D")
    options = {"days": days, "how": how, "limit": np.inf if limit is None else float(limit), "nodata": nodata}
    function: Callable[..., Array] = _fill_block
    if how in {"whittaker", "harmonic"}:
        function, options = _smooth_block, options | {"smoothness": smoothness, "harmonics": harmonics}
    values = _whole_series(data.data) if is_lazy(data.data) else data.data
    sizes = chunks_of(values)
    filled = on_blocks(function, values, chunks=sizes, dtype=values.dtype, options=options)
    sizes = (sizes[0], *sizes[2:])
    flag = on_blocks(_flag_block, values, filled, chunks=sizes, dtype=bool, options={"nodata": nodata})
    result = cube.assign({MAIN: (DIMS, filled, data.attrs), "filled": (("time", "y", "x"), flag)})
    result["filled"].attrs = {
        "long_name": "at least one band was filled from other dates",
        "grid_mapping": data.attrs.get("grid_mapping", "spatial_ref"),
    }
    shape: dict[str, float] = {}
    if how == "whittaker":
        shape = {"smoothness": smoothness}
    elif how == "harmonic":
        shape = {"harmonics": harmonics}
    return noted(result, "fill_gaps", how=how, limit=limit, **shape)


def _whole_series(values: Any) -> Any:
    """Give every block whole series, all bands, and no more memory than a block may take."""
    times, bands = values.shape[:2]
    pixels = max(BLOCK_BYTES // (times * bands * values.dtype.itemsize), 1)
    side = max(int(pixels**0.5), 1)
    rows, cols = max(values.chunks[2]), max(values.chunks[3])
    return values.rechunk({0: -1, 1: -1, 2: _divided(rows, side), 3: _divided(cols, side)})


def _divided(size: int, at_most: int) -> int:
    """Return the largest even share of a block that is small enough, so that no block is cut twice."""
    return -(-size // -(-size // at_most))


@working_memory(each=3)
def _flag_block(before: Array, after: Array, nodata: float) -> BoolArray:
    changed = valid_in(after, nodata) & ~valid_in(before, nodata)
    return np.asarray(changed.any(axis=1))


@working_memory(each=5, each_of_a_date=60)  # valid, next date; one date with many gaps
def _fill_block(values: Array, days: FloatArray, how: str, limit: float, nodata: float) -> Array:
    """Fill one block, shape (time, band, y, x)."""
    valid = valid_in(values, nodata)
    if valid.all():
        return values
    after = _next_valid(valid)
    before = np.full(values.shape[1:], -1, np.int32)
    out = values.copy()
    last = len(values) - 1
    for step in range(len(values)):
        np.copyto(before, step, where=valid[step])
        gap = ~valid[step] & ((before >= 0) | (after[step] <= last))
        if not gap.any():
            continue
        early, late = before[gap], after[step][gap]
        early, late = np.where(early < 0, late, early), np.where(late > last, early, late)
        place = np.nonzero(gap)
        new, near = _estimate(values, place, (early, late), days, step, how=how)
        usable = near <= limit
        out[step][tuple(axis[usable] for axis in place)] = _recoded(new[usable], values.dtype, nodata)
    return out


@working_memory(each=1)  # pieces
def _smooth_block(  # noqa: PLR0917
    values: Array,
    days: FloatArray,
    how: str,
    limit: float,
    nodata: float,
    smoothness: float,
    harmonics: int,
) -> Array:
    """Fill one block, shape (time, band, y, x), from curves through its series."""
    out = values.copy()
    flat, result = values.reshape(len(values), -1), out.reshape(len(values), -1)
    for start in range(0, flat.shape[1], _PIECE):
        piece = slice(start, start + _PIECE)
        valid = valid_in(flat[:, piece], nodata)
        gap = ~valid & (_widths(valid, days) <= limit)
        if not gap.any():
            continue
        series = np.where(valid, flat[:, piece], 0).astype(np.float64)
        if how == "whittaker":
            curve = whittaker(series, valid, days, smoothness)
        else:
            curve = harmonic(series, valid, days, harmonics)
        low = np.where(valid, series, np.inf).min(axis=0)
        high = np.where(valid, series, -np.inf).max(axis=0)
        inside = np.minimum(np.maximum(curve, low), high)
        result[:, piece][gap] = _recoded(inside[gap], values.dtype, nodata)
    return out


def _widths(valid: BoolArray, days: FloatArray) -> FloatArray:
    """Return how many days apart the observations around each date are; NaN where there is none at all.

    Beyond the first and the last one: how far away that is.
    """
    early, late = np.full(valid.shape, -np.inf), np.full(valid.shape, np.inf)
    column = np.broadcast_to(days[:, None], valid.shape)
    np.copyto(early, column, where=valid)
    np.copyto(late, column, where=valid)
    early = np.maximum.accumulate(early, axis=0)
    late = np.minimum.accumulate(late[::-1], axis=0)[::-1]
    width = np.where(np.isinf(early), late - column, np.where(np.isinf(late), column - early, late - early))
    return np.where(np.isinf(width), np.nan, width)


def _next_valid(valid: BoolArray) -> IntArray:
    """Return, for each date, the next one with data; the number of dates where there is none."""
    after = np.empty(valid.shape, np.int32)
    following = np.full(valid.shape[1:], len(valid), np.int32)
    for step in range(len(valid) - 1, -1, -1):
        np.copyto(following, step, where=valid[step])
        after[step] = following
    return after


def _estimate(
    values: Array,
    place: tuple[IntArray, ...],
    around: tuple[IntArray, IntArray],
    days: FloatArray,
    step: int,
    *,
    how: str,
) -> tuple[FloatArray, FloatArray]:
    """Return new values, and how wide the gaps around them are in days."""
    early, late = around
    one, other = values[(early, *place)].astype(np.float64), values[(late, *place)].astype(np.float64)
    to_early, to_late = np.abs(days[step] - days[early]), np.abs(days[late] - days[step])
    inner = early != late
    width = np.where(inner, to_early + to_late, to_early)
    if how == "nearest":
        return np.where(to_late < to_early, other, one), width
    share = np.divide(to_early, width, out=np.zeros_like(width), where=inner & (width > 0))
    return one + (other - one) * share, width


def _recoded(values: FloatArray, dtype: "np.dtype[Any]", nodata: float) -> Array:
    return off_nodata((values if dtype.kind == "f" else np.rint(values)).astype(dtype), nodata)
