"""Real servers on 127.0.0.1, each in a folder of its own and stopped by its own process id."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from cubekit.testing.archive import SampleArchive
from cubekit.testing.servers import free_port, running


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    url: str
    log: Path

    def requests(self) -> list[dict[str, str]]:
        """Return method, path, range, status and bytes of each request so far."""
        names = ("method", "path", "range", "status", "bytes")
        return [dict(zip(names, line.split("|"), strict=True)) for line in self.log.read_text().splitlines()]


NGINX = """
daemon off;
pid {folder}/nginx.pid;
{user}
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  log_format short '$request_method|$uri|$http_range|$status|$body_bytes_sent';
  access_log {folder}/access.log short;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {limit_zone}
  server {{
    listen 127.0.0.1:{port};
    root {root};
    {limit}
  }}
}}
"""


@contextmanager
def serve_by_nginx(root: Path, *, per_second: int | None = None) -> Iterator[Nginx]:
    """Serve a folder; above a rate of requests it answers 429."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        pytest.skip("nginx is not installed: run make test-services")
    with tempfile.TemporaryDirectory(prefix="cubekit-nginx-") as temporary:
        folder = Path(temporary)
        port = free_port()
        limited = per_second is not None
        text = NGINX.format(
            folder=folder,
            port=port,
            root=root,
            user="user root;" if os.getuid() == 0 else "",  # else its worker may not read test folders
            limit_zone=f"limit_req_zone $server_port zone=all:1m rate={per_second}r/s;" if limited else "",
            limit="limit_req zone=all burst=5 nodelay; limit_req_status 429;" if limited else "",
        )
        (folder / "nginx.conf").write_text(text)
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", f"{folder}/error.log"]
        with running(command, f"http://127.0.0.1:{port}", folder / "output"):
            (folder / "access.log").write_text("")
            yield Nginx(f"http://127.0.0.1:{port}", folder / "access.log")


@dataclass(frozen=True)
class PgStac:
    """A STAC API on PostgreSQL: stac-fastapi-pgstac, as public archives run it."""

    url: str
    tools: Path
    environment: dict[str, str]
    folder: Path

    def load(self, items: Sequence[dict[str, Any]], collections: Sequence[dict[str, Any]] = ()) -> None:
        """Put items in; collections that are not given are made up."""
        given = {c["id"] for c in collections}
        made = [_collection(name) for name in sorted({i["collection"] for i in items} - given)]
        for kind, entries in (("collections", [*collections, *made]), ("items", items)):
            if entries:
                file = self.folder / f"{kind}.ndjson"
                file.write_text("\n".join(json.dumps(entry) for entry in entries))
                self.run("load", kind, str(file), "--method", "upsert")

    def run(self, *arguments: str) -> None:
        """Run pypgstac on the database."""
        command = [str(self.tools / "bin/pypgstac"), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        if done.returncode:
            pytest.fail(f"{command} failed: {done.stdout[-1500:]} {done.stderr[-1500:]}")


def _collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }


@contextmanager
def run_pgstac(tools: Path) -> Iterator[PgStac]:
    """Start PostgreSQL with pgSTAC in a folder of its own, and the API in front of it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed: run make test-services")
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="cubekit-pgstac-") as temporary:
        folder = Path(temporary)
        data = folder / "data"
        data.mkdir()
        if other:
            folder.chmod(0o755)
            shutil.chown(data, "postgres", "postgres")
        subprocess.run(
            [*other, str(binaries[-1] / "initdb"), "-D", str(data), "-U", "cubekit", "--auth=trust"],
            check=True,
            capture_output=True,
            cwd=data,
        )
        port = free_port()
        environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "cubekit",
            "PGPASSWORD": "unused",
            "PGDATABASE": "postgres",
        }
        options = ["-c", "fsync=off", "-c", f"unix_socket_directories={data}", "-h", "127.0.0.1"]
        server = [*other, str(binaries[-1] / "postgres"), "-D", str(data), "-p", str(port), *options]
        with _postgres(server, binaries[-1], port, folder / "postgres.log"):
            api = free_port()
            service = PgStac(f"http://127.0.0.1:{api}", tools, environment, folder)
            service.run("pgready")
            service.run("migrate")
            command = [
                str(tools / "bin/uvicorn"),
                "--factory",
                "stac_fastapi.pgstac.app:create_app",
                "--port",
                str(api),
            ]
            with running(command, service.url, folder / "api.log", environment=environment):
                yield service


@contextmanager
def _postgres(command: Sequence[str], binaries: Path, port: int, log: Path) -> Iterator[None]:
    """Run PostgreSQL, which does not speak HTTP; its fast shutdown is SIGINT."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, cwd="/")
    ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    try:
        for _ in range(60):
            if subprocess.run(ready, check=False, capture_output=True).returncode == 0:
                break
            if process.poll() is not None:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
            time.sleep(0.25)
        yield
    finally:
        process.send_signal(2)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Azurite:
    """Azure's blob service in one process, with a key of this session's own."""

    url: str
    account: str
    key: bytes
    issued: list[datetime] = field(default_factory=list)

    def sas(self, container: str, *, seconds: float, rights: str = "r") -> str:
        """Make a token for a container that ends after some seconds.

        The fields and their order are those of service tokens, version 2020-12-06.
        """
        version = "2020-12-06"
        now = datetime.now(UTC)
        start, end = (
            f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in (now - timedelta(minutes=1), now + timedelta(seconds=seconds))
        )
        fields = [
            rights,
            start,
            end,
            f"/blob/{self.account}/{container}",
            "",
            "",
            "",
            version,
            "c",
            *[""] * 7,
        ]
        signature = hmac.new(self.key, "\n".join(fields).encode(), hashlib.sha256).digest()
        self.issued.append(now)
        query = {
            "sp": rights,
            "st": start,
            "se": end,
            "sv": version,
            "sr": "c",
            "sig": base64.b64encode(signature).decode(),
        }
        return urlencode(query)

    def put(self, container: str, name: str, body: bytes) -> str:
        """Upload a blob; returns its unsigned address."""
        address = f"{self.url}/{container}/{name}"
        token = self.sas(container, seconds=600, rights="rcw")
        answer = requests.put(
            f"{address}?{token}", data=body, headers={"x-ms-blob-type": "BlockBlob"}, timeout=30
        )
        answer.raise_for_status()
        return address

    def make_container(self, name: str) -> None:
        """Create a container, signed with the account's key."""
        date = f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}"
        headers = {"x-ms-date": date, "x-ms-version": "2020-12-06"}
        text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2020-12-06\n"
        text += f"/{self.account}/{self.account}/{name}\nrestype:container"
        signature = base64.b64encode(hmac.new(self.key, text.encode(), hashlib.sha256).digest()).decode()
        headers["Authorization"] = f"SharedKey {self.account}:{signature}"
        requests.put(f"{self.url}/{name}?restype=container", headers=headers, timeout=30).raise_for_status()


@contextmanager
def run_azurite(tools: Path) -> Iterator[Azurite]:
    """Start Azurite in a folder of its own."""
    program = tools / "node/node_modules/.bin/azurite-blob"
    if not program.exists():
        pytest.skip("Azurite is not installed: run make test-services")
    key = secrets.token_bytes(64)
    with tempfile.TemporaryDirectory(prefix="cubekit-azurite-") as temporary:
        port = free_port()
        command = [str(program), "--location", temporary, "--blobPort", str(port), "--blobHost", "127.0.0.1"]
        accounts = {"AZURITE_ACCOUNTS": f"cubekit:{base64.b64encode(key).decode()}"}
        url = f"http://127.0.0.1:{port}"
        with running(
            [*command, "--silent", "--disableTelemetry"],
            url,
            Path(temporary) / "output",
            environment=accounts,
        ):
            yield Azurite(f"{url}/cubekit", "cubekit", key)


def items_at(archive: SampleArchive, url: str) -> list[dict[str, Any]]:
    """Return the sample's items with their files behind a server."""
    features: list[dict[str, Any]] = json.loads(archive.items.read_text())["features"]
    for feature in features:
        feature["links"] = []
        for asset in feature["assets"].values():
            asset["href"] = f"{url}/{asset['href'].removeprefix('./')}"
    return features
