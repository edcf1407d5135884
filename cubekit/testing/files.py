"""The process behind `cubekit.testing.servers.file_server`; run as ``python -m cubekit.testing.files``."""

import fnmatch
import json
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)$")
_BLOCK: Final = 2**16
_CREDENTIALS: Final = {"authorization": "Authorization", "payer": "x-amz-request-payer"}


class Script:
    """Faults that are left, by path."""

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        self._faults = faults
        self._lock = threading.Lock()

    def take(self, path: str, credentials: str = "") -> dict[str, Any]:
        """Return the next fault for a path, and count it as used."""
        with self._lock:
            for fault in self._faults:
                if fnmatch.fnmatchcase(path, fault["path"]) and not self._spared(fault, credentials):
                    if fault["times"] == 1:
                        self._faults.remove(fault)
                    fault["times"] -= fault["times"] > 1
                    return fault
        return {}

    @staticmethod
    def _spared(fault: dict[str, Any], credentials: str) -> bool:
        return bool(fault["unless"]) and fault["unless"] in credentials


class Handler(BaseHTTPRequestHandler):
    """Files of one folder, with ranges and scripted faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or head and body of each small answer wait 40 ms for each other
    folder: Path
    script: Script
    log: Path
    lock = threading.Lock()

    def do_HEAD(self) -> None:
        """Answer with headers only."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with a file or a part of it."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path, query = unquote(urlsplit(self.path).path), urlsplit(self.path).query
        fault = self.script.take(path, f"{query} {self.headers.get('Authorization', '')}")
        time.sleep(fault.get("delay", 0))
        if fault.get("status"):
            self._plain(fault["status"], retry_after=fault["retry_after"], location=fault["location"])
            return
        file = (self.folder / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.folder) or not file.is_file():
            self._plain(404)
            return
        self._file(file, share=fault.get("short", 1.0), body=body)

    def _plain(self, status: int, *, retry_after: str = "", location: str = "") -> None:
        text = f"<html>status {status}</html>".encode()
        headers = {"Content-Type": "text/html", "Content-Length": str(len(text))}
        self._head(status, headers | ({"Location": location} if location else {}), retry_after)
        if self.command != "HEAD":
            self.wfile.write(text)

    def _head(self, status: int, headers: dict[str, str], retry_after: str = "") -> None:
        self.send_response(status)
        for name, value in (headers | ({"Retry-After": retry_after} if retry_after else {})).items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, file: Path, *, share: float, body: bool) -> None:
        stat = file.stat()
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
            "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
            "Content-Type": "application/octet-stream",
        }
        span = self._span(stat.st_size)
        if span is None:
            self._head(416, {"Content-Range": f"bytes */{stat.st_size}", "Content-Length": "0"})
            return
        start, stop, partial = span
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
        headers["Content-Length"] = str(stop - start)
        self._head(206 if partial else 200, headers)
        if body:
            self._send(file, start, start + int((stop - start) * share))
        if share < 1:
            self.close_connection = True

    def _span(self, size: int) -> tuple[int, int, bool] | None:
        """Return first byte, byte after the last, and whether a part was asked for; None for no byte."""
        asked = _RANGE.match(self.headers.get("Range", ""))
        if asked is None or not any(asked.groups()):
            return 0, size, False
        first, last = asked.groups()
        if not first:
            return max(size - int(last), 0), size, True
        start, stop = int(first), min(int(last) + 1, size) if last else size
        return (start, stop, True) if start < stop else None

    def _send(self, file: Path, start: int, stop: int) -> None:
        with file.open("rb") as source:
            source.seek(start)
            while start < stop:
                block = source.read(min(_BLOCK, stop - start))
                self.wfile.write(block)
                start += len(block)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002  (base class)
        """Write one line of JSON for each answer."""
        parts = urlsplit(self.path)
        entry = {
            "method": self.command,
            "path": unquote(parts.path),
            "query": parts.query,
            "range": self.headers.get("Range", ""),
            "status": int(code),
        }
        entry |= {name: sent for name, header in _CREDENTIALS.items() if (sent := self.headers.get(header))}
        with self.lock, self.log.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (base class)
        """Print nothing; a client that goes away is no news."""


class Server(ThreadingHTTPServer):
    """Threads that end with the process, and no traces of clients that hang up."""

    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a burst of clients wait a second for a second try

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave out clients that closed their end; tell everything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main(folder: str, port: str, script: str, log: str) -> None:
    """Serve until killed.

    Parameters
    ----------
    folder : str
        What to serve.
    port : str
        Port of 127.0.0.1.
    script : str
        JSON file with a list of faults.
    log : str
        File to append requests to.
    """
    Handler.folder = Path(folder).resolve()
    Handler.script = Script(json.loads(Path(script).read_text()))
    Handler.log = Path(log)
    Server(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
