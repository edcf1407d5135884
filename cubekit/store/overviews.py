"""Overviews of a store: each level half as fine, in a group of its own, renewed where data changed."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from math import ceil
from typing import Any, Literal, TypeAlias, cast

import dask.array as da
import numpy as np
import odc.geo.xr
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from cubekit.errors import OptionError, StoreError, did_you_mean
from cubekit.store.layout import Layout, gridded, plan_layout
from cubekit.store.lease import hold
from cubekit.store.ledger import read_ledger
from cubekit.store.mark import marked, read_mark, to_json
from cubekit.store.metadata import grid_of
from cubekit.store.objects import ROOT, SIDE, Objects
from cubekit.store.open import open_store
from cubekit.store.place import Place, objects_at, place_of
from cubekit.store.remote import Remote
from cubekit.store.write import write
from cubekit.typing import Array, StrPath

How: TypeAlias = Literal["mean", "mode", "nearest"]
"""How four pixels become one."""

GROUP = "overviews"
"""Group that the levels lie in, each under its factor."""

CONVENTION = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v0.1/README.md",
    "name": "multiscales",
    "description": "Multiscale layout of zarr datasets",
}
"""Declaration of GeoZarr's multiscales convention, version 0.1."""

_SOURCE = f"{SIDE}/source.json"
_SMALLEST = 512


def add_overviews(
    path: StrPath,
    *,
    levels: int | None = None,
    how: Mapping[str, How] | None = None,
    scheduler: Any = None,
    workers: int | None = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[int, xr.Dataset]:
    """Add coarser copies of a cube to its store, or bring them up to date.

    Every level halves the one before; pixels at the far edges may reach beyond the area. A level is a whole
    store in the group ``overviews/2``, ``overviews/4`` and so on, with the same dimensions, coding and CRS;
    `cubekit.open`, `xarray.open_zarr` and `verify` take its path. The cube's attributes name the levels as
    GeoZarr's ``multiscales`` convention asks. Called again after parts of the cube were replaced or repaired,
    only the objects of the levels that show these parts are written; a cube with other dates gets new levels.

    Parameters
    ----------
    path : path-like
        A finished store with a CRS; local or in an object store.
    levels : int, optional
        How many. Default: until the longer side has at most 512 pixels.
    how : mapping, optional
        Variable to ``"mean"``, ``"mode"`` or ``"nearest"`` (the upper left pixel). Default: mode for classes
        (attributes ``flag_values`` or ``classes``) and booleans, mean for the rest. Nodata does not count;
        where all four pixels lack data, so does the result. Means of integers are rounded.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes, as for `write`.
    workers : int, optional
        Threads or processes. Default: one for each core.
    progress : bool, optional
        Whether to draw bars. Default: where standard error is a terminal.
    storage_options : mapping, optional
        How to reach an object store; see `write`.

    Returns
    -------
    dict
        Factor (2, 4, …) to the opened level.

    Raises
    ------
    StoreError
        If the store is not finished, or has no grid.
    OptionError
        For an unknown way or variable.
    """
    place = place_of(path, storage_options)
    cube = open_store(place)
    ways = _ways(cube, how or {})
    if grid_of(cube) is None:
        raise StoreError(f"{place} has no CRS, so that its overviews would have no place; give it one first.")
    count = _count(cube) if levels is None else levels
    if count < 1:
        raise OptionError(f"levels={levels!r}: {place} needs no overviews, or give a positive number.")
    hands = {"scheduler": scheduler, "workers": workers, "progress": progress}
    opened, above = {}, place
    with hold(place) as lock:
        for factor in (2**level for level in range(1, count + 1)):
            lock.check()
            below = _level(place, factor)
            opened[factor] = _bring_up(above, below, ways, hands)
            above = below
        _declare(objects_at(place), str(place), ways, list(opened))
    return opened


def without_overviews(root: bytes) -> bytes:
    """Take the levels out of a root document, for a store that has other pixels.

    Parameters
    ----------
    root : bytes
        Root document.

    Returns
    -------
    bytes
        The same where it names no levels; else without a valid seal.
    """
    document = json.loads(root)
    attributes = document["attributes"]
    if attributes.pop("multiscales", None) is None:
        return root
    named = attributes.get("zarr_conventions", [])
    attributes["zarr_conventions"] = [one for one in named if one.get("name") != "multiscales"]
    held = document["consolidated_metadata"]
    held["metadata"] = {k: v for k, v in held["metadata"].items() if k.partition("/")[0] != GROUP}
    return to_json(document)


def _bring_up(above: Place, below: Place, ways: Mapping[str, How], hands: Mapping[str, Any]) -> xr.Dataset:
    """Write one level from the one above it, as far as it is not there."""
    coarse = _halved(_even(above), ways)
    layout, objects = plan_layout(coarse, "maps"), objects_at(below)
    _, digests = read_ledger(objects_at(above))
    now = {key: list(digest) for key, digest in digests.items() if key.split("/")[0] in ways}
    before = json.loads(objects.read(_SOURCE) or b"{}")
    changed = {key for key in now.keys() | before.keys() if now.get(key) != before.get(key)}
    if before:
        objects.delete(*_touched(changed, objects_at(above), layout))
    objects.write(_SOURCE, to_json(now))
    name = "overview by " + ", ".join(f"{way} of {name}" for name, way in sorted(ways.items()))
    return write(
        coarse, below, layout=layout, overwrite=True, source=name, **hands
    )  # fmt: skip


def _touched(changed: set[str], objects: Objects, layout: Layout) -> Iterator[str]:
    """Name the objects of a level that show changed objects of the level above."""
    for key in changed:
        name, _, place = key.partition("/c/")
        if not place or name not in {array.name for array in layout.arrays}:
            continue
        array, whole = layout[name], _object(objects, name)
        window = [
            (int(i) * side, (int(i) + 1) * side) for i, side in zip(place.split("/"), whole, strict=True)
        ]
        halved = [*window[:-2], *((a // 2, ceil(b / 2)) for a, b in window[-2:])]
        ranges = (
            range(start // step, min(ceil(end / step), ceil(size / step)))
            for (start, end), step, size in zip(halved, array.objects, array.shape, strict=True)
        )
        yield from ("/".join([name, "c", *map(str, index)]) for index in product(*ranges))


def _object(objects: Objects, name: str) -> tuple[int, ...]:
    """Return the shape of the objects of a variable."""
    array: Any = zarr.open_array(objects.store, path=name, mode="r")
    return tuple(array.shards or array.chunks)


def _even(place: Place) -> xr.Dataset:
    """Open a level in blocks whose sides are even, so that no four pixels lie in two blocks."""
    cube = open_store(place)
    sides = {}
    for dim in ("y", "x"):
        side = max(max(v.chunksizes[dim]) for v in gridded(cube).values() if dim in v.chunksizes)
        sides[dim] = side + side % 2
    return open_store(place, chunks=sides)


def _halved(cube: xr.Dataset, ways: Mapping[str, How]) -> xr.Dataset:
    """Return a cube with half as many pixels along y and x."""
    box = grid_of(cube)
    if box is None:
        raise StoreError("An overview without a grid cannot be halved again; remove it and begin anew.")
    high, wide = (ceil(side / 2) for side in box.shape)
    coarse = GeoBox((high, wide), box.affine * Affine.scale(2), box.crs)
    small = cube.drop_vars([*gridded(cube), "y", "x", "spatial_ref"], errors="ignore")
    out = small.assign_coords(odc.geo.xr.xr_coords(coarse))
    for name, variable in gridded(cube).items():
        chunks = variable.data.chunks
        cuts = (*chunks[:-2], *(tuple(ceil(n / 2) for n in sizes) for sizes in chunks[-2:]))
        lazy = da.map_blocks(  # type: ignore[no-untyped-call]
            halve, variable.data, how=ways[name], nodata=variable.attrs.get("_FillValue"),
            chunks=cuts, dtype=variable.dtype, meta=np.empty((0,) * variable.ndim, variable.dtype),
        )  # fmt: skip
        out[name] = xr.Variable(variable.dims, lazy, variable.attrs, {"grid_mapping": "spatial_ref"})
    return out.set_coords([name for name in gridded(cube) if name in cube.coords])


def halve(block: Array, *, how: How, nodata: float | None) -> Array:
    """Make one pixel of every four.

    Parameters
    ----------
    block : numpy.ndarray
        Dims (…, y, x), any number type. A side of odd length is filled up with its own last pixels, or with
        nodata.
    how : {"mean", "mode", "nearest"}
        Mean is taken over valid pixels and rounded for integers; mode is the commonest valid value, of equal
        ones the first in reading order; nearest is the upper left pixel.
    nodata : number or None
        Value that does not count; not-a-number never does.

    Returns
    -------
    numpy.ndarray
        Same type, sides halved and rounded up.
    """
    high, wide = (side % 2 for side in block.shape[-2:])
    padded = np.pad(block, [(0, 0)] * (block.ndim - 2) + [(0, high), (0, wide)], mode="edge")
    four = np.stack([padded[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    if how == "nearest":
        return cast("Array", four[0].copy())
    valid = ~np.isnan(four) if block.dtype.kind == "f" else np.ones(four.shape, bool)
    if nodata is not None:
        valid &= four != nodata
    if high:  # repeated pixels must not count twice
        valid[2:, ..., -1, :] = False
    if wide:
        valid[1::2, ..., -1] = False
    result = _mean(four, valid) if how == "mean" else _mode(four, valid)
    return np.where(valid.any(0), result, four[0]).astype(block.dtype)


def _mean(four: Array, valid: Array) -> Array:
    """Average what is valid."""
    total = np.where(valid, four, 0).sum(0, dtype="float64")
    mean = total / np.maximum(valid.sum(0), 1)
    return cast("Array", mean if four.dtype.kind == "f" else np.rint(mean))


def _mode(four: Array, valid: Array) -> Array:
    """Take the commonest valid value."""
    votes = np.stack([((four == one) & valid).sum(0) for one in four])
    best = np.where(valid, votes, -1).argmax(0)
    return cast("Array", np.take_along_axis(four, best[None], 0)[0])


def _ways(cube: xr.Dataset, how: Mapping[str, How]) -> dict[str, How]:
    """Choose how each variable is made coarser."""
    variables = gridded(cube)
    for name, way in how.items():
        if name not in variables:
            raise OptionError(f"how names {name!r}. {did_you_mean(name, variables)}")
        if way not in {"mean", "mode", "nearest"}:
            raise OptionError(
                f"how={way!r} is not accepted. {did_you_mean(way, ('mean', 'mode', 'nearest'))}"
            )
    classes = {
        n for n, v in variables.items() if v.dtype.kind == "b" or {"flag_values", "classes"} & v.attrs.keys()
    }
    return {name: how.get(name, "mode" if name in classes else "mean") for name in variables}


def _count(cube: xr.Dataset) -> int:
    """Count the halvings until the longer side is short."""
    longer, count = max(cube.sizes["y"], cube.sizes["x"]), 0
    while longer > _SMALLEST:
        longer, count = ceil(longer / 2), count + 1
    return count


def _level(place: Place, factor: int) -> Place:
    """Return where a level lies."""
    if isinstance(place, Remote):
        return Remote(f"{place.url}/{GROUP}/{factor}", place.options)
    return place / GROUP / str(factor)


def _declare(objects: Objects, where: str, ways: Mapping[str, How], factors: list[int]) -> None:
    """Name the levels in the attributes of the cube, and seal these again."""
    root = objects.read(ROOT) or b""
    document, mark = json.loads(root), read_mark(root, where)
    attributes = document["attributes"]
    methods = {"mean": "average", "mode": "mode", "nearest": "nearest"}
    layout: list[dict[str, Any]] = [{"asset": "."}]
    for factor in factors:
        above = "." if factor == 2 else f"{GROUP}/{factor // 2}"  # noqa: PLR2004
        transform = {"scale": [2.0, 2.0], "translation": [0.0, 0.0]}
        layout.append({"asset": f"{GROUP}/{factor}", "derived_from": above, "transform": transform})
    used = {methods[way] for way in ways.values()}
    attributes["multiscales"] = {"layout": layout} | (
        {"resampling_method": used.pop()} if len(used) == 1 else {}
    )
    inside = document["consolidated_metadata"]["metadata"]
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    objects.write(f"{GROUP}/{ROOT}", to_json(group))
    inside |= {GROUP: group}
    for factor in factors:
        level = json.loads(objects.read(f"{GROUP}/{factor}/{ROOT}") or b"{}")
        arrays = level.pop("consolidated_metadata")["metadata"]
        inside |= {f"{GROUP}/{factor}": level} | {
            f"{GROUP}/{factor}/{n}": array for n, array in arrays.items()
        }
    others = [one for one in attributes.get("zarr_conventions", []) if one.get("name") != "multiscales"]
    attributes["zarr_conventions"] = [*others, dict(CONVENTION)]
    sealed = marked(to_json(document), mark)
    if sealed != root:
        objects.write(ROOT, sealed)
