"""A saved model from the web: bounded in size and time, checked by digest, never redirected elsewhere."""

import hashlib
import json
import tempfile
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from cubekit.errors import BundleError
from cubekit.security import check_href, redact
from cubekit.sources.web import TIMEOUT, retry_policy

RECORD, WEIGHTS = "model.json", "weights.safetensors"
MAX_RECORD = 16 * 2**20
MAX_WEIGHTS = 8 * 2**30
MAX_REDIRECTS = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_url(text: str) -> bool:
    """Tell addresses from paths.

    Parameters
    ----------
    text : str
        Either.

    Returns
    -------
    bool
        Whether it names a scheme.
    """
    return "://" in text


def download_model(url: str, *, sha256: str | None = None) -> Path:
    """Fetch a saved model into a temporary folder.

    Parameters
    ----------
    url : str
        https address of the folder, or of its ``model.json``; http is taken from this machine only.
    sha256 : str, optional
        Digest of the weights, from a place you trust: the one in the record comes from the same server.

    Returns
    -------
    pathlib.Path
        Folder with record and weights.

    Raises
    ------
    BundleError
        If the address is not https, redirects to another scheme, answers with more bytes than stated or
        allowed, or the digest is another.
    """
    base = url.removesuffix(RECORD).rstrip("/") + "/"
    _check_scheme(base, base)
    record = _fetch(base + RECORD, limit=MAX_RECORD)
    try:
        stated = json.loads(record)["assets"]["weights"]
        size, digest = int(stated["file:size"]), str(stated["file:checksum"]).removeprefix("1220")
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{redact(base + RECORD)} is no record of a model: it says no size and digest of the weights."
        ) from error
    if sha256 is not None and digest != sha256.lower():
        raise BundleError(f"{redact(base)} has weights of SHA-256 {digest}, you expect {sha256}.")
    if not 0 < size <= MAX_WEIGHTS:
        raise BundleError(f"{redact(base)}: {size} bytes of weights, expected 1 to {MAX_WEIGHTS}.")
    weights = _fetch(base + WEIGHTS, limit=size)
    if len(weights) != size or hashlib.sha256(weights).hexdigest() != digest:
        raise BundleError(
            f"{redact(base + WEIGHTS)} is not the file of its record: {len(weights)} bytes of {size}, "
            f"SHA-256 {hashlib.sha256(weights).hexdigest()}, expected {digest}. Try again, or ask its owner."
        )
    folder = Path(tempfile.mkdtemp(prefix="cubekit-download-"))
    (folder / RECORD).write_bytes(record)
    (folder / WEIGHTS).write_bytes(weights)
    return folder


def _check_scheme(url: str, origin: str) -> None:
    """Raise unless an address may be asked."""
    parts, local = urlsplit(url), urlsplit(origin).hostname in _LOOPBACK
    if parts.scheme == "https" or (parts.scheme == "http" and local and parts.hostname in _LOOPBACK):
        return
    raise BundleError(
        f"{redact(url)} is not https: models are fetched over https only, redirects included. Download it "
        "yourself and load the folder."
    )


def _fetch(url: str, *, limit: int) -> bytes:
    """Read a file of at most so many bytes, following redirects one by one."""
    asked = url
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry_policy(total=2)))
        for _ in range(MAX_REDIRECTS):
            try:
                with session.get(asked, timeout=TIMEOUT, stream=True, allow_redirects=False) as answer:
                    if not answer.is_redirect:
                        answer.raise_for_status()
                        return _body(answer, asked, limit)
                    asked = urljoin(asked, answer.headers["location"])
            except requests.RequestException as error:
                raise BundleError(f"{redact(asked)} gave no model: {redact(error)}") from None
            _check_scheme(asked, url)
            check_href(asked, origin=url)
    raise BundleError(f"{redact(url)} redirects more than {MAX_REDIRECTS} times.")


def _body(answer: requests.Response, url: str, limit: int) -> bytes:
    """Read an answer; stop when it is longer than it may be."""
    parts, size = [], 0
    for part in answer.iter_content(2**20):
        size += len(part)
        if size > limit:
            raise BundleError(
                f"{redact(url)} holds more than the {limit} bytes that it may. It was not kept."
            )
        parts.append(part)
    return b"".join(parts)
