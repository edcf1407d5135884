"""Requests to catalogues with limits that act: connect and read time, retries with back-off, size."""

import json
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry

from cubekit.errors import SearchError
from cubekit.security import redact

TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and seconds of silence while reading."""

RETRY_STATUSES: Final = (408, 429, 500, 502, 503, 504)
"""Answers worth asking again for."""

MAX_JSON_BYTES: Final = 512 * 2**20
"""Largest document that is read into memory."""


def retry_policy(*, total: int = 4, backoff: float = 0.5, longest_wait: float = 60.0) -> Retry:
    """Say what is asked again, and how long to wait.

    Parameters
    ----------
    total : int, optional
        Further tries after the first.
    backoff : float, optional
        Seconds before the second further try; doubled after each.
    longest_wait : float, optional
        Cap on any wait in seconds, one asked for by the server (``Retry-After``) included.

    Returns
    -------
    urllib3.Retry
        For all methods: a STAC search is a POST that changes nothing.
    """
    return _CappedRetry(
        total=total,
        backoff_factor=backoff,
        backoff_max=longest_wait,
        backoff_jitter=backoff / 2,
        status_forcelist=RETRY_STATUSES,
        allowed_methods=None,
        respect_retry_after_header=True,
        raise_on_status=False,
    )


class _CappedRetry(Retry):
    """Retry whose waits end, whatever the server asks for."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, self.backoff_max)


def get_json(url: str) -> Any:
    """Read a JSON document.

    Parameters
    ----------
    url : str
        http(s) address.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    SearchError
        Naming the address (without query), what was answered, and the next step.
    """
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry_policy()))
        session.mount("https://", HTTPAdapter(max_retries=retry_policy()))
        try:
            with session.get(url, timeout=TIMEOUT, stream=True) as answer:
                answer.raise_for_status()
                return json.loads(_body(answer))
        except (requests.RequestException, ValueError) as error:
            raise SearchError(f"{redact(url)} gave no JSON: {redact(error)}") from None


def _body(answer: requests.Response) -> bytes:
    parts, size = [], 0
    for part in answer.iter_content(2**20):
        size += len(part)
        if size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
