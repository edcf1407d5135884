"""What items say about their files: grid, type and coding of each asset, without opening any."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.converters import rio_geobox
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cubekit.cube.reader import Form, Source, drivers_for, with_file
from cubekit.errors import CubeError, MetadataMismatchError
from cubekit.progress import progress

if TYPE_CHECKING:
    import pystac
    import rasterio

    from cubekit.catalog import Band

_UNKNOWN_GRID = GeoBox((1, 1), Affine.identity(), "EPSG:4326")
_HEADER_THREADS = 8
_WORTH_A_BAR = 50


class FormReader:
    """Turns assets into forms; equal grids become one object, so that plans stay small and fast."""

    def __init__(self) -> None:
        self._grids: dict[Any, GeoBox | None] = {}
        self._forms: dict[Any, Form] = {}

    def form(self, item: "pystac.Item", key: str, band: "Band | None") -> Form:
        """Describe an asset from its metadata, the catalog filling in.

        Parameters
        ----------
        item : pystac.Item
            Owner of the asset.
        key : str
            Of the asset.
        band : Band or None
            Record of the catalog.

        Returns
        -------
        Form
            With ``dtype=""`` or the identity grid where metadata does not say; see :func:`is_complete`.
        """
        asset = item.assets[key]
        fields = asset.extra_fields
        layer = int(fields.get("cubekit:band", 1))
        raster = raster_fields(fields)
        form = Form(
            geobox=self._grid(item, fields) or _UNKNOWN_GRID,
            dtype=raster.get("data_type") or (band.dtype if band else ""),
            nodata=_number(raster.get("nodata", band.nodata if band else None)),
            nodata_given=bool(fields.get("cubekit:nodata_given", False)),
            scale=float(_first(raster.get("scale"), band.scale if band else None, 1.0)),
            offset=float(_first(raster.get("offset"), band.offset if band else None, 0.0)),
            band=layer,
            variable=fields.get("cubekit:variable"),
            drivers=drivers_for(asset.href, asset.media_type),
        )
        # By identity of the grid, whose hash is slow.
        token = (id(form.geobox), *(str(getattr(form, f.name)) for f in dataclass_fields(form)[1:]))
        return self._forms.setdefault(token, form)

    def _grid(self, item: "pystac.Item", fields: dict[str, Any]) -> GeoBox | None:
        own = {name: fields.get(name, item.properties.get(name)) for name in _PROJ}
        shape, transform = own["proj:shape"], own["proj:transform"]
        if not shape or not transform:
            return None
        code = own["proj:code"] or own["proj:epsg"] or own["proj:wkt2"] or own["proj:projjson"]
        if not code:
            return None
        if isinstance(code, dict):
            code = json.dumps(code)
        token = (code, *shape, *transform)
        if token not in self._grids:
            affine = Affine(*(float(value) for value in transform[:6]))
            self._grids[token] = GeoBox((int(shape[0]), int(shape[1])), affine, CRS(code))
        return self._grids[token]


_PROJ = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson", "proj:shape", "proj:transform")


def raster_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Read how the numbers of an asset are stored, as STAC 1.0 (``raster:bands``) or 1.1 (``bands``) says it.

    Parameters
    ----------
    fields : dict
        Extra fields of the asset; ``cubekit:band`` tells the layer where several are described.

    Returns
    -------
    dict
        Those of ``data_type``, ``nodata``, ``scale``, ``offset`` that are stated.
    """
    layer = int(fields.get("cubekit:band", 1))
    layers = fields.get("raster:bands") or fields.get("bands") or [{}]
    own = layers[layer - 1] if layer <= len(layers) else layers[0]
    merged = {**fields, **own}
    found = {name: _first(merged.get(name), merged.get(f"raster:{name}")) for name in _RASTER}
    return {name: value for name, value in found.items() if value is not None}


_RASTER = ("data_type", "nodata", "scale", "offset")


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # STAC writes "nan", "inf" and "-inf" as text


def is_complete(form: Form) -> bool:
    """Tell whether a form says grid and type, so that its file needs no look before it is read."""
    return bool(form.dtype) and form.geobox is not _UNKNOWN_GRID


def read_headers(sources: list[Source]) -> list[Form]:
    """Fill in, from the headers of the files, what metadata does not say.

    Parameters
    ----------
    sources : list of Source
        With incomplete forms.

    Returns
    -------
    list of Form
        In the order of `sources`.

    Raises
    ------
    SourceError
        When a file cannot be opened.
    MetadataMismatchError
        When a file has no CRS, or lacks the band.
    """
    shown = None if len(sources) >= _WORTH_A_BAR else False
    with (
        progress("headers", len(sources), unit="files", enabled=shown) as advance,
        ThreadPoolExecutor(_HEADER_THREADS) as pool,
    ):
        forms = []
        for form in pool.map(read_header, sources):
            forms.append(form)
            advance()
    return forms


def read_header(source: Source) -> Form:
    """Return the form of one file as its header says it, where the metadata is silent.

    Parameters
    ----------
    source : Source
        With a form that may be incomplete.

    Returns
    -------
    Form
        Complete.

    Raises
    ------
    SourceError, MetadataMismatchError
        As :func:`read_headers`.
    """

    def look(file: "rasterio.DatasetReader") -> Form:
        form = source.form
        if form.band > file.count:
            raise MetadataMismatchError(
                f"{source.label}: the file has {file.count} bands, asked for {form.band}."
            )
        box = rio_geobox(file) if form.geobox is _UNKNOWN_GRID else form.geobox
        if not isinstance(box, GeoBox) or box.crs is None:
            raise MetadataMismatchError(
                f"{source.label}: neither the item (proj:code, proj:transform, proj:shape) nor the file "
                "says where it lies. Add these fields to the item."
            )
        own = file.nodatavals[form.band - 1]
        return replace(
            form,
            geobox=box,
            dtype=form.dtype or file.dtypes[form.band - 1],
            nodata=own if form.nodata is None else form.nodata,
        )

    return with_file(source, look)


def time_of(item: "pystac.Item") -> np.datetime64:
    """Return when an item was taken.

    Parameters
    ----------
    item : pystac.Item
        With ``datetime``, or with ``start_datetime``.

    Returns
    -------
    numpy.datetime64
        UTC, in nanoseconds; the start of a period.

    Raises
    ------
    CubeError
        For an item without any date.
    """
    moment = item.datetime or item.common_metadata.start_datetime
    if not isinstance(moment, datetime):
        raise CubeError(f"Item {item.id!r} has neither datetime nor start_datetime.")
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")
