"""Items and a grid become a lazy cube; one task makes one block of dates, rows and columns, all its bands."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.delayed import delayed
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

from cubekit.cube.blocks import Chunks, held_in, map_blocks, normalise, pair
from cubekit.cube.choice import CLOUD_COVER
from cubekit.cube.contract import DIMS, MAIN, Encoding
from cubekit.cube.encodings import common_encoding, harmonise, shifts
from cubekit.cube.fuse import load_block, load_with_status
from cubekit.cube.plan import Plan, bounds_on, default_chunks
from cubekit.cube.quality import in_pixels, mask_rule
from cubekit.cube.resample import RESAMPLINGS, Resampling
from cubekit.cube.scenes import (
    GroupBy,
    Table,
    as_resampling,
    build_table,
    choose_layers,
    item_times,
    native_grid,
    time_steps,
)
from cubekit.cube.status import STATUS
from cubekit.cube.status import attrs as status_attrs
from cubekit.errors import CubeError, OptionError, check_kind, check_option
from cubekit.typing import Array, IntArray

if TYPE_CHECKING:
    import pystac

    from cubekit.catalog import Collection
    from cubekit.cube.quality import MaskRule

Chunk = int | tuple[int, ...]


def open_cube(  # noqa: PLR0913
    items: "Sequence[pystac.Item]",
    grid: GeoBox | None = None,
    *,
    bands: Sequence[str] | None = None,
    mask: str | Iterable[str] | None = None,
    dilate: int | str = 0,
    opening: int | str = 0,
    chunks: Mapping[str, Chunk] | None = None,
    resampling: Resampling | Mapping[str, Resampling] = "nearest",
    group_by: GroupBy = "solar_day",
    dtype: Literal["float32"] | None = None,
    on_error: Literal["raise", "record"] = "raise",
) -> xr.Dataset:
    """Open items as a lazy cube on a grid.

    No pixel is read before the cube is computed. Scenes of one time step are laid over each other, the
    earlier on top (then by identifier): each band of a pixel comes from the first scene that has data there
    after masking.

    Parameters
    ----------
    items : sequence of pystac.Item
        Usually :class:`cubekit.sources.items.Items`, whose ``collection`` tells bands, coding and masks.
        Addresses stay unsigned until a task reads them.
    grid : odc.geo.geobox.GeoBox, optional
        From :func:`cubekit.grids.grid`. Default: the grid of the files, where they share one.
    bands : sequence of str, optional
        Names, common names or aliases; the cube's ``band`` coordinate holds them as given. Default: the
        default bands of the collection, else every raster asset.
    mask : str or iterable of str, optional
        Names of the collection's masks, such as ``"clouds"``. Masked pixels lose their data scene by scene,
        before scenes are laid over each other; pixels that the quality band does not cover are masked too.
    dilate : int or str, optional
        By how much masked areas grow: pixels of the grid, or metres as in ``"60 m"``.
    opening : int or str, optional
        By how much they shrink and grow back before that, so that masked specks and lines up to twice as wide
        vanish: single bright roofs taken for clouds.
    chunks : mapping, optional
        Block sizes of ``time``, ``y``, ``x``. Default: all dates in blocks of 1024 or 512 pixels a side if
        that takes up to 128 MB, else fewer dates.
    resampling : str or mapping of str, optional
        For all bands, or by band with ``"*"`` for the others; the quality band is always ``"nearest"``.
    group_by : {"solar_day", "time", "item"}
        What becomes one time step. ``"solar_day"``: scenes of one date at the longitude of the grid, labelled
        with that date at midnight. ``"time"``: scenes of exactly one time. ``"item"``: each item.
    dtype : {"float32"}, optional
        Decode to physical values with NaN; needed for bands of different coding. Default: stored integers.
    on_error : {"raise", "record"}
        What a missing or unreadable asset does: an error; or a warning, no data, and a note in the variable
        ``status``, from which :func:`cubekit.cube.status.read_status` names what failed.

    Returns
    -------
    xarray.Dataset
        ``data`` (time, band, y, x), lazy, in the dtype of the files, with CF attributes ``_FillValue``,
        ``scale_factor``, ``add_offset``; coordinate ``cloud_cover`` (time), percent, where items state it;
        attribute ``items`` lists item identifiers, ``item_shifts`` what was added to their stored numbers to
        bring all to one coding, ``item_times`` their time steps. With
        ``on_error="record"`` also ``status`` (time, band, y, x), uint8, from the same reads: whether a pixel
        is outside of all scenes, read, empty (nodata in the file), masked, missing (the asset) or failed;
        ``flag_values`` and ``flag_meanings`` say the codes. It compresses to next to nothing.

    Raises
    ------
    CubeError
        When there are no items, none touches the grid, or bands or scenes cannot share one coding.
    UnknownNameError
        For an unknown band or mask, with the nearest.
    SourceError
        When an asset is missing; and from tasks, when one cannot be read.
    OptionError
        For options that are not accepted.

    Notes
    -----
    Files are read at full resolution: overviews, whose own resampling is unknown, are not used.
    """
    check_option("on_error", on_error, ("raise", "record"))
    check_option("group_by", group_by, ("solar_day", "time", "item"))
    check_option("dtype", dtype, (None, "float32"))
    check_kind("items", items, Sequence, "open them with cubekit.open_items")
    if grid is not None:
        check_kind("grid", grid, GeoBox, "make one with cubekit.grid")
    if len(items) == 0:
        raise CubeError("There are no items to open: widen the search, or look into the file they came from.")
    if not hasattr(items[0], "assets"):  # a path is a sequence too
        raise OptionError(f"items is {items!r:.200}, expected STAC items: open them with cubekit.open_items.")
    collection = getattr(items, "collection", None)
    masks = () if mask is None else (mask,) if isinstance(mask, str) else tuple(mask)
    rule = _rule(collection, masks)
    layers = choose_layers(items, collection, bands, quality=rule is not None)
    count = len(layers) - (rule is not None)
    names = [layer.name for layer in layers[:count]]
    methods = as_resampling(resampling, names)
    for method in methods:
        check_option("resampling", method, RESAMPLINGS)
    ordered = sorted(zip(item_times(items), items, strict=True), key=lambda pair: (pair[0], pair[1].id))
    table = build_table([item for _, item in ordered], layers, items, count=count, on_error=on_error)
    harmonise(table, count, collection)
    box = native_grid(table, count) if grid is None else grid
    _check_grid(box)
    grown, opened = in_pixels("dilate", dilate, box), in_pixels("opening", opening, box)
    rule = None if rule is None else replace(rule, dilate=grown, opening=opened)
    coding = common_encoding(table, count) if dtype is None else Encoding(dtype=dtype, nodata=float("nan"))
    steps = time_steps(np.array([time for time, _ in ordered]), group_by, _longitude(box))
    plan = _plan(table, box, steps, coding, methods=methods, rule=rule, chunks=chunks, on_error=on_error)
    return _dataset(plan, collection, table, group_by=group_by, masks=masks)


def _rule(collection: "Collection | None", masks: tuple[str, ...]) -> "MaskRule | None":
    if not masks:
        return None
    if collection is None or collection.quality is None:
        raise CubeError(
            f"mask={masks} needs a collection with quality rules; open the items with collection=…, or "
            "leave mask out."
        )
    return mask_rule(collection.quality, masks)


def _check_grid(grid: GeoBox) -> None:
    if grid.crs is None:
        raise OptionError("The grid has no CRS; make one with cubekit.grid.")
    if grid.transform.b or grid.transform.d:
        raise OptionError("The grid is rotated; a cube needs axes parallel to those of its CRS.")


def _longitude(grid: GeoBox) -> float:
    west, south, east, north = grid.boundingbox.bbox
    to_degrees = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True)
    return float(to_degrees.transform((west + east) / 2, (south + north) / 2)[0])


def _plan(
    table: Table,
    grid: GeoBox,
    steps: Array,
    coding: Encoding,
    *,
    methods: tuple[str, ...],
    rule: "MaskRule | None",
    chunks: Mapping[str, Chunk] | None,
    on_error: str,
) -> Plan:
    """Put what is known about the scenes that touch the grid into one record, in the order of their dates."""
    count = len(methods)
    bounds = _bounds(table, count, grid)
    inside = np.flatnonzero((bounds[:, 2] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 1]))
    if inside.size == 0:
        raise CubeError(
            f"None of the {len(table.items)} items touches the grid ({grid.boundingbox.bbox} in "
            f"{grid.crs}): compare "
            "the places of items and grid."
        )
    order = inside[np.argsort(steps[inside], kind="stable")]
    times, time_of = np.unique(steps[order], return_inverse=True)
    return Plan(
        grid=grid,
        bands=tuple(layer.name for layer in table.layers[:count]),
        encoding=coding,
        times=times,
        chunks=_chunks(chunks, len(times), count, grid, coding.dtype),
        scenes=tuple(table.items[scene].id for scene in order),
        time_of=time_of.astype(np.int32),
        bounds=bounds[order].astype(np.int32),
        forms=tuple(table.forms),
        form_of=table.form_of[order],
        hrefs=tuple(table.hrefs[scene] for scene in order),
        assets=tuple(table.assets[scene] for scene in order),
        shifts=shifts(table, count, coding)[order],
        signer=table.signer,
        resampling=methods,
        mask=rule,
        on_error=on_error,
        cover=_cover([table.items[scene] for scene in order]),
        dropped=tuple(table.items[scene].id for scene in np.setdiff1d(np.arange(len(bounds)), inside)),
    )


def _bounds(table: Table, count: int, grid: GeoBox) -> IntArray:
    """Return the part of the grid that each scene may cover, shape (scene, 4)."""
    boxes = {id(form.geobox): form.geobox for form in table.forms}
    known = {key: bounds_on(box, grid) for key, box in boxes.items()}
    by_form = np.array([known[id(form.geobox)] for form in table.forms] + [(*grid.shape, 0, 0)])
    corners = by_form[table.form_of[:, :count]]  # MISSING picks the last: nothing
    return np.concatenate([corners[..., :2].min(axis=1), corners[..., 2:].max(axis=1)], axis=1)


def _chunks(chunks: Mapping[str, Chunk] | None, times: int, bands: int, grid: GeoBox, dtype: str) -> Chunks:
    given = dict(chunks or {})
    for name in given:
        check_option("chunks", name, ("time", "band", "y", "x"))
    if given.pop("band", -1) not in (-1, bands, (bands,)):
        raise OptionError(f"chunks: all {bands} bands of a pixel stay in one block; leave 'band' out.")
    default = default_chunks(times, bands, grid.shape.yx, np.dtype(dtype).itemsize)
    sizes = [given.get(name, size) for name, size in zip(("time", "y", "x"), default, strict=True)]
    t, y, x = normalise(sizes, (times, *grid.shape.yx), dtype)
    return t, (bands,), y, x


def _dataset(
    plan: Plan, collection: "Collection | None", table: Table, *, group_by: str, masks: tuple[str, ...]
) -> xr.Dataset:
    known = {layer.name: layer.record and layer.record.common_name for layer in table.layers}
    common = {name: known[name] for name in plan.bands if known[name]}
    attrs: dict[str, Any] = {
        "title": collection.title if collection is not None else "cube",
        "collection": collection.name if collection is not None else "",
        "group_by": group_by,
        "mask": "+".join(masks),
        "resampling": list(plan.resampling),
        "items": list(plan.scenes),
        "item_times": plan.times[plan.time_of].astype("datetime64[s]").astype(str).tolist(),
        "item_shifts": plan.shifts.max(axis=1).tolist(),
        "common_names": json.dumps(common),  # text, because NetCDF has no nested attributes
    }
    return dataset_of(plan, attrs)


def dataset_of(plan: Plan, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Return the lazy cube that a plan describes.

    Parameters
    ----------
    plan : Plan
        Of the scenes; equal plans give arrays of equal Dask names.
    attrs : mapping
        Attributes of the dataset.

    Returns
    -------
    xarray.Dataset
        ``data`` (time, band, y, x), lazy.
    """
    token = tokenize(plan.hrefs, plan.forms, plan.form_of, plan.grid, plan.encoding, plan.chunks, plan.times)
    token = tokenize(token, plan.time_of, plan.shifts, plan.mask, plan.resampling, plan.signer, plan.on_error)
    # One key of the graph holds the plan; tasks refer to it, so that it travels to each worker once.
    held = delayed(plan, name=f"plan-{token}", traverse=False)
    records = plan.on_error == "record"
    array = map_blocks(
        load_with_status if records else load_block,
        chunks=plan.chunks,
        dtype=plan.encoding.dtype,
        options={"plan": held},
        name=f"cube-{token}",
    )
    status = None
    if records:
        names, dtypes = (f"values-{token}", f"status-{token}"), (plan.encoding.dtype, np.uint8)
        array, status = pair(array, dtypes=dtypes, names=names)
    space = xr_coords(plan.grid, dims=("y", "x"))
    data = xr.DataArray(
        array,
        dims=DIMS,
        coords={"time": plan.times, "band": list(plan.bands), **space, **_cloud_cover(plan)},
        attrs={**plan.encoding.attrs(), "grid_mapping": "spatial_ref"},
    )
    cube = xr.Dataset({MAIN: data}, attrs=dict(attrs))
    if status is not None:
        most = int(np.bincount(plan.time_of).max())
        cube[STATUS] = xr.DataArray(status, data.coords, DIMS, attrs=status_attrs(most))
    return cube


def plan_behind(array: Any) -> Plan | None:
    """Return the plan of an opened cube to which nothing has been done since.

    Parameters
    ----------
    array : dask.array.Array or numpy.ndarray
        Main variable of any cube.

    Returns
    -------
    Plan or None
        None for parts of cubes, and for whatever was computed from one.
    """
    kind, _, token = getattr(array, "name", "").partition("-")
    if kind not in {"cube", "values"}:
        return None
    plan = held_in(array.dask.layers.get(f"plan-{token}"))
    return plan if isinstance(plan, Plan) and array.chunks == plan.chunks else None


def _cover(items: "Sequence[pystac.Item]") -> tuple[float | None, ...]:
    stated = [item.properties.get("eo:cloud_cover") for item in items]
    cover = tuple(float(value) if isinstance(value, int | float) else None for value in stated)
    return cover if any(value is not None for value in cover) else ()


def _cloud_cover(plan: Plan) -> dict[str, Any]:
    """Return the mean cloud cover that the items of each time step state; nothing where none states any."""
    if not plan.cover:
        return {}
    cover = np.array([np.nan if stated is None else stated for stated in plan.cover], float)
    known = np.isfinite(cover)
    steps, count = plan.time_of[known], len(plan.times)
    number = np.bincount(steps, minlength=count)
    total = np.bincount(steps, cover[known], minlength=count)
    mean = np.divide(total, number, out=np.full(count, np.nan), where=number > 0)
    attrs = {"long_name": "cloud cover that the items state", "units": "percent"}
    return {CLOUD_COVER: ("time", mean, attrs)}
