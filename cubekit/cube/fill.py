"""Fill gaps in time from the observations before and after; what was observed is never touched."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from cubekit.cube.blocks import is_lazy, map_blocks, working_memory
from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of, noted
from cubekit.cube.kernels import off_nodata, valid_in
from cubekit.cube.plan import BLOCK_BYTES
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import Array, BoolArray, FloatArray, IntArray


def fill_gaps(
    cube: xr.Dataset, *, how: Literal["linear", "nearest"] = "linear", limit: float | None = None
) -> xr.Dataset:
    """Fill values without data from other dates of the same pixel and band.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory.
    how : {"linear", "nearest"}
        ``"linear"``: between the observations before and after, by true distance in days; beyond the first
        and last observation the nearest one. ``"nearest"``: the nearest in time, the earlier of two equally
        near.
    limit : float, optional
        Days. A gap is filled only where the two observations around it are at most this far apart; beyond the
        first and last one, only up to this distance. Default: no limit.

    Returns
    -------
    xarray.Dataset
        ``data`` in the same dtype and coding (integers rounded, halves to the even number); series without
        any observation stay nodata. ``filled`` (time, y, x) bool is true where at least one band was filled.
        As lazy as the input.

    Raises
    ------
    OptionError
        For an unknown `how`, or a `limit` below 0.
    CubeError
        For a cube without a nodata value.
    """
    check_cube(cube)
    check_option("how", how, ("linear", "nearest"))
    if limit is not None and not limit >= 0:
        raise OptionError(f"limit={limit!r}: give days, 0 or more, or leave it out.")
    data = cube[MAIN]
    nodata = encoding_of(data).nodata
    if nodata is None:
        raise CubeError("The cube has no nodata value (_FillValue): nothing says what a gap is.")
    days = (cube.indexes["time"] - cube.indexes["time"][0]).to_numpy() / np.timedelta64(1, "D")
    options = {"days": days, "how": how, "limit": np.inf if limit is None else float(limit), "nodata": nodata}
    values = data.data
    if is_lazy(values):
        values = _whole_series(values)
        filled = map_blocks(_fill_block, values, chunks=values.chunks, dtype=values.dtype, options=options)
        chunks = (values.chunks[0], *values.chunks[2:])
        flag = map_blocks(_flag_block, values, filled, chunks=chunks, dtype=bool, options={"nodata": nodata})
    else:
        filled = _fill_block(values, **options)
        flag = _flag_block(values, filled, nodata)
    result = cube.assign({MAIN: (DIMS, filled, data.attrs), "filled": (("time", "y", "x"), flag)})
    result["filled"].attrs = {
        "long_name": "at least one band was filled from other dates",
        "grid_mapping": data.attrs.get("grid_mapping", "spatial_ref"),
    }
    return noted(result, "fill_gaps", how=how, limit=limit)


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
