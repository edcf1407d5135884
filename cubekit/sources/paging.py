"""Pages of a STAC API, read with a guard: no loop, no stranger, no end at an empty page, no wait for ever."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from pystac.link import Link
from pystac_client.stac_api_io import StacApiIO

from cubekit.errors import SearchError, SecurityError
from cubekit.security import redact
from cubekit.sources.web import TIMEOUT, retry_policy

MAX_PAGES: Final = 10_000
MAX_EMPTY_PAGES: Final = 20
"""Pages without items in a row after which a search is given up."""

MAX_SECONDS: Final = 1800.0
"""Seconds that all pages of a search may take together."""

_log = logging.getLogger(__name__)


class GuardedPages(StacApiIO):
    """The client's reader with retries on every method and a guard on paging.

    Parameters
    ----------
    timeout : tuple of float, optional
        Seconds to connect and to wait for data. `pystac_client.Client.open` must be given the same: it
        overwrites the one of its reader.
    retries : int, optional
        Further tries after the first, for failed connections and answers that ask to come back later.
    """

    def __init__(self, *, timeout: tuple[float, float] = TIMEOUT, retries: int = 4) -> None:
        super().__init__(timeout=timeout, max_retries=retry_policy(total=retries))

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield pages that hold items.

        Parameters
        ----------
        url : str
            Search endpoint.
        method : str, optional
            ``"GET"`` or ``"POST"``.
        parameters : dict, optional
            The query.

        Yields
        ------
        dict
            Feature collections. Empty pages are passed over while there is a next one.

        Raises
        ------
        SearchError
            If pages repeat, never end, or are no feature collections.
        SecurityError
            If the next page is said to lie on another host.
        """
        page = self.read_json(url, method=method, parameters=parameters)
        seen: set[str] = set()
        empty, deadline = 0, time.monotonic() + MAX_SECONDS
        for number in range(1, MAX_PAGES + 1):
            features = _features(page, url)
            empty = 0 if features else empty + 1
            if features:
                yield page
            following = _next_link(page, url)
            if following is None:
                return
            if empty:
                _log.warning("%s: page %d holds no item but names a next one; going on.", redact(url), number)
            _check_next(following, url, seen, empty=empty, late=time.monotonic() > deadline)
            page = self.read_json(Link.from_dict(following), parameters=parameters)
        raise SearchError(f"{redact(url)}: more than {MAX_PAGES} pages; narrow the search or give max_items.")


def _features(page: Any, url: str) -> list[Any]:
    features = page.get("features") if isinstance(page, dict) else None
    if not isinstance(features, list):
        raise SearchError(f"{redact(url)} answered a search with no list of features; is it a STAC API?")
    return features


def _next_link(page: dict[str, Any], url: str) -> dict[str, Any] | None:
    """Return the link to the next page, made absolute."""
    links = page.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "next" and link.get("href"):
            return {**link, "href": urljoin(url, str(link["href"]))}
    return None


def _check_next(link: dict[str, Any], url: str, seen: set[str], *, empty: int, late: bool) -> None:
    """Refuse to follow a link that leads elsewhere or in circles, or to go on without end."""
    own, other = urlsplit(url).hostname, urlsplit(link["href"]).hostname
    if own != other:
        raise SecurityError(
            f"{redact(url)} says that its next page lies on another host, {other!r}: not followed."
        )
    page = json.dumps([link["href"], link.get("method"), link.get("body")], sort_keys=True)
    if page in seen:
        raise SearchError(
            f"{redact(url)}: pages repeat after {len(seen)}; the API is faulty, narrow the search."
        )
    seen.add(page)
    if empty >= MAX_EMPTY_PAGES:
        raise SearchError(f"{redact(url)}: {empty} empty pages in a row; narrow the search.")
    if late:
        raise SearchError(f"{redact(url)}: no end of pages after {MAX_SECONDS:.0f} s; narrow the search.")
