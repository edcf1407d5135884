"""Composites: one value for each period of a complete calendar."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from cubekit.cube.blocks import is_lazy, map_blocks, working_memory
from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of, noted
from cubekit.cube.kernels import REDUCTIONS, reduce_dates, valid_in
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import Array

MAX_PERIODS = 10_000
"""Longest calendar: over 27 years of days."""


def composite(
    cube: xr.Dataset,
    *,
    every: str = "1MS",
    how: Literal["median", "mean", "min", "max", "first"] = "median",
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
) -> xr.Dataset:
    """Reduce the dates of each period of a calendar to one.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory.
    every : str
        Length of a period as a pandas offset: ``"1MS"`` (calendar months), ``"14D"``, ``"QS"``, ``"YS"``.
        Months and the like start where they do in the calendar; numbers of days count from `start`.
    how : {"median", "mean", "min", "max", "first"}
        Over the dates with data, each band for itself. The median of an even count is the mean of the two
        middle values; means of integers are rounded, halves to the even number.
    start, end : str or numpy.datetime64, optional
        The calendar runs from the period that holds `start` to the one that holds `end`; other dates are left
        out. Default: first and last date of the cube.

    Returns
    -------
    xarray.Dataset
        ``data`` in the same dtype and coding, ``time`` being the starts of all periods without a gap, nodata
        where nothing was observed; and ``observations`` (time, y, x) uint16, the number of dates with data in
        any band. As lazy as the input; static variables are kept.

    Raises
    ------
    OptionError
        For an unknown `every` or `how`, or `end` before `start`.
    CubeError
        When no date of the cube lies in the calendar.
    """
    check_cube(cube)
    check_option("how", how, REDUCTIONS)
    times = pd.DatetimeIndex(cube.indexes["time"])
    calendar = _calendar(every, times, start, end)
    first, last = times.searchsorted(calendar[[0, -1]])
    if first == last:
        raise CubeError(
            f"No date of the cube ({times[0]} to {times[-1]}) lies between {calendar[0]} and {calendar[-1]}."
        )
    counts = np.diff(times.searchsorted(calendar))
    data = cube[MAIN].isel(time=slice(first, last))
    nodata = encoding_of(data).nodata
    values, seen = _composite(data.data, [int(count) for count in counts], how, nodata)
    kept = cube.drop_vars([name for name, item in cube.variables.items() if "time" in item.dims])
    coords = {"time": calendar[:-1].to_numpy().astype("datetime64[ns]")}
    attrs = {**data.attrs, "cell_methods": f"time: {how}"}
    result = kept.assign({MAIN: (DIMS, values, attrs), "observations": (("time", "y", "x"), seen)})
    result["observations"].attrs = {
        "long_name": "dates with data in any band",
        "grid_mapping": data.attrs.get("grid_mapping", "spatial_ref"),
    }
    result = result.assign_coords(coords)
    result = result.assign_attrs(composite=f"{how} every {every}")
    stop = (
        times[-1] if end is None else end
    )  # said in full, so that a part of the scenes has the same periods
    return noted(
        result, "composite", every=every, how=how, start=str(calendar[0]), end=str(pd.Timestamp(stop))
    )


def _calendar(every: str, times: pd.DatetimeIndex, start: Any, end: Any) -> pd.DatetimeIndex:
    """Return the starts of all periods, and the end of the last."""
    try:
        offset = pd.tseries.frequencies.to_offset(every)
    except ValueError as error:
        raise OptionError(f"every={every!r} is not a period; write '1MS', '14D' or 'QS'.") from error
    if offset.n < 1:
        raise OptionError(f"every={every!r} is not a period; write '1MS', '14D' or 'QS'.")
    begin = pd.Timestamp(times[0] if start is None else start).normalize()
    stop = pd.Timestamp(times[-1] if end is None else end)
    if stop < begin:
        raise OptionError(f"start={start!r} lies after end={end!r}.")
    edges = [offset.rollback(begin)]
    while edges[-1] <= stop:
        if len(edges) > MAX_PERIODS:
            raise OptionError(f"every={every!r} from {begin} to {stop} gives over {MAX_PERIODS} periods.")
        edges.append(edges[-1] + offset)
    return pd.DatetimeIndex(edges)


def _composite(values: Any, counts: list[int], how: str, nodata: float | None) -> tuple[Any, Any]:
    """Reduce, and count, for lazy and plain arrays alike."""
    if not is_lazy(values):
        return _reduce_groups(values, counts, how, nodata), _count_groups(values, counts, nodata)
    groups = _groups(counts, max(values.chunks[0]))
    # Bands stay together because the count looks at all of them.
    values = values.rechunk({0: tuple(sum(group) for group in groups), 1: -1})
    lengths = tuple(len(group) for group in groups)
    options = {"groups": groups, "nodata": nodata}
    reduced = map_blocks(
        _reduce_block,
        values,
        chunks=(lengths, *values.chunks[1:]),
        dtype=values.dtype,
        options={**options, "how": how},
    )
    seen = map_blocks(
        _count_block, values, chunks=(lengths, *values.chunks[2:]), dtype=np.uint16, options=options
    )
    return reduced, seen


def _groups(counts: list[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Put whole periods together up to about as many dates as a block had; no group is without any date."""
    groups: list[list[int]] = [[]]
    for count in counts:
        if count and sum(groups[-1]) and sum(groups[-1]) + count > size:
            groups.append([])
        groups[-1].append(count)
    return tuple(tuple(group) for group in groups)


@working_memory(each=0, each_of_a_date=8)  # pieces that fit the processor's cache
def _reduce_block(
    block: Array,
    groups: tuple[tuple[int, ...], ...],
    how: str,
    nodata: float | None,
    block_id: tuple[int, ...],
) -> Array:
    return _reduce_groups(block, list(groups[block_id[0]]), how, nodata)


@working_memory(each=0, each_of_a_date=2)
def _count_block(
    block: Array, groups: tuple[tuple[int, ...], ...], nodata: float | None, block_id: tuple[int, ...]
) -> Array:
    return _count_groups(block, list(groups[block_id[0]]), nodata)


def _reduce_groups(values: Array, counts: list[int], how: str, nodata: float | None) -> Array:
    fill = _fill(values.dtype, nodata)
    out = np.full((len(counts), *values.shape[1:]), fill, values.dtype)
    start = 0
    for step, count in enumerate(counts):
        if count:
            out[step] = reduce_dates(values[start : start + count], how, nodata)
        start += count
    return out


def _fill(dtype: "np.dtype[Any]", nodata: float | None) -> Any:
    if nodata is None:
        raise CubeError("The cube has no nodata value (_FillValue), which periods without observations need.")
    return dtype.type(nodata)


def _count_groups(values: Array, counts: list[int], nodata: float | None) -> Array:
    out = np.zeros((len(counts), *values.shape[2:]), np.uint16)
    start = 0
    for step, count in enumerate(counts):
        for date in values[start : start + count]:
            out[step] += valid_in(date, nodata).any(axis=0)
        start += count
    return out
