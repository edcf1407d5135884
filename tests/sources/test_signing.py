"""Signers: the Planetary Computer's package against a local token service."""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cubekit.errors import SourceError, UnknownNameError
from cubekit.sources import signing
from cubekit.sources.signing import access, register_signer, signer, unsigned

BLOB = "https://acc.blob.core.windows.net/c1/folder/B04.tif"


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        (BLOB, BLOB),
        (f"{BLOB}?st=a&se=b&sp=rl&sv=1&sr=c&skoid=x&sig=SECRET", BLOB),
        (f"{BLOB}?keep=1&sv=1&sig=SECRET", f"{BLOB}?keep=1"),
        (
            "https://e.com/x.tif?st=1&se=2",
            "https://e.com/x.tif?st=1&se=2",
        ),  # no signature: someone else's keys
        ("https://b.s3.amazonaws.com/x?X-Amz-Signature=SECRET&x-amz-date=1", "https://b.s3.amazonaws.com/x"),
        ("https://storage.googleapis.com/b/x?X-Goog-Signature=SECRET", "https://storage.googleapis.com/b/x"),
        ("/local/x.tif?sig=1", "/local/x.tif?sig=1"),
    ],
)
def test_signatures_are_taken_off_and_nothing_else(href: str, expected: str) -> None:
    assert unsigned(href) == expected


def test_no_signer_leaves_addresses_alone() -> None:
    for name in (None, "none"):
        assert signer(name)(BLOB) == BLOB
    with pytest.raises(UnknownNameError, match="Did you mean 'planetary-computer'"):
        signer("planetary-computers")


def test_own_signers_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(signing._SIGNERS, "mine", signer(None))  # noqa: SLF001  (to undo it afterwards)

    def sign(href: str, *, fresh: bool = False) -> str:
        return f"{href}?token={'new' if fresh else 'old'}"

    register_signer("mine", sign)
    assert signer("mine")("https://e.com/x", fresh=True) == "https://e.com/x?token=new"


def address_of(href: str, *, fresh: bool = False) -> str:
    return access("planetary-computer", href, fresh=fresh).address


class TokenService:
    """Gives numbered tokens; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lifetime = timedelta(hours=1)
        self.status = 200
        self.delay = 0.0


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    tokens_given = TokenService()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens_given.asked.append(self.path)
            time.sleep(tokens_given.delay)
            expiry = (datetime.now(UTC) + tokens_given.lifetime).isoformat()
            content: Any = {
                "msft:expiry": expiry,
                "token": f"se={len(tokens_given.asked)}&sig=SECRET{len(tokens_given.asked)}",
            }
            self.send_response(tokens_given.status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with warnings.catch_warnings():  # its settings classes use a form that pydantic 2 warns about on import
        warnings.simplefilter("ignore", DeprecationWarning)
        from planetary_computer import sas, settings

    signing._TOKENS.clear()  # noqa: SLF001  (each test starts without tokens)

    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    monkeypatch.setattr(
        settings.Settings.get(), "sas_url", f"http://127.0.0.1:{server.server_address[1]}/token"
    )
    yield tokens_given
    server.shutdown()
    server.server_close()


def test_one_token_serves_a_container_and_all_threads(service: TokenService) -> None:
    sign = address_of
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(sign(BLOB))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [f"{BLOB}?se=1&sig=SECRET1"] * 8
    assert service.asked == ["/token/acc/c1"]
    assert sign(BLOB.replace("/c1/", "/c2/")).endswith("SECRET2")


def test_other_hosts_are_not_signed(service: TokenService) -> None:
    assert signer("planetary-computer")("https://example.com/x.tif") == "https://example.com/x.tif"
    assert service.asked == []


def test_an_old_signature_is_replaced(service: TokenService) -> None:
    old = f"{BLOB}?st=2020&se=2020&sp=rl&sv=1&sig=EXPIRED"
    assert signer("planetary-computer")(old) == f"{BLOB}?se=1&sig=SECRET1"


def test_fresh_asks_again_once_after_a_refusal(service: TokenService) -> None:
    sign = address_of
    assert sign(BLOB).endswith("SECRET1")
    assert sign(BLOB, fresh=True).endswith("SECRET2")
    assert sign(BLOB).endswith("SECRET2")


@pytest.mark.parametrize(
    ("lifetime", "held"),
    [
        (3600.0, 3300.0),  # renewed five minutes early
        (30.0, 15.0),
        (-7200.0, 60.0),  # this machine's clock is two hours ahead
    ],
)
def test_tokens_are_renewed_early_whatever_the_clock_says(
    service: TokenService, monkeypatch: pytest.MonkeyPatch, lifetime: float, held: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr("cubekit.sources.tokens.monotonic", lambda: now[0])
    service.lifetime = timedelta(seconds=lifetime)
    assert address_of(BLOB).endswith("SECRET1")
    now[0] += held - 1
    assert address_of(BLOB).endswith("SECRET1")
    now[0] += 2
    assert address_of(BLOB).endswith("SECRET2")


def test_a_token_that_is_still_good_bridges_a_service_that_is_down(
    service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("cubekit.sources.tokens.monotonic", lambda: now[0])
    assert address_of(BLOB).endswith("SECRET1")
    service.status = 403
    now[0] += 3400
    assert address_of(BLOB).endswith("SECRET1")
    now[0] += 300
    with pytest.raises(SourceError, match="No token"):
        address_of(BLOB)


def test_a_refusing_service_is_named_without_secrets(service: TokenService) -> None:
    service.status = 403
    with pytest.raises(SourceError, match=r"No token for https://acc\.blob\.core.*/c1.*403") as raised:
        signer("planetary-computer")(f"{BLOB}?sig=SECRET")
    assert "SECRET" not in str(raised.value)


def test_a_hanging_service_does_not_hang_the_reader(
    service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "SIGN_TIMEOUT", 0.2)
    service.delay = 2.0
    start = time.monotonic()
    with pytest.raises(SourceError, match="the token service hangs"):
        signer("planetary-computer")(BLOB)
    assert time.monotonic() - start < 1.5
