"""Where each date of a store is from: scenes, addresses, offsets, masks and versions, in one document."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

import cubekit
from cubekit.cube.blocks import is_lazy
from cubekit.cube.contract import RECIPE
from cubekit.cube.plan import Plan
from cubekit.cube.recipe import Step, mixes_dates, plans_in, reach, recipe_of, replay, scenes_between
from cubekit.cube.saved import by_date, part_of, plan_from_json, plan_to_json, rules_of, scene_entry
from cubekit.errors import CubekitError, StoreError
from cubekit.store.layout import gridded
from cubekit.store.objects import SIDE, Objects
from cubekit.typing import Array, IntArray

PROVENANCE = f"{SIDE}/provenance.json.gz"
"""Key of the document in a store; the ledger holds its digest."""

FORMAT = 1
"""Version of the document."""

UNKNOWN = -1
"""Origin of a date that a version of cubekit without this document wrote."""

_PACKAGES = ("dask", "numpy", "odc-geo", "rasterio", "xarray", "zarr")
_LONG = ("items", "item_shifts", RECIPE)  # the plan and the recipe say the same


class Made(NamedTuple):
    """One date of a store."""

    time: int
    """Microseconds since 1970, UTC."""

    mark: str
    """Digest of all that decides its pixels; equal marks mean equal pixels."""

    origin: int
    """Number of the `Origin`, or `UNKNOWN`."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One computation that gave dates to a store."""

    plans: tuple[Mapping[str, Any], ...] = ()
    """Scenes with unsigned addresses, offsets, codings and mask, as `plan_to_json` writes them."""

    recipe: tuple[Step, ...] = ()
    """Steps since the scenes were opened."""

    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Of the cube."""

    proved: bool = False
    """Whether scenes and recipe are all there is to it: taken again, they gave the same computation."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the software."""

    plan: str = ""
    """Digest of the plan of the write that brought it."""

    @cached_property
    def opened(self) -> tuple[Plan, ...]:
        """The plans, read."""
        return tuple(plan_from_json(saved) for saved in self.plans)

    def scenes(self, time: np.datetime64) -> list[tuple[Plan, list[int]]]:
        """Return the scenes of one date; those it was filled from are not among them.

        Parameters
        ----------
        time : numpy.datetime64
            Of the time step.

        Returns
        -------
        list of tuple
            Plan and numbers of its scenes.
        """
        spans = reach(_own(self.recipe), np.array([time]))
        if spans is None:  # periods of an own calendar: any scene may be among them
            return [(plan, list(range(len(plan.scenes)))) for plan in self.opened]
        ((begin, end),) = spans
        return [(plan, scenes_between(plan, begin, end)) for plan in self.opened]

    def cube(self) -> xr.Dataset:
        """Return the lazy cube again.

        Returns
        -------
        xarray.Dataset
            With at least the dates that the store has from it.

        Raises
        ------
        StoreError
            Where it was made in a way that is not noted.
        """
        if len(self.opened) != 1:
            raise StoreError("the store does not say how it was made from items: give the cube")
        return replay(by_date(self.opened[0]), self.attrs, self.recipe)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the dates of a store are from."""

    origins: tuple[Origin, ...] = ()
    """Computations."""

    dates: tuple[Made, ...] = ()
    """In the order of time; empty for a store without time."""

    def document(self) -> bytes:
        """Return the document as it is stored."""
        content = {
            "format": FORMAT,
            "origins": [asdict(origin) for origin in self.origins],
            "dates": [list(date) for date in self.dates],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return gzip.compress(text.encode(), 6, mtime=0)

    def signed(self, plan: str) -> "Provenance":
        """Note the digest of a write on the origins that it brings.

        Parameters
        ----------
        plan : str
            Digest of its plan.

        Returns
        -------
        Provenance
            Origins that have one keep it.
        """
        return replace(self, origins=tuple(replace(o, plan=o.plan or plan) for o in self.origins))

    def digest(self) -> str:
        """Return one digest for the pixels of all dates."""
        return _digest([[date.time, date.mark] for date in self.dates])

    def items(self) -> dict[str, int]:
        """Return the scenes of all dates with what was added to their numbers, in the order of time."""
        found: dict[str, int] = {}
        for date in self.dates:
            for plan, scenes in (
                self.origins[date.origin].scenes(to_date(date.time)) if date.origin >= 0 else ()
            ):
                found |= {plan.scenes[scene]: int(plan.shifts[scene].max()) for scene in scenes}
        return found


def provenance_of(cube: xr.Dataset, source: str | None = None) -> Provenance:
    """Find out where the pixels of a cube are from; nothing is read.

    Parameters
    ----------
    cube : xarray.Dataset
        Lazy, so that its graph tells; of one in memory only digests of its numbers are taken.
    source : str, optional
        Name of the computation where Dask's own are random.

    Returns
    -------
    Provenance
        With one origin.
    """
    variables = gridded(cube)
    lazy = [variable.data for variable in variables.values() if is_lazy(variable.data)]
    plans = list(
        {id(plan): plan for plan in plans_in(HighLevelGraph.merge(*(a.dask for a in lazy))).values()}.values()
    )
    recipe = recipe_of(cube)
    attrs = {str(key): value for key, value in cube.attrs.items() if key not in _LONG}
    proved = len(plans) == 1 and _is_replayed(cube, plans[0], recipe)
    origin = Origin(
        plans=tuple(map(plan_to_json, plans)),
        recipe=recipe,
        attrs=attrs,
        proved=proved,
        versions=_versions(),
    )
    origin.__dict__["opened"] = tuple(plans)  # spares reading what was just written
    if "time" not in cube.indexes:
        return Provenance(origins=(origin,))
    times = microseconds(cube)
    marks = _marks(plans[0], recipe, times) if proved else _tokens(variables, times, source)
    return Provenance(
        origins=(origin,), dates=tuple(Made(int(t), mark, 0) for t, mark in zip(times, marks, strict=True))
    )


def read_provenance(objects: Objects) -> Provenance | None:
    """Read where the dates of a store are from.

    Parameters
    ----------
    objects : Objects
        Of the store.

    Returns
    -------
    Provenance or None
        None where the store has no such document.

    Raises
    ------
    StoreError
        If the document is damaged.
    """
    stored = objects.read(PROVENANCE)
    if stored is None:
        return None
    try:
        content = json.loads(gzip.decompress(stored))
        origins = [
            Origin(
                **{
                    **saved,
                    "plans": tuple(saved["plans"]),
                    "recipe": tuple((n, o) for n, o in saved["recipe"]),
                }
            )
            for saved in content["origins"]
        ]
        return Provenance(origins=tuple(origins), dates=tuple(Made(*date) for date in content["dates"]))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{objects}: {PROVENANCE} is damaged ({error}). Run cubekit.verify.") from error


def joined(old: Provenance, new: Provenance, order: Sequence[tuple[bool, int]]) -> Provenance:
    """Take dates from two provenances; origins and scenes that no date needs any more are left out.

    Parameters
    ----------
    old, new : Provenance
        Of the store, and of the cube that is put into it.
    order : sequence of (bool, int)
        For each date of the result: whether it is new, and its number.

    Returns
    -------
    Provenance
        In the given order.
    """
    picked = [(is_new, (new if is_new else old).dates[number]) for is_new, number in order]
    numbers: dict[tuple[bool, int], int] = {}
    for is_new, date in picked:
        if date.origin != UNKNOWN:
            numbers.setdefault((is_new, date.origin), len(numbers))
    origins = []
    for is_new, number in numbers:
        origin = (new if is_new else old).origins[number]
        times = [date.time for n, date in picked if (n, date.origin) == (is_new, number)]
        origins.append(narrowed(origin, times) if is_new else origin)
    return Provenance(
        origins=tuple(origins),
        dates=tuple(date._replace(origin=numbers.get((n, date.origin), UNKNOWN)) for n, date in picked),
    )


def narrowed(origin: Origin, times: Iterable[int]) -> Origin:
    """Leave out the scenes that some dates do not need.

    Parameters
    ----------
    origin : Origin
        Of these dates and perhaps others.
    times : iterable of int
        Microseconds.

    Returns
    -------
    Origin
        The same where dates were made from each other.
    """
    spans = reach(origin.recipe, np.array([to_date(time) for time in times], "datetime64[ns]"))
    if spans is None or not origin.plans:
        return origin
    plans = []
    for plan in origin.opened:
        used = {scene for begin, end in spans for scene in scenes_between(plan, begin, end)}
        plans.append(part_of(plan, sorted(used)) if used and len(used) < len(plan.scenes) else plan)
    result = replace(origin, plans=tuple(map(plan_to_json, plans)))
    result.__dict__["opened"] = tuple(plans)
    return result


def microseconds(cube: xr.Dataset) -> IntArray:
    """Return the times of a cube as they are stored.

    Parameters
    ----------
    cube : xarray.Dataset
        With a coordinate ``time``.

    Returns
    -------
    numpy.ndarray of int64
        Microseconds since 1970, UTC.
    """
    return np.asarray(cube.indexes["time"].to_numpy().astype("datetime64[us]").astype("int64"))


def to_date(time: int) -> np.datetime64:
    """Return a stored time as a date.

    Parameters
    ----------
    time : int
        Microseconds since 1970, UTC.

    Returns
    -------
    numpy.datetime64
        In nanoseconds, as cubes have them.
    """
    date: np.datetime64 = np.datetime64(time, "us").astype("datetime64[ns]")
    return date


def _own(recipe: Sequence[Step]) -> list[Step]:
    """Leave out the steps that look at other dates."""
    return [step for step in recipe if not mixes_dates([step])]


def _is_replayed(cube: xr.Dataset, plan: Plan, recipe: Sequence[Step]) -> bool:
    """Tell whether scenes and recipe give this very cube: the names that Dask gives computations tell."""
    try:
        again = replay(plan, cube.attrs, recipe)
    except (CubekitError, ValueError, TypeError, KeyError):
        return False
    variables = {name: v for name, v in gridded(cube).items() if "time" in v.dims}
    return bool(np.array_equal(cube.indexes["time"], again.indexes["time"])) and all(
        name in again and is_lazy(v.data) and again[name].data.name == v.data.name
        for name, v in variables.items()
    )


def _marks(plan: Plan, recipe: Sequence[Step], times: IntArray) -> list[str]:
    """Digest, for each date, its scenes and everything that was done to them."""
    dates = np.array([to_date(time) for time in times.tolist()], "datetime64[ns]")
    steps = [
        [name, {k: v for k, v in options.items() if k not in {"start", "end"}}] for name, options in recipe
    ]
    common = [rules_of(plan), steps]
    spans = reach(recipe, dates)
    if spans is None:
        everything = [scene_entry(plan, scene) for scene in range(len(plan.scenes))]
        return [_digest([*common, everything, time, times.tolist()]) for time in times.tolist()]
    return [_digest([*common, [scene_entry(plan, s) for s in scenes_between(plan, *span)]]) for span in spans]


def _tokens(variables: Mapping[str, xr.DataArray], times: IntArray, source: str | None) -> list[str]:
    """Digest the name of the computation of each date, or its numbers where they are in memory."""
    if source is not None:
        return [_digest([source, time]) for time in times.tolist()]
    dated = [variable for _, variable in sorted(variables.items()) if "time" in variable.dims]
    return [_digest([_token(variable.isel(time=n).data) for variable in dated]) for n in range(len(times))]


def _token(values: Array) -> str:
    return str(values.name if is_lazy(values) else tokenize(np.ascontiguousarray(values)))  # type: ignore[attr-defined]


def _digest(entry: Any) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _versions() -> Mapping[str, str]:
    """Return the versions of what makes pixels."""
    import rasterio

    found = {"cubekit": cubekit.__version__, "gdal": rasterio.__gdal_version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
