"""Why a pixel is what it is: which scenes were there, what the mask said, which offset was added."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cubekit.catalog import open_catalog
from cubekit.cube.contract import MAIN, encoding_of, geobox_of
from cubekit.cube.pixel import Look, look_at, reaches
from cubekit.cube.plan import Plan
from cubekit.cube.recipe import Step, mixes_dates
from cubekit.cube.saved import crs_text
from cubekit.errors import CubeError, CubekitError, check_kind
from cubekit.store.open import open_store
from cubekit.store.place import objects_at, place_of
from cubekit.store.provenance import Origin, provenance_of, read_provenance, to_date
from cubekit.store.remote import SCHEMES
from cubekit.typing import StrPath

Verdict = Literal["used", "masked", "below", "no data", "outside", "unreadable"]
"""What became of a scene: ``below`` means that an earlier scene of the same date covers it."""

_REMOTE = tuple(f"{scheme}://" for scheme in SCHEMES)


@dataclass(frozen=True, kw_only=True)
class SceneAt:
    """What one scene has at the pixel."""

    item: str
    time: np.datetime64
    """Date in the cube before composites, UTC."""

    verdict: Verdict
    quality: int | None = None
    """Number of the quality band."""

    meaning: str = ""
    """Of that number, as the catalog says."""

    stored: Mapping[str, float | None]
    """Number in the file of each band; None without data."""

    coded: Mapping[str, float | None]
    """The same with the shift."""

    shift: int
    """Added to the numbers of the file."""

    hrefs: Mapping[str, str]
    """Unsigned address of each asset."""

    error: str = ""
    """Why it is unreadable."""

    def __str__(self) -> str:
        parts = [f"{self.verdict:<10} {str(self.time)[:19].removesuffix('T00:00:00')}  {self.item}"]
        if self.quality is not None:
            parts.append(f"quality {self.quality}" + (f" ({self.meaning})" if self.meaning else ""))
        numbers = [f"{band} {_number(value)}" for band, value in self.stored.items() if value is not None]
        if numbers and self.verdict != "outside":
            parts.append("file has " + ", ".join(numbers))
        if self.shift:
            parts.append(f"{self.shift:+d} added")
        return ": ".join([parts[0], "; ".join([*parts[1:], *([self.error] if self.error else [])])]).rstrip(
            ": "
        )


@dataclass(frozen=True, kw_only=True)
class Why:
    """Where a pixel is from; ``print`` says it."""

    time: np.datetime64 | None
    """Date of the cube."""

    x: float
    y: float
    row: int
    col: int
    values: Mapping[str, float | None]
    """Number that the cube holds, by band; None without data."""

    physical: Mapping[str, float | None]
    """The same with scale and offset."""

    filled: bool
    """Whether at least one band was filled from other dates."""

    mask: str
    """Name of the mask; empty where none was asked for."""

    recipe: tuple[Step, ...]
    """Steps since the scenes were opened."""

    scenes: tuple[SceneAt, ...]
    """Scenes of the date that may have the pixel, in the order in which they were laid, the first on top."""

    versions: Mapping[str, str]
    """Of the software that wrote it; empty for a cube that is not written."""

    plan: str
    """Digest of the plan of the write that brought it."""

    def __str__(self) -> str:
        when = "" if self.time is None else f"{str(self.time)[:19].removesuffix('T00:00:00')} "
        lines = [f"{when}at x {self.x:.10g}, y {self.y:.10g} (row {self.row}, column {self.col})"]
        lines += [
            f"  {band:<10} {'no data' if value is None else f'{_number(value)} = {self.physical[band]:.6g}'}"
            for band, value in self.values.items()
        ]
        lines += [f"  mask       {self.mask}"] if self.mask else []
        for name, options in self.recipe:
            said = ", ".join(f"{key}={value}" for key, value in options.items() if value is not None)
            lines.append(f"  then       {name}({said})")
        lines += ["  filled from other dates"] if self.filled else []
        lines += [f"  {scene}" for scene in self.scenes] or ["  no scene of this date reaches the pixel"]
        if self.plan:
            made = ", ".join(f"{name} {number}" for name, number in sorted(self.versions.items()))
            lines.append(f"  written    plan {self.plan[:12]}, {made}")
        return "\n".join(lines)


def why(
    cube: xr.Dataset | StrPath,
    *,
    x: float,
    y: float,
    time: str | np.datetime64 | None = None,
    crs: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Why:
    """Say where a pixel is from: which scene, which mask, which offset.

    The scenes of the date are opened and read at this pixel. One that cannot be reached any more is listed
    as unreadable; everything else is still told.

    Parameters
    ----------
    cube : xarray.Dataset or path
        A store, opened or not, or a lazy cube from `open_cube`.
    x, y : float
        Place in the CRS of the cube.
    time : str or numpy.datetime64, optional
        Date, or part of one that a single time step has, such as ``"2023-07"``. May be left out for a cube
        with one date.
    crs : str, optional
        CRS of `x` and `y`, such as ``"EPSG:4326"`` (x is the longitude). Default: that of the cube.
    storage_options : mapping, optional
        How to reach the object store that the cube lies in; see `write`.

    Returns
    -------
    Why
        Fields and text.

    Raises
    ------
    CubeError
        If the place or the date is not in the cube, or it is not known what it was made from.
    """
    opened = cube if isinstance(cube, xr.Dataset) else open_store(cube, storage_options=storage_options)
    check_kind("cube", opened, xr.Dataset, "open one with cubekit.open")
    box = geobox_of(opened)
    place, row, col = _place(box, x, y, crs)
    number = _date(opened, time)
    origin, when = _origin(opened, number, storage_options)
    everything = [(plan, list(range(len(plan.scenes)))) for plan in origin.opened]
    pairs = everything if when is None else origin.scenes(when)
    found = [scene for pair in pairs for scene in _scenes(*pair, row, col, origin)]
    values, physical, filled = _held(opened, number, row, col)
    return Why(
        time=when,
        x=place[0],
        y=place[1],
        row=row,
        col=col,
        values=values,
        physical=physical,
        filled=filled and mixes_dates(origin.recipe),
        mask=str(origin.attrs.get("mask", "")),
        recipe=origin.recipe,
        scenes=tuple(found),
        versions=origin.versions if origin.plan else {},
        plan=origin.plan,
    )


def _place(box: GeoBox, x: float, y: float, crs: str | None) -> tuple[tuple[float, float], int, int]:
    """Return the place in the CRS of the cube, and its row and column."""
    if crs is not None:
        x, y = Transformer.from_crs(crs, str(box.crs), always_xy=True).transform(x, y)
    inverse = ~box.transform
    column, line = inverse * (x, y)
    row, col = int(np.floor(line)), int(np.floor(column))
    if not (0 <= row < box.shape.y and 0 <= col < box.shape.x):
        edges = ", ".join(f"{edge:.10g}" for edge in box.boundingbox.bbox)
        raise CubeError(
            f"x={x:.10g}, y={y:.10g} is outside the cube ({edges} in {crs_text(box)}). Give crs= if it is in "
            "another CRS."
        )
    return (x, y), row, col


def _date(cube: xr.Dataset, time: str | np.datetime64 | None) -> int | None:
    """Return the number of the date that is meant."""
    if "time" not in cube.indexes:
        return None
    times = pd.DatetimeIndex(cube.indexes["time"])
    if time is None:
        if len(times) == 1:
            return 0
        raise CubeError(f"Which date? Give time=, one of {len(times)} from {times[0]} to {times[-1]}.")
    try:
        period = pd.Period(str(time))
    except ValueError as error:
        raise CubeError(f"time={time!r} is not a date such as '2023-07-14'.") from error
    inside = np.flatnonzero((times >= period.start_time) & (times <= period.end_time))
    if inside.size == 1:
        return int(inside[0])
    if inside.size:
        shown = ", ".join(str(each) for each in times[inside][:5])
        raise CubeError(f"time={str(time)!r} has {inside.size} dates: {shown}. Give one of them.")
    near = times[int(np.abs(times - period.start_time).argmin())]
    raise CubeError(f"The cube has no date {str(time)!r}; the nearest is {near}.")


def _origin(
    cube: xr.Dataset, number: int | None, storage_options: Mapping[str, Any] | None
) -> tuple[Origin, np.datetime64 | None]:
    """Return what a date was made from."""
    when = None if number is None else cube.indexes["time"].to_numpy()[number]
    source = str(cube.encoding.get("source") or "")
    stored = source and (source.startswith(_REMOTE) or Path(source).is_dir())
    known = read_provenance(objects_at(place_of(source, storage_options))) if stored else None
    known = provenance_of(cube) if known is None and not source else known
    if known is not None and when is None and known.origins:
        return known.origins[0], None
    for date in known.dates if known is not None else ():
        if to_date(date.time) == when and date.origin >= 0 and known is not None:
            origin = known.origins[date.origin]
            if origin.plans:
                return origin, when
    raise CubeError(
        "It is not known from which scenes this cube was made: it was not opened from items, or an older "
        "version wrote it."
    )


def _scenes(plan: Plan, numbers: list[int], row: int, col: int, origin: Origin) -> list[SceneAt]:
    """Look at each scene, and tell which band is from which."""
    meanings = _meanings(str(origin.attrs.get("collection", "")))
    found, taken = list[SceneAt](), dict[tuple[Any, int], bool]()
    for scene in numbers:
        if not reaches(plan, scene, row, col):
            continue
        date = plan.times[plan.time_of[scene]]
        error = ""
        try:
            seen = look_at(plan, scene, row, col)
        except (CubekitError, OSError) as failure:
            seen, error = (
                Look(None, False, (None,) * len(plan.bands), (None,) * len(plan.bands)),
                str(failure),
            )
        free = [
            band for band, value in enumerate(seen.stored) if value is not None and (date, band) not in taken
        ]
        verdict = _verdict(seen, free, error)
        if verdict == "used":
            taken |= dict.fromkeys(((date, band) for band in free), True)
        layers = [*plan.bands, "quality"]
        found.append(
            SceneAt(
                item=plan.scenes[scene],
                time=date,
                verdict=verdict,
                quality=seen.quality,
                meaning=meanings.get(seen.quality, "") if seen.quality is not None else "",
                stored=dict(zip(plan.bands, seen.stored, strict=True)),
                coded=dict(zip(plan.bands, seen.coded, strict=True)),
                shift=int(plan.shifts[scene].max()),
                hrefs={layers[n]: href for n, href in enumerate(plan.hrefs[scene]) if href},
                error=error,
            )
        )
    return found


def _verdict(seen: Look, free: list[int], error: str) -> Verdict:
    """Say in a word what became of a scene."""
    if error:
        return "unreadable"
    if seen.masked:
        return "masked"
    if all(value is None for value in seen.stored):
        return "no data"
    return "used" if free else "below"


def _held(
    cube: xr.Dataset, number: int | None, row: int, col: int
) -> tuple[dict[str, float | None], dict[str, float | None], bool]:
    """Return what the cube holds at the pixel, stored and physical, and whether it was filled."""
    if MAIN not in cube:
        return {}, {}, False
    pixel = cube.isel(y=row, x=col)
    pixel = pixel if number is None else pixel.isel(time=number)
    code, bands = encoding_of(cube[MAIN]), np.atleast_1d(pixel[MAIN].values)
    names = cube["band"].to_numpy().tolist() if "band" in cube.coords else [MAIN]
    values: dict[str, float | None] = {}
    for name, value in zip(names, bands.tolist(), strict=True):
        missing = value != value or (code.nodata is not None and value == code.nodata)  # noqa: PLR0124  (NaN)
        values[str(name)] = None if missing else float(value)
    physical = {name: None if v is None else v * code.scale + code.offset for name, v in values.items()}
    return values, physical, bool(pixel["filled"].values) if "filled" in pixel else False


def _meanings(collection: str) -> Mapping[int, str]:
    """Return the texts of quality numbers; bits have none, as several are set at once."""
    try:
        quality = open_catalog().collection(collection).quality
    except (CubekitError, KeyError):
        return {}
    if quality is None or quality.kind != "classes":
        return {}
    return {code: text for code, text in quality.meanings.items() if isinstance(code, int)}


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"
