"""Whether a cube can go into a store: variables, types, coding, bands, grid, options; differences said."""

import json
from typing import Any

import numpy as np
import xarray as xr

from cubekit.cube.contract import encoding_of
from cubekit.cube.recipe import recipe_of
from cubekit.cube.saved import crs_text
from cubekit.store.layout import gridded
from cubekit.store.metadata import grid_of

OPTIONS = ("collection", "group_by", "mask", "resampling")
"""Attributes that change the pixels."""


def differences(stored: xr.Dataset, cube: xr.Dataset) -> list[str]:
    """List why dates of a cube cannot go into a store.

    Parameters
    ----------
    stored : xarray.Dataset
        Opened store.
    cube : xarray.Dataset
        Lazy or in memory; nothing is computed.

    Returns
    -------
    list of str
        One text each; empty where it fits.
    """
    return form_differences(stored, cube) + option_differences(stored, cube)


def form_differences(stored: xr.Dataset, cube: xr.Dataset) -> list[str]:
    """List differences of variables, types, coding, coordinates and grid.

    Parameters
    ----------
    stored, cube : xarray.Dataset
        As for `differences`.

    Returns
    -------
    list of str
        One text each.
    """
    for what, dataset in (("store", stored), ("cube", cube)):
        if "time" not in dataset.indexes:
            return [f"time: the {what} has no dates"]
    there, coming = gridded(stored), gridded(cube)
    dated = {name for name, variable in there.items() if "time" in variable.dims}
    extra = {name for name, variable in coming.items() if "time" in variable.dims} - set(there)
    found = [f"variables: the cube lacks {name!r}" for name in sorted(dated - set(coming))]
    found += [f"variables: the store lacks {name!r}" for name in sorted(extra)]
    for name in sorted(dated & set(coming)):
        found += _of_variable(name, there[name], coming[name])
    return found + _of_coordinates(stored, cube) + _of_grid(stored, cube)


def _of_variable(name: str, stored: xr.DataArray, cube: xr.DataArray) -> list[str]:
    """Compare dimensions, type and coding."""
    if stored.dims != cube.dims:
        return [f"{name}: dims are {stored.dims}, the cube's {cube.dims}"]
    one, other = encoding_of(stored), encoding_of(cube)
    pairs = {
        "type": (str(stored.dtype.newbyteorder("=")), str(cube.dtype.newbyteorder("="))),
        "nodata": (one.nodata, other.nodata),
        "scale": (one.scale, other.scale),
        "offset": (one.offset, other.offset),
    }
    return [f"{name}: {what} is {a}, the cube's {b}" for what, (a, b) in pairs.items() if not _same(a, b)]


def _of_coordinates(stored: xr.Dataset, cube: xr.Dataset) -> list[str]:
    """Compare coordinates, such as band names in their order."""
    found = []
    for name, one in stored.coords.items():
        if name in {"time", "y", "x"} or one.ndim > 1 or ("time" not in one.dims and name == "spatial_ref"):
            continue
        if name not in cube.coords:
            if "time" in one.dims or name in stored.dims:
                found.append(f"coordinate {name!r}: the cube lacks it")
            continue
        if "time" in one.dims:
            continue
        a, b = one.values, cube[name].values
        if a.shape != b.shape or not _equal(a, b):
            found.append(f"{name}: is {_short(a)}, the cube's {_short(b)}")
    return found


def _of_grid(stored: xr.Dataset, cube: xr.Dataset) -> list[str]:
    """Compare CRS, place and size of the grids; without a CRS the sizes and coordinates."""
    one, other = grid_of(stored), grid_of(cube)
    if one is not None and other is not None:
        found = (
            [] if one.crs == other.crs else [f"grid: CRS is {crs_text(one)}, the cube's {crs_text(other)}"]
        )
        if one.shape != other.shape or not _near(one.transform, other.transform):
            found.append(f"grid: is {_box(one)}, the cube's {_box(other)}")
        return found
    if (one is None) != (other is None):
        return [f"grid: the {'store' if one is None else 'cube'} has none"]
    sizes = [{dim: dataset.sizes.get(dim) for dim in ("y", "x")} for dataset in (stored, cube)]
    return [] if sizes[0] == sizes[1] else [f"grid: sizes are {sizes[0]}, the cube's {sizes[1]}"]


def option_differences(stored: xr.Dataset, cube: xr.Dataset) -> list[str]:
    """List differences of the options that made them.

    Parameters
    ----------
    stored, cube : xarray.Dataset
        As for `differences`.

    Returns
    -------
    list of str
        One text each.
    """
    found = []
    for key in OPTIONS:
        one, other = (_listed(dataset.attrs.get(key)) for dataset in (stored, cube))
        if one != other:
            found.append(f"{key}: is {one!r}, the cube's {other!r}")
    steps = [
        [
            [name, {k: v for k, v in options.items() if k not in {"start", "end"}}]
            for name, options in recipe_of(ds)
        ]
        for ds in (stored, cube)
    ]
    if steps[0] != steps[1]:
        found.append(f"steps: are {json.dumps(steps[0])}, the cube's {json.dumps(steps[1])}")
    return found


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | np.ndarray) else value


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124  (NaN)


def _equal(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> bool:
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=1e-12, atol=0, equal_nan=True))
    return bool((one.astype(str) == other.astype(str)).all())


def _near(one: Any, other: Any) -> bool:
    scale = max(abs(one.a), abs(one.e))
    return bool(np.allclose(tuple(one)[:6], tuple(other)[:6], rtol=1e-12, atol=1e-6 * scale))


def _box(box: Any) -> str:
    corner = f"{box.transform.c:.10g}, {box.transform.f:.10g}"
    return f"{box.shape.y} x {box.shape.x} pixels of {abs(box.resolution.x):g} from {corner}"


def _short(values: "np.ndarray[Any, Any]") -> str:
    texts = [str(value) for value in values.flat[:8]]
    return "[" + ", ".join(texts) + (", …]" if values.size > len(texts) else "]")
