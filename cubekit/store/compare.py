"""Compare two stores: grid, bands, dates, options, versions, and every pixel, block by block."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from cubekit.errors import StoreError
from cubekit.progress import progress as bar
from cubekit.store.fits import form_differences, option_differences
from cubekit.store.layout import gridded
from cubekit.store.open import open_store
from cubekit.store.place import objects_at, place_of
from cubekit.store.provenance import Provenance, read_provenance, to_date
from cubekit.typing import Array, StrPath

_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class PixelDifference:
    """Where the pixels of one variable differ."""

    variable: str
    compared: int
    """Numbers compared."""

    different: int
    """Numbers that differ; missing values (NaN) equal each other."""

    largest: float
    """Largest absolute difference of two numbers, as stored; NaN where only one of each pair is missing."""

    first: Mapping[str, Any] | None
    """Coordinates of the first difference."""

    dates: tuple[str, ...]
    """Dates with differences; empty for variables without time."""

    def __str__(self) -> str:
        if not self.different:
            return f"{self.variable}: {self.compared:,} numbers equal"
        share = 100 * self.different / self.compared
        where = ", ".join(f"{dim} {value}" for dim, value in (self.first or {}).items())
        on = f" on {len(self.dates)} dates ({_few(self.dates)})" if self.dates else ""
        return (
            f"{self.variable}: {self.different:,} of {self.compared:,} numbers differ ({share:.3g} %){on}, "
            f"at most by {self.largest:g}; first at {where}"
        )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What `diff` found; ``print`` says it."""

    a: str
    b: str
    metadata: tuple[str, ...] = ()
    """Differences of grid, bands, types and coding; where there are any, pixels were not compared."""

    options: tuple[str, ...] = ()
    """Differences of the options that made them, such as masks."""

    only_a: tuple[np.datetime64, ...] = ()
    """Dates that only the first has."""

    only_b: tuple[np.datetime64, ...] = ()
    """Dates that only the second has."""

    pixels: tuple[PixelDifference, ...] = ()
    """One entry for each variable that both have, over the dates that both have."""

    origins: Mapping[str, str] = field(default_factory=dict)
    """Dates that were made from other scenes, with what is new and what is gone."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Software of which they saw different versions; no difference of the content."""

    @property
    def equal(self) -> bool:
        """Whether both hold the same cube; versions and origins do not count."""
        return not (
            self.metadata
            or self.options
            or self.only_a
            or self.only_b
            or any(p.different for p in self.pixels)
        )

    def __str__(self) -> str:
        lines = [f"{self.a}", f"{self.b}", "  the same cube" if self.equal else "  DIFFERENT"]
        lines += [f"  {text}" for text in (*self.metadata, *self.options)]
        for what, dates in (("first", self.only_a), ("second", self.only_b)):
            if dates:
                lines.append(f"  {len(dates)} dates only in the {what}: {_few([str(d)[:10] for d in dates])}")
        lines += [f"  {entry}" for entry in self.pixels]
        lines += [
            f"  {date}: made from other scenes: {text}" for date, text in list(self.origins.items())[:_SHOWN]
        ]
        more = len(self.origins) - _SHOWN
        lines += [f"  and {more} more dates made from other scenes"] if more > 0 else []
        return "\n".join(lines + [f"  {name}: {text}" for name, text in self.versions.items()])


def diff(
    a: StrPath,
    b: StrPath,
    *,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Difference:
    """Compare two stores: grid, bands, dates, options, versions, and pixels where these allow.

    Two blocks are in memory at a time, whatever the size of the stores; layouts may differ.

    Parameters
    ----------
    a, b : path-like
        Finished stores.
    progress : bool, optional
        Whether to draw a bar. Default: where standard error is a terminal.
    storage_options : mapping, optional
        How to reach those of the two that lie in an object store; see `write`.

    Returns
    -------
    Difference
        Its ``equal`` says the outcome.

    Raises
    ------
    StoreError
        If one of them is no finished store, or has a damaged chunk.
    """
    places = [place_of(path, storage_options if "://" in str(path) else None) for path in (a, b)]
    one, other = (open_store(place) for place in places)
    dated = "time" in one.indexes and "time" in other.indexes
    metadata = form_differences(one, other) if dated else _static_differences(one, other)
    first, second = (read_provenance(objects_at(place)) or Provenance() for place in places)
    only_a, only_b = _apart(one, other) if dated else ((), ())
    return Difference(
        a=str(places[0]),
        b=str(places[1]),
        metadata=tuple(map(_as_second, metadata)),
        options=tuple(map(_as_second, option_differences(one, other))),
        only_a=only_a,
        only_b=only_b,
        pixels=() if metadata else tuple(_pixels(one, other, progress=progress)),
        origins=_origins(first, second),
        versions=_versions(first, second),
    )


def _as_second(text: str) -> str:
    return text.replace("the cube", "the second").replace("the store", "the first")


def _static_differences(one: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Compare stores of which at least one has no dates."""
    dates = np.array(["2000-01-01"], "datetime64[ns]")
    if ("time" in one.dims) != ("time" in other.dims):
        return ["time: only one of them has dates"]
    if "time" in one.dims:
        raise StoreError(
            "Stores whose time has no dates cannot be compared: nothing says what belongs together."
        )
    return form_differences(*(each.expand_dims(time=dates).transpose("time", ...) for each in (one, other)))


def _apart(one: xr.Dataset, other: xr.Dataset) -> tuple[tuple[np.datetime64, ...], tuple[np.datetime64, ...]]:
    """Return the dates that only one of them has."""
    a, b = one.indexes["time"].to_numpy(), other.indexes["time"].to_numpy()
    return tuple(np.setdiff1d(a, b)), tuple(np.setdiff1d(b, a))


def _pixels(one: xr.Dataset, other: xr.Dataset, *, progress: bool | None) -> Iterator[PixelDifference]:
    """Compare all variables that both have."""
    if "time" in one.indexes:
        common = np.intersect1d(one.indexes["time"].to_numpy(), other.indexes["time"].to_numpy())
        one, other = one.sel(time=common), other.sel(time=common)
    shared = sorted(set(gridded(one)) & set(gridded(other))) if all(one.sizes.values()) else []
    blocks = sum(int(np.prod([len(sizes) for sizes in one[name].chunks or ()])) for name in shared)
    with bar("diff", blocks, unit="blocks", enabled=progress) as advance:
        for name in shared:
            yield _compared(name, one[name], other[name], advance)


def _compared(name: str, one: xr.DataArray, other: xr.DataArray, advance: Any) -> PixelDifference:
    """Compare one variable block by block."""
    different, largest, first = 0, 0.0, None
    dates = set[str]()
    for window in _windows(one):
        left, right = (np.asarray(each[window].values) for each in (one, other))
        unlike = _unlike(left, right)
        if unlike.any():
            different += int(unlike.sum())
            gaps = np.abs(left[unlike].astype("float64") - right[unlike].astype("float64"))
            largest = max(largest, float(np.nanmax(gaps, initial=0.0)))
            place = [int(index[0]) for index in np.nonzero(unlike)]
            first = first or _named(one, window, place)
            if "time" in one.dims:
                axis = one.dims.index("time")
                hit = np.flatnonzero(unlike.any(axis=tuple(n for n in range(unlike.ndim) if n != axis)))
                dates |= {str(date)[:10] for date in one["time"].to_numpy()[window[axis]][hit]}
        advance(1)
    return PixelDifference(
        variable=name,
        compared=int(one.size),
        different=different,
        largest=largest,
        first=first,
        dates=tuple(sorted(dates)),
    )


def _windows(variable: xr.DataArray) -> Iterator[tuple[slice, ...]]:
    """List the blocks of a lazy variable."""
    spans = []
    for sizes in variable.chunks or [(size,) for size in variable.shape]:
        ends = np.cumsum(sizes).tolist()
        spans.append([slice(end - size, end) for end, size in zip(ends, sizes, strict=True)])
    yield from product(*spans)


def _unlike(left: Array, right: Array) -> Array:
    unlike = left != right
    if left.dtype.kind == "f":
        unlike &= ~(np.isnan(left) & np.isnan(right))
    return np.asarray(unlike)


def _named(variable: xr.DataArray, window: tuple[slice, ...], place: list[int]) -> dict[str, Any]:
    """Say where a place of a block is, in coordinates."""
    named = {}
    for dim, part, index in zip(variable.dims, window, place, strict=True):
        number = part.start + index
        value = variable[dim].to_numpy()[number] if dim in variable.coords else number
        named[str(dim)] = str(value)[:19] if dim == "time" else value
    return named


def _origins(first: Provenance, second: Provenance) -> dict[str, str]:
    """Say for common dates which scenes only one of them has."""
    there, coming = ({date.time: date for date in each.dates} for each in (first, second))
    found = {}
    for time in sorted(there.keys() & coming.keys()):
        if there[time].mark == coming[time].mark:
            continue
        names = []
        for each, date in ((first, there[time]), (second, coming[time])):
            pairs = each.origins[date.origin].scenes(to_date(time)) if date.origin >= 0 else []
            names.append({plan.scenes[scene] for plan, scenes in pairs for scene in scenes})
        gone, new = sorted(names[0] - names[1]), sorted(names[1] - names[0])
        if gone or new:
            found[str(to_date(time))[:10]] = (
                f"only first {_few(gone) or 'none'}; only second {_few(new) or 'none'}"
            )
    return found


def _versions(first: Provenance, second: Provenance) -> dict[str, str]:
    """Say which software they saw in different versions."""
    sets = []
    for each in (first, second):
        known: dict[str, set[str]] = {}
        for origin in each.origins:
            for name, number in origin.versions.items():
                known.setdefault(name, set()).add(number)
        sets.append({name: ", ".join(sorted(numbers)) for name, numbers in known.items()})
    names = sorted(sets[0].keys() & sets[1].keys())
    return {
        name: f"{sets[0][name]}, second {sets[1][name]}" for name in names if sets[0][name] != sets[1][name]
    }


def _few(texts: Any) -> str:
    texts = list(texts)
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")  # noqa: PLR2004
