"""Search of STAC APIs."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pystac
from pystac_client import Client, ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError

from cubekit.catalog import Catalog, Provider, open_catalog
from cubekit.errors import EmptySearchError, OptionError, SearchError, UnknownNameError, did_you_mean
from cubekit.security import redact
from cubekit.sources.items import Items, assemble_items, nominal_time, parse_items
from cubekit.sources.paging import GuardedPages
from cubekit.sources.query import DatetimeLike, Query, check_query
from cubekit.sources.versions import newest_versions
from cubekit.sources.web import TIMEOUT
from cubekit.typing import SomeGeometry

PAGE_SIZE: Final = 100
MAX_ITEMS: Final = 200_000
"""Items after which an unlimited search is refused as a mistake."""

_log = logging.getLogger(__name__)


def search(
    collection: str,
    *,
    bbox: Sequence[float] | None = None,
    intersects: "SomeGeometry | None" = None,
    datetime: DatetimeLike | None = None,
    provider: str = "earth-search",
    url: str | None = None,
    query: Mapping[str, Any] | None = None,
    max_items: int | None = None,
) -> Items:
    """Find scenes of a collection.

    Parameters
    ----------
    collection : str
        Canonical name in the catalog, such as ``"sentinel-2-l2a"``; with ``url=`` any id that the API knows.
    bbox : sequence of float, optional
        West, south, east, north in degrees (WGS 84); west > east crosses 180 degrees.
    intersects : shapely geometry or GeoJSON mapping, optional
        Area in WGS 84, instead of ``bbox``.
    datetime : str, datetime or pair, optional
        ``"2023"``, ``"2023-05/2023-09"`` (ends included), ``"2023-05-01/.."``.
    provider : str, optional
        Where to search, by name in the catalog.
    url : str, optional
        Root of another STAC API, instead of a provider.
    query : mapping, optional
        Conditions on properties, such as ``{"eo:cloud_cover": {"lt": 20}}``, for APIs with the query
        extension.
    max_items : int, optional
        Stop after so many.

    Returns
    -------
    Items
        Sorted by time. Of items listed twice and of older processing versions one stays, see
        `cubekit.sources.versions.newest_versions`.

    Raises
    ------
    EmptySearchError
        If nothing matches; echoes the search.
    UnknownNameError
        If collection or provider is unknown, with the nearest name.
    OptionError
        If an argument makes no sense.
    SearchError
        If the API does not answer in time after retries, or answers with something else than items.
    SecurityError
        If the API leads to another host.
    """
    checked = check_query(bbox=bbox, intersects=intersects, datetime=datetime, properties=query)
    if max_items is not None and max_items < 1:
        raise OptionError(f"max_items={max_items} must be at least 1.")
    catalog = open_catalog()
    place = _place(catalog, provider, url)
    id_ = _collection_id(catalog, place, collection)
    features = _collect(place.url, id_, checked, max_items)
    scenes, dropped = newest_versions(parse_items(features, base=place.url))
    where = f"{id_} at {redact(place.url)}"
    if dropped:
        _log.info(
            "%s: %d repeated or superseded item(s) left out: %s", where, len(dropped), [d.id for d in dropped]
        )
    if not scenes:
        raise EmptySearchError(
            f"No items of {where} for {checked.shown or 'any place and time'}. Widen the search; bbox is "
            "west, south, east, north."
        )
    ordered = tuple(sorted(scenes, key=_by_time))
    items = assemble_items(ordered, catalog, origin=place.url)
    record = catalog.match(collection) or items.collection
    return replace(items, collection=record, signer=place.signer or items.signer)


def _by_time(scene: pystac.Item) -> tuple[Any, str]:
    return nominal_time(scene), scene.id


def _place(catalog: Catalog, provider: str, url: str | None) -> Provider:
    """Return the provider, or a record made up for an address."""
    if url is None:
        return catalog.provider(provider)
    if not url.startswith(("http://", "https://")):
        raise OptionError(f"url={redact(url)!r} must be the http(s) address of a STAC API.")
    known = next((p for p in catalog.providers.values() if p.url.rstrip("/") == url.rstrip("/")), None)
    return known or Provider(name=redact(url), url=url)


def _collection_id(catalog: Catalog, place: Provider, collection: str) -> str:
    record = catalog.match(collection)
    if record and record.name in place.collections:
        return place.collections[record.name]
    if place.name not in catalog.providers:
        return collection
    if record is None:
        raise UnknownNameError(
            f"No collection named {collection!r}. {did_you_mean(collection, catalog.collections)} "
            f"Any id of an API can be searched with url=, here url={place.url!r}."
        )
    others = [p.name for p in catalog.providers.values() if record.name in p.collections]
    raise UnknownNameError(
        f"Provider {place.name} does not offer {record.name}. "
        + (
            f"Others do: provider={' or '.join(map(repr, others))}."
            if others
            else "None of the known ones does."
        )
    )


def _collect(url: str, id_: str, query: Query, max_items: int | None) -> list[Any]:
    """Read all pages; errors of the client become ours, without secrets."""
    features: list[Any] = []
    try:
        with warnings.catch_warnings():  # conformance is checked where it matters
            warnings.simplefilter("ignore")
            client = Client.open(url, stac_io=GuardedPages(), timeout=TIMEOUT)
            _check_conformance(client, url, query)
            for page in _pages(client, id_, query, max_items):
                features += page["features"]
                if max_items and len(features) >= max_items:
                    return features[:max_items]
                if len(features) > MAX_ITEMS:
                    raise SearchError(f"{redact(url)}: more than {MAX_ITEMS} items; narrow the search.")
    except APIError as error:
        status = getattr(error, "status_code", None)
        said = f"status {status}: " if status else ""
        raise SearchError(
            f"{redact(url)} could not be searched: {said}{redact(error)[:500]}. Check the address and the "
            "connection, and try again."
        ) from None
    except (ValueError, KeyError, TypeError, pystac.STACError, ClientTypeError, NotImplementedError) as error:
        if isinstance(error, SearchError):
            raise
        raise SearchError(f"{redact(url)} does not answer as a STAC API: {redact(error)[:500]}") from None
    return features


def _check_conformance(client: Client, url: str, query: Query) -> None:
    if client.has_conforms_to() and not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
        raise SearchError(f"{redact(url)} offers no item search.")
    if query.properties and not client.conforms_to(ConformanceClasses.QUERY):
        raise SearchError(
            f"{redact(url)} does not offer the query extension: leave out query= and filter the items."
        )


def _pages(client: Client, id_: str, query: Query, max_items: int | None) -> Iterator[dict[str, Any]]:
    for box in query.boxes:
        found = client.search(
            collections=[id_],
            bbox=box,
            intersects=query.geometry,
            datetime=query.datetime,
            query=dict(query.properties) if query.properties else None,
            limit=min(PAGE_SIZE, max_items or PAGE_SIZE),
        )
        yield from found.pages_as_dicts()
