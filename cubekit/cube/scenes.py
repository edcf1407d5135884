"""From items to the tables of a plan: which asset holds which band, in which form, at which time step."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cubekit.cube.metadata import FormReader, is_complete, read_header, read_headers, time_of
from cubekit.cube.plan import MISSING
from cubekit.cube.reader import Form, Source
from cubekit.cube.resample import to_pixels
from cubekit.errors import (
    CubeError,
    MetadataMismatchError,
    OptionError,
    SourceError,
    UnknownNameError,
    did_you_mean,
)
from cubekit.grids import enclosing
from cubekit.typing import Array, BBox, IntArray

if TYPE_CHECKING:
    import pystac

    from cubekit.catalog import Band, Collection

GroupBy: TypeAlias = Literal["solar_day", "time", "item"]
"""What becomes one time step."""

_SECONDS_PER_DEGREE = 240
_SHOWN = 5


class MissingAssetWarning(UserWarning):
    """A scene lacks an asset that was asked for; its pixels stay without data."""


@dataclass(frozen=True)
class Layer:
    """One band to read."""

    name: str
    """As the user asked for it."""

    record: "Band | None"
    """What the catalog knows."""


@dataclass
class Table:
    """Assets of all scenes; rows are scenes, columns are layers."""

    items: "list[pystac.Item]"
    layers: list[Layer]
    forms: list[Form] = field(default_factory=list)
    form_of: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    hrefs: list[tuple[str, ...]] = field(default_factory=list)
    assets: list[tuple[str, ...]] = field(default_factory=list)
    signer: str | None = None

    def form(self, scene: int, layer: int) -> Form | None:
        """Return the form of one asset, or None where it is missing."""
        number = int(self.form_of[scene, layer])
        return None if number == MISSING else self.forms[number]

    def source(self, scene: int, layer: int) -> Source:
        """Return one asset."""
        return Source(
            href=self.hrefs[scene][layer],
            form=self.forms[self.form_of[scene, layer]],
            item=self.items[scene].id,
            asset=self.assets[scene][layer],
            signer=self.signer,
        )


def choose_layers(
    items: "Sequence[pystac.Item]",
    collection: "Collection | None",
    bands: Sequence[str] | None,
    *,
    quality: bool,
) -> list[Layer]:
    """Look up the asked bands, and the quality band after them where a mask needs it.

    Parameters
    ----------
    items : sequence of pystac.Item
        Not empty.
    collection : Collection or None
        Record of the catalog.
    bands : sequence of str or None
        Names, common names or aliases; None means the default of the collection, or every raster asset.
    quality : bool
        Whether to add the quality band.

    Returns
    -------
    list of Layer
        In the order asked for.

    Raises
    ------
    UnknownNameError
        With the nearest band.
    OptionError
        For repeated names, or none.
    """
    if isinstance(bands, str):
        bands = [bands]
    names = _default_bands(items, collection) if bands is None else bands
    layers = [_layer(name, items, collection) for name in names]
    if not layers or len({layer.name for layer in layers}) < len(layers):
        raise OptionError(f"bands={bands}: give at least one band, each once.")
    if quality and collection is not None and collection.quality is not None:
        layers.append(Layer(collection.quality.band, collection.band(collection.quality.band)))
    return layers


def _default_bands(items: "Sequence[pystac.Item]", collection: "Collection | None") -> list[str]:
    """Return the default bands that items have; failing that, other bands; failing that, raster assets."""
    if collection is None:
        return _raster_assets(items)
    for names in (collection.default_bands, [band.name for band in collection.bands]):
        if found := [n for n in names if any(collection.asset_key(n, item) for item in items)]:
            return found
    return _raster_assets(items)


def _layer(name: str, items: "Sequence[pystac.Item]", collection: "Collection | None") -> Layer:
    if collection is not None:
        try:
            return Layer(name, collection.band(name))
        except UnknownNameError:
            if not any(name in item.assets for item in items):
                raise
    layer = Layer(name, None)
    if not any(_asset_key(item, layer, None) for item in items):
        raise UnknownNameError(f"No item has a band {name!r}. {did_you_mean(name, _raster_assets(items))}")
    return layer


def _raster_assets(items: "Sequence[pystac.Item]") -> list[str]:
    """List asset keys that hold rasters with numbers, in order of appearance."""
    keys: dict[str, None] = {}
    for item in items:
        for key, asset in item.assets.items():
            roles = set(asset.roles or ())
            kind = asset.media_type or ""
            raster = "data" in roles or any(word in kind for word in ("tiff", "jp2", "netcdf", "hdf"))
            if raster and not roles & {"thumbnail", "overview", "metadata", "visual"}:
                keys[key] = None
    return list(keys)


def _asset_key(item: "pystac.Item", layer: Layer, collection: "Collection | None") -> str | None:
    """Return the key of the asset that holds a band, by catalog, by key or by common name."""
    if collection is not None and layer.record is not None:
        return collection.asset_key(layer.record, item)
    if layer.name in item.assets:
        return layer.name
    for key, asset in item.assets.items():
        described = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or []
        if len(described) == 1 and layer.name in (
            described[0].get("common_name"),
            described[0].get("eo:common_name"),
            described[0].get("name"),
        ):
            return key
    return None


def build_table(
    ordered: "list[pystac.Item]",
    layers: list[Layer],
    items: "Sequence[pystac.Item]",
    *,
    count: int,
    on_error: str,
) -> Table:
    """Describe every asset, from metadata where possible, from file headers where not.

    Parameters
    ----------
    ordered : list of pystac.Item
        In the order of the scenes.
    layers : list of Layer
        From :func:`choose_layers`.
    items : sequence of pystac.Item
        The same items; :class:`cubekit.sources.items.Items` bring collection, signer and policy for
        addresses.
    count : int
        Number of bands of the cube; a layer after them is the quality band.
    on_error : {"raise", "record"}
        What a missing asset does.

    Returns
    -------
    Table
        Rows in the order of `ordered`.

    Raises
    ------
    SourceError
        When an asset is missing or a header cannot be read.
    """
    table = Table(ordered, layers, signer=getattr(items, "signer", None))
    collection = getattr(items, "collection", None)
    href: Callable[[pystac.Asset], str] = getattr(items, "href", _plain_href)
    reader = FormReader()
    numbers: dict[int, int] = {}
    rows: list[list[int]] = []
    lacking: list[str] = []
    for item in table.items:
        keys = [_asset_key(item, layer, collection) for layer in layers]
        lacking += [
            f"{item.id} lacks {layer.name}" for layer, key in zip(layers, keys, strict=True) if key is None
        ]
        row = []
        for layer, key in zip(layers, keys, strict=True):
            form = None if key is None else reader.form(item, key, layer.record)
            if form is None:
                row.append(MISSING)
                continue
            if id(form) not in numbers:
                numbers[id(form)] = len(table.forms)
                table.forms.append(form)
            row.append(numbers[id(form)])
        rows.append(row)
        table.hrefs.append(tuple("" if key is None else href(item.assets[key]) for key in keys))
        table.assets.append(tuple(key or "" for key in keys))
    table.form_of = np.array(rows, np.int32).reshape(len(rows), len(layers))
    _report_missing(lacking, on_error)
    _complete(table, count)
    _check_places(table)
    return table


def _plain_href(asset: "pystac.Asset") -> str:
    return asset.href if "://" in asset.href else (asset.get_absolute_href() or asset.href)


def _report_missing(lacking: list[str], on_error: str) -> None:
    if not lacking:
        return
    more = len(lacking) - _SHOWN
    shown = "; ".join(lacking[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    message = f"Assets are missing: {shown}."
    if on_error == "raise":
        raise SourceError(
            f"{message} Leave these items out, or pass on_error='record' to go on without them."
        )
    warnings.warn(f"{message} Their pixels stay without data.", MissingAssetWarning, stacklevel=4)


def _complete(table: Table, count: int) -> None:
    """Read headers where metadata lacks grid or type, and one of each band where no nodata is known."""
    places = [
        (scene, layer)
        for scene, layer in np.argwhere(table.form_of != MISSING).tolist()
        if not is_complete(table.forms[table.form_of[scene, layer]])
    ]
    known: dict[Form, int] = {}
    for (scene, layer), form in zip(
        places, read_headers([table.source(s, b) for s, b in places]), strict=True
    ):
        if form not in known:
            known[form] = len(table.forms)
            table.forms.append(form)
        table.form_of[scene, layer] = known[form]
    for layer in range(count):
        column = table.form_of[:, layer]
        present = np.flatnonzero(column != MISSING)
        forms = {int(number) for number in column[present]}
        if present.size and all(_unknown_nodata(table.forms[number]) for number in forms):
            header = read_header(table.source(int(present[0]), layer))
            if header.nodata is not None:
                for number in forms:
                    # New entries, since another band may share the form.
                    table.forms.append(replace(table.forms[number], nodata=header.nodata))
                    column[column == number] = len(table.forms) - 1


def _check_places(table: Table) -> None:
    """Refuse items whose projection fields and bbox disagree: they would silently be left out."""
    known: dict[int, BBox | None] = {}
    for scene, item in enumerate(table.items):
        first = next((n for n in table.form_of[scene] if n != MISSING), None)
        if first is None or not item.bbox or len(item.bbox) != 4:  # noqa: PLR2004
            continue
        if first not in known:
            known[first] = _degrees(table.forms[first].geobox)
        found = known[first]
        if found is not None and _apart(item.bbox, found):
            raise MetadataMismatchError(
                f"Item {item.id!r}: its bbox is {item.bbox}, but its projection fields (proj:code, "
                f"proj:transform, proj:shape) put it at {[round(edge, 3) for edge in found]}. "
                "Correct the item, or leave it out."
            )


def _degrees(box: GeoBox) -> BBox | None:
    """Return west, south, east, north of a grid, or None where that is not clear."""
    to_degrees = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True)
    bounds: BBox = to_degrees.transform_bounds(*box.boundingbox.bbox)
    return bounds if np.isfinite(bounds).all() and bounds[0] <= bounds[2] else None


def _apart(one: Sequence[float], other: BBox) -> bool:
    beside = one[0] <= one[2] and (one[2] < other[0] or other[2] < one[0])
    return beside or one[3] < other[1] or other[3] < one[1]


def _unknown_nodata(form: Form) -> bool:
    return form.nodata is None and np.dtype(form.dtype).kind in "ui"


def time_steps(times: Array, group_by: GroupBy, longitude: float) -> Array:
    """Return the time step that each scene belongs to.

    Parameters
    ----------
    times : numpy.ndarray of datetime64[ns]
        Of the scenes, UTC.
    group_by : {"solar_day", "time", "item"}
        ``solar_day``: the date at the given longitude, at midnight; a time of exactly midnight UTC is a date
        already, as files named by date give it. Else the time itself.
    longitude : float
        Degrees east, of the middle of the grid.

    Returns
    -------
    numpy.ndarray of datetime64[ns]
        Same shape.

    Raises
    ------
    CubeError
        When two items of one time would become two steps of one time.
    """
    if group_by == "solar_day":
        late = np.timedelta64(round(longitude * _SECONDS_PER_DEGREE), "s")
        dates = times.astype("datetime64[D]")
        solar = (times + late).astype("datetime64[D]")
        return np.where(times == dates, dates, solar).astype("datetime64[ns]")
    if group_by == "item" and np.unique(times).size < times.size:
        raise CubeError(
            "group_by='item' needs items of different times; some share theirs. Use group_by='time' or "
            "'solar_day' "
            "to lay them over each other."
        )
    return times


def item_times(items: "Sequence[pystac.Item]") -> Array:
    """Return the time of each item as datetime64[ns], UTC."""
    return np.array([time_of(item) for item in items], "datetime64[ns]")


def native_grid(table: Table, count: int) -> GeoBox:
    """Return the grid of the files themselves, over all of them.

    Parameters
    ----------
    table : Table
        Complete.
    count : int
        Number of bands of the cube.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Finest grid among the bands, extended to all files.

    Raises
    ------
    CubeError
        When files lie in several CRSs, or their pixels are not on one grid.
    """
    boxes = list({table.forms[n].geobox: None for n in np.unique(table.form_of[:, :count]) if n != MISSING})
    if len({box.crs for box in boxes}) > 1:
        names = ", ".join(sorted({str(box.crs) for box in boxes}))
        raise CubeError(f"The items lie in several CRSs ({names}): give a grid to bring them together.")
    finest = min(boxes, key=lambda box: abs(box.resolution.x))
    whole: GeoBox = finest
    for box in boxes:
        whole |= enclosing(finest, box.boundingbox.bbox)
    _check_aligned(boxes, finest)
    return whole


def _check_aligned(boxes: Sequence[GeoBox], finest: GeoBox) -> None:
    for box in boxes:
        if abs(box.resolution.x - finest.resolution.x) > 1e-9 * abs(finest.resolution.x):
            continue
        corner = to_pixels(finest, np.array([box.transform.c]), np.array([box.transform.f]))
        if max(abs(v - round(v)) for v in (*corner.rows, *corner.cols)) > 1e-2:  # noqa: PLR2004  (of a pixel)
            raise CubeError(
                "The pixels of the items are not on one grid: give a grid to bring them together."
            )


def as_resampling(resampling: str | Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the resampling of each band; ``"*"`` in a mapping stands for the others."""
    if isinstance(resampling, str):
        return (resampling,) * len(names)
    if unknown := sorted(set(resampling) - set(names) - {"*"}):
        raise UnknownNameError(f"resampling names no band: {unknown[0]!r}. {did_you_mean(unknown[0], names)}")
    return tuple(resampling.get(name, resampling.get("*", "nearest")) for name in names)
