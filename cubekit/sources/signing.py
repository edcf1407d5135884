"""Who turns an unsigned address into one that can be read: signers, looked up by name at read time.

Items, graphs and stores carry unsigned addresses and the signer's name only; the reader asks for the signer
in the process that reads.
"""

import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cubekit.errors import SourceError, UnknownNameError, did_you_mean
from cubekit.security import redact
from cubekit.sources.access import Access
from cubekit.sources.buckets import CREDENTIALS, bucket_access, is_bucket
from cubekit.sources.tokens import Token, TokenCache

SIGN_TIMEOUT: Final = 60.0
"""Seconds that one request for a token may take, retries included."""

_SIGNATURE_KEYS: Final = frozenset(
    {"sig", "se", "st", "sp", "sv", "sr", "ske", "sks", "skt", "skv", "skoid", "sktid", "spr", "sip", "si"}
)


class Signer(Protocol):
    """Makes an address readable, by a short-lived token as a query, or by settings that go with it."""

    def __call__(self, href: str, *, fresh: bool = False) -> Access | str:
        """Return the signed address; ``fresh`` drops a cached token first, for use after a 401 or 403."""


def access(name: str | None, href: str, *, fresh: bool = False) -> Access:
    """Return how to open a file now; called by the reader, in the process that reads.

    Parameters
    ----------
    name : str or None
        Of the signer.
    href : str
        Unsigned address, or path.
    fresh : bool, optional
        Whether to drop a cached token first, for use after a 401 or 403.

    Returns
    -------
    Access
        Signed. Objects in buckets that the signer leaves alone are opened with the credentials of this
        process, see `cubekit.sources.buckets.bucket_access`.

    Raises
    ------
    SourceError
        When no token or credential is to be had; says what to set.
    UnknownNameError
        For an unknown signer.
    """
    signed = signer(name)(href, fresh=fresh)
    if isinstance(signed, Access):
        return signed
    return bucket_access(signed) if is_bucket(signed) else Access(signed)


def unsigned(href: str) -> str:
    """Take a signature off an address.

    Parameters
    ----------
    href : str
        Address, signed or not.

    Returns
    -------
    str
        The address without Azure SAS, AWS and Google signature parameters; other parameters stay.
    """
    parts = urlsplit(href)
    if parts.scheme not in {"http", "https"} or not parts.query:
        return href
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    azure = "sig" in names
    kept = [
        (name, value)
        for name, value in pairs
        if not (azure and name.lower() in _SIGNATURE_KEYS)
        and not name.lower().startswith(("x-amz-", "x-goog-"))
    ]
    return href if len(kept) == len(pairs) else urlunsplit(parts._replace(query=urlencode(kept)))


def signer(name: str | None) -> Signer:
    """Look a signer up by the name that a provider's record gives.

    Parameters
    ----------
    name : str or None
        ``"planetary-computer"``, ``"cdse"``, ``"usgs-landsat"``, ``"earthdata"``, ``"azure-sas"``,
        ``"none"``, None, or a name given to `register_signer`.

    Returns
    -------
    Signer
        Safe to call from several threads.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    """
    key = name or "none"
    if key not in _SIGNERS:
        raise UnknownNameError(f"No signer named {key!r}. {did_you_mean(key, _SIGNERS)}")
    return _SIGNERS[key]


def register_signer(name: str, sign: Signer) -> None:
    """Make a signer known in this process; worker processes must do the same, as in a Dask preload.

    Parameters
    ----------
    name : str
        What a provider's ``signer`` key says.
    sign : Signer
        Called for every file that is opened; it does its own caching.
    """
    _SIGNERS[name] = sign


def _leave(href: str, *, fresh: bool = False) -> str:  # noqa: ARG001  (part of the protocol)
    return href


_TOKENS: Final = TokenCache()
# One token request at a time: the service answers bursts with 429.
_PLANETARY_COMPUTER_LOCK: Final = threading.Lock()


def _planetary_computer(href: str, *, fresh: bool = False) -> str:
    """Sign with a token for the container; public containers and other hosts need none."""
    bare = unsigned(href)
    parts = urlsplit(bare)
    container = parts.path.lstrip("/").split("/")[0]
    account = (parts.hostname or "").removesuffix(_AZURE)
    if parts.scheme != "https" or not (parts.hostname or "").endswith(_AZURE) or not container:
        return bare
    if account in _OPEN_ACCOUNTS:
        return bare

    def ask() -> Token:
        with _PLANETARY_COMPUTER_LOCK:
            return _within(SIGN_TIMEOUT, lambda: _ask_package(account, container), bare)

    token = _TOKENS.get((account, container), ask, fresh=fresh)
    return f"{bare}{'&' if parts.query else '?'}{token}"


_AZURE: Final = ".blob.core.windows.net"
_OPEN_ACCOUNTS: Final = frozenset(
    {"ai4edatasetspublicassets"}
)  # thumbnails; the service has no tokens for it


def _ask_package(account: str, container: str) -> Token:
    """Ask the token service, with the retries and the subscription key of the package."""
    with warnings.catch_warnings():  # its settings classes use a form that pydantic 2 warns about on import
        warnings.simplefilter("ignore", DeprecationWarning)
        from planetary_computer import sas
    for cached in [url for url in sas.TOKEN_CACHE if url.endswith(f"/{account}/{container}")]:
        sas.TOKEN_CACHE.pop(cached, None)  # it is kept here instead, by a clock that does not jump
    token = sas.get_token(account, container)
    return Token(str(token.token), (token.expiry - datetime.now(UTC)).total_seconds())


def _within(seconds: float, work: Callable[[], Token], href: str) -> Token:
    """Run work that has no time limit of its own in a thread that may be left behind."""
    done: list[Token | Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # noqa: BLE001  (handed to the caller)
            done.append(error)

    thread = threading.Thread(target=run, daemon=True, name="cubekit-sign")
    thread.start()
    thread.join(seconds)
    if not done:
        raise SourceError(
            f"No token for {redact(href)} within {seconds:.0f} s: the token service hangs; try later."
        )
    if isinstance(done[0], Exception):
        raise SourceError(f"No token for {redact(href)}: {redact(done[0])}") from None
    return done[0]


_SIGNERS: dict[str, Signer] = {"none": _leave, "planetary-computer": _planetary_computer, **CREDENTIALS}
