"""The plan of a cube as plain JSON and back: what a store keeps to say where its pixels are from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cubekit.cube.blocks import normalise
from cubekit.cube.contract import Encoding
from cubekit.cube.plan import MISSING, Plan
from cubekit.cube.quality import MaskRule
from cubekit.cube.reader import DRIVERS, Form
from cubekit.errors import CubeError, SecurityError
from cubekit.security import check_href
from cubekit.typing import IntArray

_PLAIN = ("bands", "scenes", "hrefs", "assets", "signer", "resampling", "on_error", "cover")


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Write a plan down.

    Parameters
    ----------
    plan : Plan
        Its addresses are unsigned.

    Returns
    -------
    dict
        For JSON; grids and forms are listed once.
    """
    grids = list({id(box): box for box in (plan.grid, *(form.geobox for form in plan.forms))}.values())
    number = {id(box): place for place, box in enumerate(grids)}
    rule = plan.mask
    return {name: getattr(plan, name) for name in _PLAIN} | {
        "grids": [_grid_to_json(box) for box in grids],
        "encoding": [plan.encoding.dtype, *map(_text, _numbers(plan.encoding))],
        "times": plan.times.astype("datetime64[ns]").astype("int64").tolist(),
        "blocks": [max(plan.chunks[axis]) for axis in (0, 2, 3)],
        "forms": [_form_to_json(form, number[id(form.geobox)]) for form in plan.forms],
        "mask": None if rule is None else asdict(rule),
        **{name: getattr(plan, name).tolist() for name in ("time_of", "bounds", "form_of", "shifts")},
    }


def plan_from_json(saved: Mapping[str, Any]) -> Plan:
    """Read a plan that was written down; its addresses are checked as those of any item.

    Parameters
    ----------
    saved : mapping
        From `plan_to_json`, perhaps by way of a store that somebody else gave away.

    Returns
    -------
    Plan
        Equal to the one that was saved.

    Raises
    ------
    CubeError
        If something is missing or of the wrong kind.
    SecurityError
        For an address or a driver that data may not name.
    """
    try:
        grids = [_grid_from_json(box) for box in saved["grids"]]
        dtype, nodata, scale, offset = saved["encoding"]
        times = np.array(saved["times"], "int64").astype("datetime64[ns]")
        sizes = [
            min(block, size)
            for block, size in zip(saved["blocks"], (len(times), *grids[0].shape.yx), strict=True)
        ]
        t, y, x = normalise(sizes, (len(times), *grids[0].shape.yx), dtype)
        rule = saved["mask"]
        return Plan(
            grid=grids[0],
            encoding=Encoding(dtype=dtype, nodata=_number(nodata), scale=float(scale), offset=float(offset)),
            times=times,
            chunks=(t, (len(saved["bands"]),), y, x),
            forms=tuple(_form_from_json(form, grids) for form in saved["forms"]),
            mask=None if rule is None else MaskRule(**{**rule, "select": tuple(rule["select"])}),
            bands=tuple(saved["bands"]),
            scenes=tuple(saved["scenes"]),
            hrefs=tuple(tuple(_checked(href) for href in row) for row in saved["hrefs"]),
            assets=tuple(map(tuple, saved["assets"])),
            signer=saved["signer"],
            resampling=tuple(saved["resampling"]),
            on_error=saved["on_error"],
            cover=tuple(saved.get("cover", ())),
            time_of=np.array(saved["time_of"], np.int32),
            bounds=_table(saved["bounds"], 4),
            form_of=_table(saved["form_of"], 0),
            shifts=np.array(saved["shifts"], np.int64).reshape(len(saved["scenes"]), -1),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, SecurityError | CubeError):
            raise
        raise CubeError(
            f"The saved origin of the pixels cannot be read ({type(error).__name__}: {error})."
        ) from error


def part_of(plan: Plan, scenes: Sequence[int]) -> Plan:
    """Return the plan of some scenes only.

    Parameters
    ----------
    plan : Plan
        Of more.
    scenes : sequence of int
        Numbers of the scenes to keep.

    Returns
    -------
    Plan
        With the time steps and forms that these scenes have.
    """
    kept = np.array(sorted(scenes), int)
    steps, time_of = np.unique(plan.time_of[kept], return_inverse=True)
    used = [int(number) for number in np.unique(plan.form_of[kept]) if number != MISSING]
    renumbered = np.full(len(plan.forms) + 1, MISSING, np.int32)  # the last is for MISSING
    renumbered[used] = np.arange(len(used), dtype=np.int32)
    longest = max(plan.chunks[0])
    times: tuple[int, ...] = normalise([longest], (len(steps),), plan.encoding.dtype)[0] if len(steps) else ()
    part = plan.taking(kept, times=plan.times[steps], time_of=time_of, chunks=(times, *plan.chunks[1:]))
    forms = tuple(plan.forms[number] for number in used)
    return replace(part, forms=forms, form_of=renumbered[part.form_of])


def by_date(plan: Plan) -> Plan:
    """Return the plan in blocks of one date, so that no date is read for the sake of another.

    Parameters
    ----------
    plan : Plan
        In any blocks.

    Returns
    -------
    Plan
        Of the same cube.
    """
    return replace(plan, chunks=((1,) * len(plan.times), *plan.chunks[1:]))


def scene_entry(plan: Plan, scene: int) -> list[Any]:
    """Return everything about one scene that decides its pixels, for digests.

    Parameters
    ----------
    plan : Plan
        That has the scene.
    scene : int
        Its number.

    Returns
    -------
    list
        For JSON.
    """
    forms = [plan.forms[number] for number in plan.form_of[scene] if number != MISSING]
    return [
        plan.scenes[scene],
        list(plan.hrefs[scene]),
        plan.shifts[scene].tolist(),
        [[form.dtype, form.band, form.variable, *map(_text, _numbers(form))] for form in forms],
        [_grid_to_json(box) for box in {form.geobox: None for form in forms}],
    ]


def rules_of(plan: Plan) -> list[Any]:
    """Return what decides the pixels of every scene alike, for digests.

    Parameters
    ----------
    plan : Plan
        Of any scenes.

    Returns
    -------
    list
        For JSON: grid, bands, coding, resampling and mask.
    """
    saved = plan_to_json(replace(plan, forms=()))
    return [saved[name] for name in ("grids", "bands", "encoding", "resampling", "mask", "on_error")]


def crs_text(box: GeoBox) -> str:
    """Return one text for the CRS of a grid, which may come as a code or as WKT.

    Parameters
    ----------
    box : odc.geo.geobox.GeoBox
        Any grid.

    Returns
    -------
    str
        The EPSG code if there is one.
    """
    return _code(str(box.crs))


@lru_cache(maxsize=64)
def _code(crs: str) -> str:
    code = None if crs == "None" else CRS(crs).to_epsg()  # takes milliseconds
    return crs if code is None else f"EPSG:{code}"


def _grid_to_json(box: GeoBox) -> list[Any]:
    return [list(map(int, box.shape)), list(map(float, tuple(box.transform)[:6])), crs_text(box)]


def _grid_from_json(saved: Sequence[Any]) -> GeoBox:
    (rows, cols), transform, crs = saved
    return GeoBox((int(rows), int(cols)), Affine(*map(float, transform)), crs)


def _form_to_json(form: Form, grid: int) -> list[Any]:
    return [
        grid,
        form.dtype,
        form.nodata_given,
        form.band,
        form.variable,
        form.drivers,
        *map(_text, _numbers(form)),
    ]


def _form_from_json(saved: Sequence[Any], grids: Sequence[GeoBox]) -> Form:
    grid, dtype, given, band, variable, drivers, nodata, scale, offset = saved
    if unknown := set(drivers) - DRIVERS:
        raise SecurityError(
            f"A saved origin asks for the driver {min(unknown)!r}, which may open other files."
        )
    return Form(
        geobox=grids[grid],
        dtype=dtype,
        nodata=_number(nodata),
        nodata_given=bool(given),
        scale=float(scale),
        offset=float(offset),
        band=int(band),
        variable=variable,
        drivers=tuple(drivers),
    )


def _numbers(coded: Encoding | Form) -> tuple[float | None, float, float]:
    return coded.nodata, coded.scale, coded.offset


def _text(number: float | None) -> str | None:
    return None if number is None else repr(float(number))  # JSON has no word for NaN


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _checked(href: str) -> str:
    """Check an address; on the user's own disk only formats that open no other file are read."""
    return check_href(href, root="/") if href else href


def _table(rows: Sequence[Sequence[int]], width: int) -> IntArray:
    return np.array(rows, np.int32).reshape(len(rows), width or -1)
