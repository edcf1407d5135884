"""Object stores on this machine, with an empty bucket each: S3 (moto) and Azure (Azurite)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest

from cubekit.testing.servers import free_port, running


class Service(NamedTuple):
    """An object store to write to."""

    url: str
    """Of an empty bucket or container."""

    options: dict[str, Any]
    """Where it listens, and credentials."""

    secret: str
    """Part of the credentials that must never be seen."""

    environment: dict[str, str]
    """The same as environment variables."""


def find_program(tools: Path, name: str) -> str:
    """Return a server's program, or skip the test."""
    for path in (tools / "bin" / name, tools / "node/node_modules/.bin" / name):
        if path.exists():
            return str(path)
    pytest.skip(f"{name} not found in {tools}: run make test-services")


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block ends; enter the block when it answers."""
    with (
        tempfile.TemporaryDirectory(prefix="cubekit-bucket-") as folder,
        running(command, f"http://127.0.0.1:{port}", Path(folder) / "output"),
    ):
        yield


@contextmanager
def run_s3(tools: Path) -> Iterator[Service]:
    """Return a bucket of a local S3 server (moto)."""
    port = free_port()
    endpoint, secret = f"http://127.0.0.1:{port}", "verysecretkey"
    with serving([find_program(tools, "moto_server"), "-H", "127.0.0.1", "-p", str(port)], port):
        urlopen(Request(f"{endpoint}/cubes", method="PUT"), timeout=10).close()
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
        }
        options = {
            "endpoint": endpoint,
            "access_key_id": "someone",
            "secret_access_key": secret,
            "region": "us-east-1",
            "client_options": {"allow_http": True},
        }
        yield Service("s3://cubes", options, secret, environment)


@contextmanager
def run_azure(tools: Path, folder: Path) -> Iterator[Service]:
    """Return a container of a local Azure server (Azurite), with its published account."""
    port = free_port()
    program = [find_program(tools, "azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    secret = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # noqa: S105
    options = {
        "account_name": "devstoreaccount1",
        "account_key": secret,
        "endpoint": f"http://127.0.0.1:{port}/devstoreaccount1",
        "client_options": {"allow_http": True},
    }
    more = ["--location", str(folder), "--silent", "--skipApiVersionCheck"]
    with serving([*program, *more], port):
        make_container(options, "cubes")
        yield Service("az://cubes", options, secret, {})


def make_container(options: dict[str, Any], name: str) -> None:
    """Create a container with a request signed by the shared key."""
    import base64
    import hashlib
    import hmac
    from email.utils import formatdate

    account, version, date = options["account_name"], "2021-08-06", formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/{account}/{account}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(options["account_key"]), text.encode(), hashlib.sha256).digest()
    request = Request(f"{options['endpoint']}/{name}?restype=container", method="PUT", data=b"")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", version)
    request.add_header("Authorization", f"SharedKey {account}:{base64.b64encode(digest).decode()}")
    request.add_header("Content-Length", "0")
    request.add_header("Content-Type", "")
    urlopen(request, timeout=10).close()
