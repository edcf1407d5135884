"""Composites: one value for each period of a complete calendar."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import xarray as xr

from cubekit.cube.blocks import chunks_of, is_lazy, on_blocks, working_memory
from cubekit.cube.choice import CHOICES, NONE, Chooser, choose, make_chooser, take
from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of, noted
from cubekit.cube.direct import reduced
from cubekit.cube.geomedian import geomedian
from cubekit.cube.kernels import reduce_dates, valid_in
from cubekit.cube.periods import Calendar, Date, Groups, Reference, groups_of, make_calendar, members, spans
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import Array, IntArray

How: TypeAlias = Literal[
    "median", "mean", "min", "max", "first",
    "geomedian",
    "earliest", "latest", "least_cloudy", "max_index", "medoid",
]  # fmt: skip
"""Ways to make one image of a period."""

Layer: TypeAlias = Literal["source", "age_days"]
"""Companions of a composite that are made on request."""


def composite(  # noqa: PLR0913
    cube: xr.Dataset,
    *,
    every: str | Iterable[str | np.datetime64] = "1MS",
    how: How = "median",
    index: str = "NDVI",
    start: Date = None,
    end: Date = None,
    pool_years: bool = False,
    layers: Iterable[Layer] = (),
    reference: Reference = "middle",
) -> xr.Dataset:
    """Reduce the dates of each period of a calendar to one.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); lazy or in memory.
    every : str or iterable of dates
        Length of a period as a pandas offset: ``"1MS"`` (calendar months), ``"14D"``, ``"QS"``, ``"YS"``.
        Months and the like start where they do in the calendar; numbers of days count from `start`. Or
        ``"season"`` (December to February and so on), ``"dekad"`` (from the 1st, 11th and 21st of each month:
        36 a year), days that start anew each 1 January (``"16D/year"``: 23 a year, as MODIS has them), or a
        list of dates, the edges of all periods.
    how : str
        Each band for itself, over the dates with data: ``"median"`` (of an even count, the mean of the two
        middle values), ``"mean"``, ``"min"``, ``"max"``, ``"first"``. Results of integers are rounded, halves
        to the even number.

        All bands together: ``"geomedian"``, over the dates with data in all bands.

        All bands from one date: ``"earliest"``, ``"latest"``, ``"least_cloudy"`` (by the variable
        ``cloud_cover`` (time) of the cube), ``"max_index"`` (where `index` is highest), ``"medoid"`` (least
        sum of distances to the others, in stored numbers). Dates with data in more bands go first, then the
        earlier of equals.
    index : str, optional
        For ``"max_index"``: short name of the Awesome Spectral Indices.
    start, end : str or numpy.datetime64, optional
        The calendar runs from the period that holds `start` to the one that holds `end`; other dates are left
        out. Default: first and last date of the cube.
    pool_years : bool, optional
        Put the dates of all years into the periods of one, as for a typical year: twelve months, 36 dekads.
        Its dates are those of the year of `start`.
    layers : iterable of {"source", "age_days"}, optional
        Companions to make, where all bands come from one date. ``source`` (time, y, x) int32: number of the
        date in the cube, -1 for none; its attributes list them. ``age_days`` (time, y, x) float32: days from
        that date to `reference`, negative for later dates, NaN for none.
    reference : {"start", "middle", "end"}
        Point of the period that ages are counted to.

    Returns
    -------
    xarray.Dataset
        ``data`` in the same dtype and coding, ``time`` being the starts of all periods without a gap, nodata
        where nothing was observed; and ``observations`` (time, y, x) uint16, the number of dates with data in
        any band. Seasons are named by the coordinate ``season`` (``"DJF 2023"`` ends in February 2023). As
        lazy as the input; static variables are kept.

    Raises
    ------
    OptionError
        For an option that is not accepted, or `end` before `start`.
    CubeError
        When no date of the cube lies in the calendar, or the cube lacks a nodata value or cloud cover.
    UnknownNameError
        For an unknown index.

    Notes
    -----
    A cube as `open_cube` gave it is never held whole: where each band is taken for itself, blocks of local
    files are 512 pixels a side at most, and scenes are read and reduced in one go, band by band (see
    :mod:`cubekit.cube.direct`).

    References
    ----------
    See :mod:`cubekit.cube.geomedian` and :mod:`cubekit.cube.choice`.
    """
    check_cube(cube)
    check_option("how", how, get_args(How))
    wanted = _wanted(layers, how)
    times = pd.DatetimeIndex(cube.indexes["time"])
    calendar = make_calendar(every, times, start=start, end=end, pool_years=pool_years)
    order, counts = members(calendar, times)
    if order.size == 0:
        edges = calendar.edges[[0, -1]]
        raise CubeError(
            f"No date of the cube ({times[0]} to {times[-1]}) lies between {edges[0]} and {edges[1]}."
        )
    nodata = encoding_of(cube[MAIN]).nodata
    if nodata is None:
        raise CubeError("The cube has no nodata value (_FillValue), which periods without observations need.")
    made = _from_scenes(cube[MAIN], order, counts, how, nodata)
    if made is None:
        used = _used(cube, order)
        tables = {"source": order.astype(np.int32), "age_days": calendar.ages(times[order], reference)}
        chooser = make_chooser(used, how, index) if how in CHOICES else None
        made = _made(used[MAIN], counts, how, chooser, {name: tables[name] for name in wanted})
    name = f"max_index {index}" if how == "max_index" else how
    result = _dataset(cube, calendar, made, name, reference)
    options: dict[str, Any] = {"every": every if isinstance(every, str) else list(every), "how": how}
    extra = {"index": index, "pool_years": pool_years, "layers": wanted, "reference": reference}
    usual = {"index": "NDVI", "pool_years": False, "layers": [], "reference": "middle"}
    options |= {name: value for name, value in extra.items() if value != usual[name]}
    # Said in full, so that a part of the scenes has the same periods.
    begin = calendar.starts[0] if start is None and not pool_years else start
    stop = times[-1] if end is None else end
    return noted(result, "composite", **options, start=None if begin is None else str(begin), end=str(stop))


def _from_scenes(
    data: xr.DataArray, order: IntArray, counts: list[int], how: str, nodata: float
) -> dict[str, Any] | None:
    """Make all variables straight from the scenes of an opened cube, where that can be done."""
    pair = reduced(data.data, order, counts, how=how, nodata=nodata)
    return None if pair is None else dict(zip((MAIN, "observations"), pair, strict=True))


def _used(cube: xr.Dataset, order: IntArray) -> xr.Dataset:
    """Pick dates, in the order of their periods."""
    run = slice(order[0], order[-1] + 1)
    if np.array_equal(order, np.arange(run.start, run.stop)):
        return cube.isel(time=run)
    # Along whole time axes, or picking dates would cut blocks into slices.
    return (cube.chunk(time=-1) if is_lazy(cube[MAIN].data) else cube).isel(time=order)


def _wanted(layers: Iterable[str], how: str) -> list[str]:
    """Check the names of companions."""
    wanted = [layers] if isinstance(layers, str) else list(layers)
    for layer in wanted:
        check_option("layers", layer, get_args(Layer))
    if wanted and how not in CHOICES:
        raise OptionError(
            f"layers={wanted} need a composite whose bands come from one date: how={how!r} is none, "
            f"{', '.join(CHOICES)} are."
        )
    return wanted


def _made(
    data: xr.DataArray, counts: list[int], how: str, chooser: Chooser | None, tables: Mapping[str, Array]
) -> dict[str, Any]:
    """Make all variables; dates are in the order of their periods."""
    values, nodata = data.data, encoding_of(data).nodata
    groups: Groups = (tuple(counts),)
    if is_lazy(values):
        groups = groups_of(counts, max(values.chunks[0]))
        # Bands stay together because the count looks at all of them.
        values = values.rechunk({0: tuple(sum(group) for group in groups), 1: -1})
    lengths = tuple(len(group) for group in groups)
    sizes = chunks_of(values)
    whole, thin, flat = (lengths, *sizes[1:]), (lengths, (1,), *sizes[2:]), (lengths, *sizes[2:])
    common: dict[str, Any] = {"groups": groups, "nodata": nodata}
    made = {"observations": on_blocks(_count_block, values, chunks=flat, dtype=np.uint16, options=common)}
    if chooser is None:
        options: dict[str, Any] = {**common, "how": how}
        made[MAIN] = on_blocks(_reduce_block, values, chunks=whole, dtype=values.dtype, options=options)
        return made
    options = {"groups": groups, "chooser": chooser}
    choice = on_blocks(_choose_block, values, chunks=thin, dtype=np.int32, options=options)
    made[MAIN] = on_blocks(_take_block, values, choice, chunks=whole, dtype=values.dtype, options=common)
    for name, table in tables.items():
        made[name] = on_blocks(
            _look_up_block, choice, chunks=flat, dtype=table.dtype, options={"table": table}
        )
    return made


def _dataset(
    cube: xr.Dataset, calendar: Calendar, made: Mapping[str, Any], how: str, reference: str
) -> xr.Dataset:
    """Name and describe the variables."""
    kept = cube.drop_vars([name for name, item in cube.variables.items() if "time" in item.dims])
    attrs = {"grid_mapping": cube[MAIN].attrs.get("grid_mapping", "spatial_ref")}
    methods = {"cell_methods": "time: point" if how.split(maxsplit=1)[0] in CHOICES else f"time: {how}"}
    described: dict[str, dict[str, Any]] = {
        MAIN: cube[MAIN].attrs | methods,
        "observations": {"long_name": "dates with data in any band"},
        "source": {"long_name": "date that all bands come from", "_FillValue": np.int32(NONE)}
        | _dates_listed(pd.DatetimeIndex(cube.indexes["time"])),
        "age_days": {
            "long_name": f"days from the observation to the {reference} of the period",
            "units": "days",
            "_FillValue": np.float32("nan"),
        },
    }
    coords: dict[str, Any] = {"time": calendar.starts.to_numpy().astype("datetime64[ns]")}
    result = kept.assign(
        {
            name: (DIMS if name == MAIN else ("time", "y", "x"), values, attrs | described[name])
            for name, values in made.items()
        }
    ).assign_coords(coords)
    if names := calendar.names():
        result = result.assign_coords(season=("time", names))
    pooled = ", all years together" if calendar.pooled else ""
    return result.assign_attrs(composite=f"{how} every {calendar.every}{pooled}")


def _dates_listed(times: pd.DatetimeIndex) -> dict[str, Any]:
    """List dates as CF flags do."""
    whole = bool((times == times.normalize()).all())
    names = np.datetime_as_string(times.to_numpy(), unit="D" if whole else "s")
    return {"flag_values": list(range(len(times))), "flag_meanings": " ".join(names)}


@working_memory(each=0, each_of_a_date=8)  # pieces that fit the processor's cache
def _reduce_block(block: Array, how: str, groups: Groups, nodata: float, block_id: tuple[int, ...]) -> Array:
    counts = groups[block_id[0]]
    out = np.full((len(counts), *block.shape[1:]), nodata, block.dtype)
    for step, dates in spans(counts):
        geo = how == "geomedian"
        out[step] = geomedian(block[dates], nodata) if geo else reduce_dates(block[dates], how, nodata)
    return out


@working_memory(each=0, each_of_a_date=8)
def _choose_block(block: Array, groups: Groups, chooser: Chooser, block_id: tuple[int, ...]) -> IntArray:
    counts = groups[block_id[0]]
    before = sum(map(sum, groups[: block_id[0]]))
    out = np.full((len(counts), 1, *block.shape[2:]), NONE, np.int32)
    for step, dates in spans(counts):
        out[step, 0] = choose(block[dates], chooser, before + dates.start)
    return out


@working_memory(each=0, each_of_a_date=8)
def _take_block(
    block: Array, choice: IntArray, groups: Groups, nodata: float, block_id: tuple[int, ...]
) -> Array:
    counts = groups[block_id[0]]
    before = sum(map(sum, groups[: block_id[0]]))
    out = np.full((len(counts), *block.shape[1:]), nodata, block.dtype)
    for step, dates in spans(counts):
        out[step] = take(block[dates], choice[step, 0], before + dates.start, nodata)
    return out


@working_memory(each=9)
def _look_up_block(choice: IntArray, table: Array) -> Array:
    """Say of each chosen date what a table says; -1, or NaN, where none was chosen."""
    known = choice[:, 0] != NONE
    none = np.nan if table.dtype.kind == "f" else NONE
    return np.where(known, table[np.where(known, choice[:, 0], 0)], table.dtype.type(none))


@working_memory(each=0, each_of_a_date=2)
def _count_block(block: Array, groups: Groups, nodata: float, block_id: tuple[int, ...]) -> IntArray:
    counts = groups[block_id[0]]
    out = np.zeros((len(counts), *block.shape[2:]), np.uint16)
    for step, dates in spans(counts):
        for date in block[dates]:
            out[step] += valid_in(date, nodata).any(axis=0)
    return out
