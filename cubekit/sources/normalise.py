"""Bring STAC items of every version and provider to one form."""

import os
import warnings
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import pystac

from cubekit.errors import SourceError
from cubekit.sources.signing import unsigned

# A root link would make pystac fetch the root when an item is written.
_KEPT_LINKS: Final = frozenset({"self", "canonical", "collection", "license", "via", "derived_from"})
_WEB: Final = ("http://", "https://")
_GRID: Final = ("proj:shape", "proj:transform")
_CRS: Final = ("proj:code", "proj:wkt2", "proj:projjson")


def normalise_item(feature: Any, *, base: str | None = None) -> pystac.Item:
    """Turn a mapping into an item of the newest version, with absolute unsigned addresses.

    Parameters
    ----------
    feature : mapping
        A STAC item of any version; it is changed.
    base : str, optional
        Address or folder that relative addresses start from, where the item has no web address of its own.

    Returns
    -------
    pystac.Item
        Extensions migrated (``proj:epsg`` is ``proj:code``), CRS and grid copied from the item to assets that
        have none, old numbered ``eo:bands`` replaced by what they point to.

    Raises
    ------
    SourceError
        Naming the item and what is wrong with it.
    """
    name = feature.get("id") if isinstance(feature, dict) else None
    if (
        not isinstance(name, str)
        or feature.get("type") != "Feature"
        or not isinstance(feature.get("assets"), dict)
    ):
        raise SourceError(f"Not a STAC item (id {name!r}): it needs type 'Feature', an id and assets.")
    properties = feature.get("properties") or {}
    if not (properties.get("datetime") or properties.get("start_datetime")):
        raise SourceError(f"Item {name!r} has neither datetime nor start_datetime.")
    feature["links"] = _kept_links(feature.get("links"))
    try:
        with warnings.catch_warnings():  # pystac tells what it cannot migrate; nothing of it is used here
            warnings.simplefilter("ignore")
            item = pystac.Item.from_dict(feature, migrate=True, preserve_dict=False)
    except (
        Exception
    ) as error:  # pystac lets KeyError, ValueError, TypeError and others of its parsers through
        raise SourceError(f"Item {name!r} is not valid STAC: {type(error).__name__} {error}") from error
    _resolve_numbered_bands(item)
    _make_absolute(item, base)
    _spread_grid(item)
    return item


def _kept_links(links: Any) -> list[dict[str, Any]]:
    """Keep links that say where an item comes from, and only to the web; without signatures."""
    return [
        {**link, "href": unsigned(str(link["href"]))}
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict)
        and link.get("rel") in _KEPT_LINKS
        and str(link.get("href")).startswith(_WEB)
    ]


def _resolve_numbered_bands(item: pystac.Item) -> None:
    """Replace indices into the item's list of bands (STAC before 1.0) by the bands themselves."""
    listed = item.properties.get("eo:bands", [])
    for asset in item.assets.values():
        bands = asset.extra_fields.get("eo:bands")
        if isinstance(bands, list) and any(isinstance(band, int) for band in bands):
            chosen = [listed[band] for band in bands if isinstance(band, int) and band < len(listed)]
            asset.extra_fields["eo:bands"] = chosen


def _make_absolute(item: pystac.Item, base: str | None) -> None:
    start = next((str(link.target) for link in item.links if link.rel == "self"), base)
    for asset in item.assets.values():
        asset.href = unsigned(_joined(asset.href, start))
        for other in (asset.extra_fields.get("alternate") or {}).values():  # the same file elsewhere
            if isinstance(other, dict) and isinstance(other.get("href"), str):
                other["href"] = unsigned(other["href"])


def _joined(href: str, base: str | None) -> str:
    if base is None or "://" in href or href.startswith("<"):
        return href
    if base.startswith(_WEB):
        return urljoin(base, href)
    return os.path.normpath(Path(base) / href)  # an absolute one stays


def _spread_grid(item: pystac.Item) -> None:
    """Copy CRS and grid from the item to its assets: the specification lets assets inherit them."""
    for asset in item.assets.values():
        own = asset.extra_fields
        if not any(own.get(key) for key in _CRS):
            own |= {key: item.properties[key] for key in _CRS if item.properties.get(key)}
        if not any(own.get(key) for key in _GRID):
            own |= {key: item.properties[key] for key in _GRID if item.properties.get(key)}
