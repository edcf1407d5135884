"""Byte ranges of files on the web: one pool of connections, whole answers or errors, checked redirects."""

import os
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import certifi
import urllib3

from cubekit.security import check_href, redact

CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 20.0
"""Longest wait for the next bytes of an answer."""

MAX_WHOLE: Final = 64 * 2**20
"""Largest file that is read whole from a server that does not know ranges."""

PIECE_BYTES: Final = 256 * 2**10
"""What is handed on at once of a body that is still arriving: a tile or so."""

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 5
_CONNECTIONS: Final = 64


class Answer(NamedTuple):
    """Bytes of a file."""

    start: int
    """Where they begin: 0 for servers that send the whole file."""

    content: bytes
    size: int
    """Of the whole file."""

    etag: str
    """What changes with the content; empty where the server gives none, or a weak one."""


class HttpError(OSError):
    """The server refused, broke off, or sent something else; messages carry no query string.

    Parameters
    ----------
    message : str
        What happened.
    wait : float, optional
        Seconds that the server asks to wait.
    """

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds that the server asks to wait (``Retry-After``); 0 where it does not."""


def usable() -> bool:
    """Tell whether our own client may be used: GDAL knows proxies and its own credentials, we do not."""
    own = {"GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_RETRY_DELAY", "GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_TIMEOUT"}
    told = any(name.startswith("GDAL_HTTP_") and name not in own for name in os.environ)
    return not told and not ({"http", "https"} & urllib.request.getproxies().keys())


def get_range(url: str, start: int, stop: int, *, take: Callable[[Answer], None] | None = None) -> Answer:
    """Ask for a part of a file.

    Parameters
    ----------
    url : str
        Signed, if need be; http or https.
    start, stop : int
        First byte, and one past the last; a shorter file gives less.
    take : callable, optional
        Gets the bytes piece by piece, as soon as they are there, each with its place; what it raises ends the
        reading.

    Returns
    -------
    Answer
        At least the part, as far as the file goes; without content where `take` got it.

    Raises
    ------
    HttpError
        With the status as ``response code: 503``, or what broke off.
    """
    headers, origin = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}, url
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            answer = _pool(os.getpid()).request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise HttpError(_said(error)) from None
        try:
            if answer.status not in _REDIRECTS:
                return _answer(answer, start, stop, take)
            location = answer.headers.get("Location", "")
            answer.drain_conn()
        except urllib3.exceptions.HTTPError as error:
            raise HttpError(_said(error)) from None
        finally:
            answer.release_conn()
        url = _redirected(url, location, origin)
    raise HttpError(f"more than {_MOST_REDIRECTS} redirects")


def _answer(
    answer: urllib3.BaseHTTPResponse, start: int, stop: int, take: Callable[[Answer], None] | None
) -> Answer:
    if answer.status not in {200, 206}:
        asked = answer.headers.get("Retry-After", "")
        answer.drain_conn()
        raise HttpError(
            f"HTTP response code: {answer.status}", wait=float(asked) if asked.isdecimal() else 0.0
        )
    etag = answer.headers.get("ETag", "")
    etag = "" if etag.startswith("W/") else etag
    if answer.status == 206:  # noqa: PLR2004
        first, size = _content_range(answer.headers.get("Content-Range", ""), start)
        content, found = b"", 0
        if take is None:
            content = answer.read()
            found = len(content)
        elif first == start:
            found = _pieces(answer, Answer(start, b"", size, etag), take)
        if first != start or found < min(stop, size) - start:
            answer.close()
            raise HttpError(f"asked for bytes {start} to {stop}, got {found} from {first}")
        return Answer(start, content, size, etag)
    size = int(answer.headers.get("Content-Length") or 0)
    if size > MAX_WHOLE:
        answer.close()
        raise HttpError(f"the server does not know ranges, and the file has {size:,} bytes")
    content = answer.read()
    kind = answer.headers.get("Content-Type", "").split(";")[0]
    if kind == "text/html":
        raise HttpError("not recognized as a raster: the server sent text/html")
    whole = Answer(0, content, len(content), etag)
    if take is not None:
        take(whole)
    return whole


def _pieces(answer: urllib3.BaseHTTPResponse, empty: Answer, take: Callable[[Answer], None]) -> int:
    """Hand on a body as it arrives, and count its bytes."""
    place = empty.start
    try:
        while piece := answer.read(PIECE_BYTES):
            take(empty._replace(start=place, content=piece))
            place += len(piece)
    except BaseException:
        answer.close()  # what is still to come must not be taken for the answer to another request
        raise
    return place - empty.start


def _content_range(text: str, start: int) -> tuple[int, int]:
    """Return the first byte and the size of the file as ``bytes 0-99/1234`` says them."""
    try:
        span, size = text.removeprefix("bytes ").split("/")
        return int(span.split("-")[0]), int(size)
    except ValueError:
        raise HttpError(f"the answer to bytes from {start} does not say its range ({text[:40]!r})") from None


def _redirected(url: str, location: str, origin: str) -> str:
    """Return where a redirect leads, unless data may not lead there."""
    target = urljoin(url, location)
    if urlsplit(target).scheme not in {"http", "https"}:
        raise HttpError("redirected to an address that is not http(s)")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise HttpError("redirected from https to http")
    check_href(target, origin=origin)
    return target


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {redact(error)}"


@lru_cache(maxsize=1)
def _pool(process: int) -> urllib3.PoolManager:  # noqa: ARG001  (a forked process gets connections of its own)
    return urllib3.PoolManager(
        num_pools=16,
        maxsize=_CONNECTIONS,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENT_SECONDS),
        ca_certs=os.environ.get("CURL_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
