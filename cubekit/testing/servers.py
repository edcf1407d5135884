"""Servers on 127.0.0.1 for tests: a STAC API over given items, and files over HTTP with scripted faults.

Both run in processes of their own, as a reader in C may hold the interpreter's lock while it waits for an
answer.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cubekit.errors import MissingDependencyError, SourceError
from cubekit.typing import StrPath

START_SECONDS: Final = 30.0
"""How long a server may take to answer its first request."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a file server does instead of a plain answer.

    Attributes
    ----------
    path : str
        Request path it applies to, such as ``"/B04.tif"``, or a prefix of it that ends with ``*``.
    status : int
        Answer with this status and a short HTML body; 0 leaves the status alone.
    delay : float
        Seconds to wait before the answer.
    short : float
        Share of the body to send before the connection is closed; 1 sends all of it.
    retry_after : str
        ``Retry-After`` header to send with the status; empty for none.
    times : int
        Number of requests it applies to; 0 for all. Faults for one path are used up in order.
    """

    path: str
    status: int = 0
    delay: float = 0.0
    short: float = 1.0
    retry_after: str = ""
    times: int = 0


@dataclass(frozen=True)
class FileServer:
    """A running file server."""

    url: str
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests so far: ``method``, ``path``, ``query``, ``range``, ``status`` of each."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def file_server(
    folder: StrPath, *, faults: Sequence[Fault] = (), port: int | None = None
) -> Iterator[FileServer]:
    """Serve a folder over HTTP: keep-alive, ranges (also of the last bytes), HEAD, ETag, several threads.

    Parameters
    ----------
    folder : path
        What to serve; links that lead out of it are not followed.
    faults : sequence of Fault, optional
        Scripted behaviour by path.
    port : int, optional
        Port to take if it is free. Default, and where it is not: any free one.

    Yields
    ------
    FileServer
        Address without trailing slash, and the request log.
    """
    port = free_port(port)
    with tempfile.TemporaryDirectory(prefix="cubekit-files-") as temporary:
        script = Path(temporary) / "faults.json"
        script.write_text(json.dumps([asdict(fault) for fault in faults]))
        log = Path(temporary) / "requests.jsonl"
        command = [
            sys.executable,
            "-m",
            "cubekit.testing.files",
            os.fspath(folder),
            str(port),
            str(script),
            str(log),
        ]
        with running(command, f"http://127.0.0.1:{port}", Path(temporary) / "output"):
            log.write_text("")  # forget the probes that waited for the start
            yield FileServer(f"http://127.0.0.1:{port}", log)


@contextmanager
def stac_server(*sources: "StrPath | Mapping[str, Any] | Sequence[Any]") -> Iterator[str]:
    """Serve items as a STAC API (`rustac serve`, in memory).

    Parameters
    ----------
    *sources : path, mapping, or sequence of mappings
        Files of items in any form that `cubekit.open_items` reads, items, or collections. Collections that
        are not given are made up; items without one belong to ``"items"``.

    Yields
    ------
    str
        Address of the API's root.

    Raises
    ------
    MissingDependencyError
        If rustac is not installed.
    """
    found = [entry for source in sources for entry in _entries(source)]
    features = [
        {**entry, "collection": entry.get("collection") or "items"} for entry in found if _is_item(entry)
    ]
    collections = [entry for entry in found if entry.get("type") == "Collection"]
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cubekit-stac-") as temporary:
        files = [Path(temporary) / "items.json"]
        files[0].write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        for number, collection in enumerate(collections):
            files.append(Path(temporary) / f"collection-{number}.json")
            files[-1].write_text(json.dumps({**collection, "links": []}))
        command = [
            _rustac(),
            "serve",
            *map(str, files),
            "--addr",
            f"127.0.0.1:{port}",
            "--create-collections",
        ]
        with running(command, f"http://127.0.0.1:{port}", Path(temporary) / "output"):
            yield f"http://127.0.0.1:{port}"


def free_port(wanted: int | None = None) -> int:
    """Return a port of 127.0.0.1 that nothing listens on now.

    Parameters
    ----------
    wanted : int, optional
        Returned if it is free.

    Returns
    -------
    int
        Port number.
    """
    for port in (wanted or 0, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("No port of 127.0.0.1 is free.")


def _is_item(entry: Mapping[str, Any]) -> bool:
    return entry.get("type") == "Feature"


def _entries(source: Any) -> list[dict[str, Any]]:
    """Return the items and collections of a source, untouched."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix in {".parquet", ".geoparquet"}:
            import rustac

            return _entries(rustac.read_sync(str(path)))
        return _entries(json.loads(path.read_text(encoding="utf-8")))
    if isinstance(source, Mapping):
        return list(source["features"]) if source.get("type") == "FeatureCollection" else [dict(source)]
    return [entry for element in source for entry in _entries(element)]


def _rustac() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "rustac"
    found = str(beside) if beside.exists() else shutil.which("rustac")
    if not found:
        raise MissingDependencyError("The STAC test server needs rustac: pip install rustac.")
    return found


@contextmanager
def running(
    command: Sequence[str], url: str, output: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run any HTTP server until the block ends.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; it must stay in the foreground.
    url : str
        Address that answers, with whatever status, once the server is up.
    output : pathlib.Path
        File for what the server prints.
    environment : mapping, optional
        Variables on top of this process's own.

    Yields
    ------
    None
        While the server runs.

    Raises
    ------
    SourceError
        If it does not answer within `START_SECONDS`; says what it printed.
    """
    with output.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603  (our own command)
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    try:
        _wait(process, url, output)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/", timeout=2):  # noqa: S310  (our own server)
                return
        except urllib.error.HTTPError as answer:  # it listens; what it says of "/" does not matter
            answer.close()
            return
        except OSError:
            time.sleep(0.02)
    text = output.read_text(errors="replace")[-2000:]
    raise SourceError(f"The server {process.args!r} did not answer within {START_SECONDS:.0f} s: {text}")
