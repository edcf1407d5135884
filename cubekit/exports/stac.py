"""A STAC item that describes an exported GeoTIFF: grid, bands and classes, read from the file itself."""

import json
import math
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pystac

from cubekit.errors import ExportError
from cubekit.exports.cog import CLASSES_TAG
from cubekit.exports.variable import TIME_TAGS

EXTENSIONS = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
}

EDGE_POINTS = 16
"""Points along each edge of a footprint."""


def stac_item(
    file: str | PathLike[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    title: str | None = None,
) -> pystac.Item:
    """Describe an exported GeoTIFF as a STAC item.

    Parameters
    ----------
    file : path
        GeoTIFF, such as :func:`cubekit.exports.cog.write_cog` writes.
    start, end : datetime.datetime, optional
        Time that the map stands for. Default: what the file says.
    title : str, optional
        Default: what the file says.

    Returns
    -------
    pystac.Item
        With the projection extension, and on the asset ``data`` the bands with type, nodata, scale, offset
        and classes. The asset's address is the file's name: save the item beside the file.

    Raises
    ------
    ExportError
        If the file cannot be read, has no CRS, or neither it nor the caller says which time it stands for.
    """
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(file) as raster:
            return _item(Path(file), raster, (start, end), title)
    except RasterioError as error:
        raise ExportError(f"{file} cannot be described: {error}") from error


def save_item(item: pystac.Item, target: str | PathLike[str]) -> Path:
    """Write an item as JSON; its assets keep the addresses relative to that file.

    Parameters
    ----------
    item : pystac.Item
        Item to write.
    target : path
        Target, ``.json``.

    Returns
    -------
    pathlib.Path
        The file.
    """
    written = Path(target)
    draft = written.with_name(f".{written.name}.part")
    draft.write_text(json.dumps(item.to_dict(include_self_link=False), indent=2, ensure_ascii=False), "utf-8")
    return draft.replace(written)


def _item(
    file: Path, raster: Any, times: tuple[datetime | None, datetime | None], title: str | None
) -> pystac.Item:
    """Build the item of an open raster."""
    if raster.crs is None:
        raise ExportError(f"{file} has no CRS; a STAC item needs to know where the map lies.")
    ring = _footprint(raster)
    start, end = _times(file, raster.tags(), times)
    properties: dict[str, Any] = _projection(raster)
    if title or raster.tags().get("title"):
        properties["title"] = title or raster.tags()["title"]
    if raster.tags().get("model"):
        properties["cubekit:model"] = raster.tags()["model"]
    item = pystac.Item(
        id=file.stem,
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=[pick(place[axis] for place in ring) for pick in (min, max) for axis in (0, 1)],
        datetime=start if start == end else None,
        start_datetime=start,
        end_datetime=end,
        properties=properties,
    )
    asset = pystac.Asset(file.name, media_type=pystac.MediaType.COG, roles=["data"])
    asset.extra_fields["bands"] = _bands(raster)
    item.add_asset("data", asset)
    used = EXTENSIONS if CLASSES_TAG in raster.tags() else EXTENSIONS.keys() - {"classification"}
    item.stac_extensions = sorted(EXTENSIONS[key] for key in used)
    return item


def _footprint(raster: Any) -> list[list[float]]:
    """Return the outline of a raster in degrees, counter-clockwise; edges bend with the projection."""
    from rasterio.warp import transform

    along = np.arange(EDGE_POINTS) / EDGE_POINTS
    zero, one = np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS)
    columns = np.concatenate([zero, along, one, 1 - along, [0]]) * raster.width
    rows = np.concatenate([along, one, 1 - along, zero, [0]]) * raster.height
    a, b, c, d, e, f = raster.transform[:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    lon, lat = transform(raster.crs, "EPSG:4326", x, y)
    return [[round(east, 7), round(north, 7)] for east, north in zip(lon, lat, strict=True)]


def _times(
    file: Path, tags: dict[str, str], given: tuple[datetime | None, datetime | None]
) -> tuple[datetime, datetime]:
    """Return the time that a map stands for."""
    told = [tags.get(tag) for tag in TIME_TAGS]
    read = [None if text is None else datetime.fromisoformat(text) for text in told]
    times = [one or other for one, other in zip(given, read, strict=True)]
    start, end = times[0] or times[1], times[1] or times[0]
    if start is None or end is None:
        raise ExportError(f"{file} does not say which time it stands for: pass start= and end=.")
    return _utc(start), _utc(end)


def _utc(time: datetime) -> datetime:
    """Read a time without zone as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _projection(raster: Any) -> dict[str, Any]:
    """Return the fields of the projection extension."""
    code = raster.crs.to_authority()
    named = {"proj:code": None, "proj:wkt2": raster.crs.to_wkt(version="WKT2_2019")}
    return ({"proj:code": ":".join(code)} if code else named) | {
        "proj:shape": list(raster.shape),
        "proj:transform": list(raster.transform)[:6],
        "proj:bbox": list(raster.bounds),
    }


def _bands(raster: Any) -> list[dict[str, Any]]:
    """Return the bands with their coding and classes."""
    table = json.loads(raster.tags().get(CLASSES_TAG, "[]"))
    bands = []
    for number, (name, kind, nodata, scale, offset) in enumerate(
        zip(raster.descriptions, raster.dtypes, raster.nodatavals, raster.scales, raster.offsets, strict=True)
    ):
        band: dict[str, Any] = {"name": name or f"band {number + 1}", "data_type": kind}
        if nodata is not None:
            band["nodata"] = "nan" if math.isnan(nodata) else nodata
        if (scale, offset) != (1.0, 0.0):
            band |= {"raster:scale": scale, "raster:offset": offset}
        if table:
            band["classification:classes"] = [_class(row) for row in table]
        bands.append(band)
    return bands


def _class(row: dict[str, Any]) -> dict[str, Any]:
    """Return one class of the classification extension; names are identifiers, titles are for people."""
    name = "".join(char if char.isalnum() and char.isascii() else "_" for char in row["name"].lower())
    return {
        "value": row["value"],
        "name": name,
        "title": row["name"],
        "color_hint": row["colour"].removeprefix("#").upper(),
    }
