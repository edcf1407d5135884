"""How a cube was made: its steps noted beside it, so that a store can answer for each date and be mended."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from cubekit.cube.blocks import held_in
from cubekit.cube.composite import composite
from cubekit.cube.contract import RECIPE
from cubekit.cube.direct import Direct
from cubekit.cube.fill import fill_gaps
from cubekit.cube.indices import add_indices
from cubekit.cube.load import dataset_of
from cubekit.cube.plan import Plan
from cubekit.errors import CubeError
from cubekit.typing import Array

Step = tuple[str, Mapping[str, Any]]
"""Name of a function over cubes, and its options."""

_STEPS: Mapping[str, Callable[..., xr.Dataset]] = {
    "composite": composite,
    "fill_gaps": fill_gaps,
    "add_indices": add_indices,
}
_ACROSS_DATES = ("fill_gaps",)


def recipe_of(cube: xr.Dataset) -> tuple[Step, ...]:
    """Return the steps that were noted on a cube since it was opened.

    Parameters
    ----------
    cube : xarray.Dataset
        Lazy or from a store.

    Returns
    -------
    tuple of (str, mapping)
        In the order in which they were taken; empty where none is noted, or the note cannot be read.
    """
    try:
        noted = json.loads(cube.attrs.get(RECIPE, "[]"))
        return tuple((str(name), dict(options)) for name, options in noted)
    except (ValueError, TypeError):
        return ()


def plans_in(graph: HighLevelGraph) -> dict[str, Plan]:
    """Find the plans that a graph holds.

    Parameters
    ----------
    graph : dask.highlevelgraph.HighLevelGraph
        Of a lazy cube, or of anything computed from one.

    Returns
    -------
    dict
        By the name of the layer that reads with each.
    """
    return {
        name: found if isinstance(found, Plan) else found.plan for name, found in readers_in(graph).items()
    }


def readers_in(graph: HighLevelGraph) -> dict[str, Plan | Direct]:
    """Find the layers of a graph that read files.

    Parameters
    ----------
    graph : dask.highlevelgraph.HighLevelGraph
        As for `plans_in`.

    Returns
    -------
    dict
        Name of each layer, and what it goes by: a plan; or a composite made straight from one.
    """
    readers: dict[str, Plan | Direct] = {}
    for name, layer in graph.layers.items():
        if isinstance(found := held_in(layer), Plan | Direct):
            readers |= dict.fromkeys(graph.dependents[name], found)
    return readers


def replay(plan: Plan, attrs: Mapping[str, Any], steps: Sequence[Step]) -> xr.Dataset:
    """Open the scenes of a plan and take the noted steps again; nothing is read.

    Parameters
    ----------
    plan : Plan
        Of the scenes.
    attrs : mapping
        Attributes of the opened cube, as `open_cube` sets them.
    steps : sequence of (str, mapping)
        From `recipe_of`.

    Returns
    -------
    xarray.Dataset
        Lazy.

    Raises
    ------
    CubeError
        For a step that this version does not know, or that cannot be taken.
    """
    cube = dataset_of(plan, {key: value for key, value in attrs.items() if key != RECIPE})
    for name, options in steps:
        if name not in _STEPS:
            raise CubeError(f"Step {name!r} of the saved recipe is not known to this version of cubekit.")
        cube = _STEPS[name](cube, **options)
    return cube


def again(cube: xr.Dataset, steps: Sequence[Step], before: Array) -> xr.Dataset:
    """Take noted steps with another cube, so that its dates fit behind or between those there are.

    Parameters
    ----------
    cube : xarray.Dataset
        Opened from items.
    steps : sequence of (str, mapping)
        From `recipe_of`.
    before : numpy.ndarray of datetime64[ns]
        Dates there are; periods of composites begin where theirs do.

    Returns
    -------
    xarray.Dataset
        Lazy.
    """
    for name, options in steps:
        if name == "composite" and not _is_plain(options):
            raise CubeError(
                f"Periods of {options.get('every')!r} cannot be gone on with from items alone: open the "
                "items, composite them as before, and give the cube."
            )
        free = {key: value for key, value in options.items() if key not in {"start", "end"}}
        if name == "composite":
            early = before[before <= cube.indexes["time"][0]]
            free |= {"start": early.max()} if early.size else {}
            cube = composite(cube, **_from_period(cube, free))
        else:
            cube = _STEPS[name](cube, **free)
    return cube


def _from_period(cube: xr.Dataset, options: dict[str, Any]) -> dict[str, Any]:
    """Move the start on, period by period, to the one that holds the first date."""
    start, first = options.get("start"), cube.indexes["time"][0]
    if start is None:
        return options
    length: Any = pd.tseries.frequencies.to_offset(options["every"])
    moved = pd.Timestamp(start)
    while moved + length <= first:
        moved += length
    return options | {"start": moved}


def reach(steps: Sequence[Step], times: Array) -> list[tuple[np.datetime64, np.datetime64]] | None:
    """Tell which observation times go into each time step.

    Parameters
    ----------
    steps : sequence of (str, mapping)
        From `recipe_of`.
    times : numpy.ndarray of datetime64[ns]
        Time steps of the result.

    Returns
    -------
    list of tuple or None
        First time, and one that is just too late, of each; None where every date depends on all others, or
        periods are not those of a pandas offset.
    """
    composites = [options for name, options in steps if name == "composite"]
    if any(name in _ACROSS_DATES for name, _ in steps) or not all(map(_is_plain, composites)):
        return None
    return periods(composites[0].get("every") if composites else None, times)


def _is_plain(options: Mapping[str, Any]) -> bool:
    """Tell whether the periods of a composite follow from a pandas offset alone."""
    every = options.get("every")
    if not isinstance(every, str) or options.get("pool_years"):
        return False
    try:
        pd.tseries.frequencies.to_offset(every)
    except ValueError:
        return False
    return True


def periods(every: str | None, times: Array) -> list[tuple[np.datetime64, np.datetime64]]:
    """Return begin and end of the period that each time step stands for.

    Parameters
    ----------
    every : str or None
        Of the composite; None where time steps are observations.
    times : numpy.ndarray of datetime64[ns]
        Starts of the periods.

    Returns
    -------
    list of tuple
        Half open.
    """
    starts = pd.DatetimeIndex(times)
    length: Any = pd.Timedelta(1, "ns") if every is None else pd.tseries.frequencies.to_offset(every)
    return [(start.to_datetime64(), (start + length).to_datetime64()) for start in starts]


def mixes_dates(steps: Sequence[Step]) -> bool:
    """Tell whether pixels of one date were made from other dates.

    Parameters
    ----------
    steps : sequence of (str, mapping)
        From `recipe_of`.

    Returns
    -------
    bool
        True where gaps were filled in time.
    """
    return any(name in _ACROSS_DATES for name, _ in steps)


def scenes_between(plan: Plan, begin: np.datetime64, end: np.datetime64) -> list[int]:
    """Return the numbers of the scenes whose time step lies in a period, first one on top.

    Parameters
    ----------
    plan : Plan
        Of the scenes.
    begin, end : numpy.datetime64
        Half open.

    Returns
    -------
    list of int
        Increasing.
    """
    times = plan.times[plan.time_of]
    return [int(scene) for scene in np.flatnonzero((times >= begin) & (times < end))]
