"""Files on the web: few requests, every failure named, never two states of one file in a cube."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio
import urllib3
from odc.geo.geobox import GeoBox

from cubekit.cube import http as client
from cubekit.cube import reader
from cubekit.cube.gdal import GDAL_SETTINGS
from cubekit.cube.load import open_cube
from cubekit.cube.reader import Form, Source, read_window
from cubekit.cube.resample import Window
from cubekit.errors import MetadataMismatchError, SecurityError, SourceError
from cubekit.testing.servers import Fault, file_server, free_port

BOX = GeoBox.from_bbox((400_000, 4_400_000, 410_240, 4_410_240), "EPSG:32630", resolution=10)  # 1024 x 1024
TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}


def noise() -> Any:
    return np.random.default_rng(3).integers(1, 2**16, BOX.shape).astype("uint16")


@pytest.fixture
def file(write_raster: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    monkeypatch.setattr("cubekit.cube.reader.time.sleep", lambda _: None)
    monkeypatch.setitem(GDAL_SETTINGS, "GDAL_HTTP_MAX_RETRY", "0")
    path: Path = write_raster("a.tif", noise(), BOX, **TILED)
    return path


def source(url: str, **form: Any) -> Source:
    form = {"geobox": BOX, "dtype": "uint16", "nodata": 0, **form}
    return Source(href=url, form=Form(**form), item="S1", asset="red")


def test_one_request_for_the_head_and_one_for_tiles_in_a_row_or_near(file: Path) -> None:
    with file_server(file.parent) as server:
        url = f"{server.url}/a.tif"
        for window in (Window(0, 0, 256, 256), Window(0, 0, 256, 256), Window(0, 256, 256, 512)):
            found = read_window(source(url), window)
            np.testing.assert_array_equal(
                found.values, noise()[window.top : window.bottom, window.left : window.right]
            )
        ranges = [request["range"] for request in server.requests()]
    # The second window is remembered; of the third, the first row of tiles came along with the first window.
    assert ranges[0] == "bytes=0-32767"
    assert len(ranges) == 3


@pytest.mark.parametrize("decoder", ["", "gdal"])
def test_damaged_tiles_are_errors_with_either_decoder(
    file: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_DECODER", decoder)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 0x55
    file.write_bytes(whole)
    with file_server(file.parent) as server:
        found = read_window(source(f"{server.url}/a.tif"), Window(0, 0, 100, 200))
        np.testing.assert_array_equal(found.values, noise()[:100, :200])
        with pytest.raises(SourceError, match="item 'S1', asset 'red'"):
            read_window(source(f"{server.url}/a.tif"), Window(0, 0, 1024, 1024))


@pytest.mark.parametrize("compress", ["lerc", "packbits", "jpeg"])
def test_codings_that_gdal_decodes_come_in_two_requests_too(
    file: Path, write_raster: Any, compress: str
) -> None:
    values = (noise() // 256).astype("uint8")
    path = write_raster("b.tif", values, BOX, **(TILED | {"compress": compress}))
    with rasterio.open(path) as data:
        expected = data.read(1)
    with file_server(file.parent) as server:
        found = read_window(source(f"{server.url}/b.tif", dtype="uint8"), Window(10, 20, 300, 400))
        assert len(server.requests()) <= 3
    np.testing.assert_array_equal(found.values, expected[10:300, 20:400])


def test_a_cube_asks_once_for_a_small_file_however_many_blocks_it_has(make_item: Any, file: Path) -> None:
    bands = {name: (noise()[:512, :512], BOX[:512, :512]) for name in ("red", "nir")}
    item = make_item("i", "2023-05-01", bands)
    with file_server(file.parent) as server:
        for key, asset in item.assets.items():
            asset.href = f"{server.url}/i_{key}.tif"
        cube = open_cube([item], chunks={"time": 1, "y": 128, "x": 128})["data"]
        np.testing.assert_array_equal(cube.values[0, 0], noise()[:512, :512])
        assert len(server.requests()) <= 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 503}, "response code: 503"),
        ({"status": 429, "retry_after": "7"}, "response code: 429"),
        ({"status": 404}, "response code: 404"),
        ({"short": 0.5}, "IncompleteRead"),
    ],
)
def test_failures_for_ever_are_named_after_few_requests(file: Path, fault: dict[str, Any], said: str) -> None:
    with file_server(file.parent, faults=[Fault(path="/a.tif", **fault)]) as server:
        with pytest.raises(SourceError, match=f"item 'S1', asset 'red'.*{said}"):
            read_window(source(f"{server.url}/a.tif?sig=SECRET"), Window(0, 0, 99, 99))
        assert len(server.requests()) == (1 if fault.get("status") == 404 else 4)


def test_a_wait_that_the_server_asks_for_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(reader, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    faults = [Fault(path="/a.tif", status=429, retry_after=after, times=1) for after in ("7", "4000")]
    with file_server(file.parent, faults=faults) as server:
        read_window(source(f"{server.url}/a.tif"), Window(0, 0, 9, 9))
    assert waits == [7.0, reader.MAX_WAIT]


def test_a_burst_of_failures_in_the_middle_is_healed(file: Path) -> None:
    faults = [Fault(path="/a.tif", times=1), Fault(path="/a.tif", status=503, times=2)]
    with file_server(file.parent, faults=faults) as server:
        found = read_window(source(f"{server.url}/a.tif"), Window(600, 600, 700, 700))
    np.testing.assert_array_equal(found.values, noise()[600:700, 600:700])


def test_silence_and_closed_ports_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_TRIES", 2)
    connections = urllib3.PoolManager(timeout=0.2)
    monkeypatch.setattr(client, "_pool", lambda _: connections)
    try:
        with (
            file_server(file.parent, faults=[Fault(path="/a.tif", delay=5)]) as server,
            pytest.raises(SourceError, match="ReadTimeoutError"),
        ):
            read_window(source(f"{server.url}/a.tif"), Window(0, 0, 9, 9))
        with pytest.raises(SourceError, match="NewConnectionError"):
            read_window(source(f"http://127.0.0.1:{free_port()}/a.tif"), Window(0, 0, 9, 9))
    finally:
        connections.clear()


def test_a_file_that_is_replaced_between_two_windows_is_refused_then_read_anew(
    file: Path, write_raster: Any
) -> None:
    with file_server(file.parent) as server:
        wanted = source(f"{server.url}/a.tif")
        read_window(wanted, Window(0, 0, 99, 99))
        write_raster("a.tif", noise()[::-1], BOX, **TILED)
        with pytest.raises(SourceError, match=r"was replaced while it was read.*Run again"):
            read_window(wanted, Window(900, 900, 999, 999))
        found = read_window(wanted, Window(900, 900, 999, 999))
    np.testing.assert_array_equal(found.values, noise()[::-1][900:999, 900:999])


def test_truncated_and_other_files_are_named(file: Path) -> None:
    whole = file.read_bytes()
    file.with_name("cut.tif").write_bytes(whole[: len(whole) // 2])
    with file_server(file.parent) as server:
        with pytest.raises(SourceError, match="item 'S1', asset 'red'"):
            read_window(source(f"{server.url}/cut.tif"), Window(900, 900, 999, 999))
        with pytest.raises(MetadataMismatchError, match="data type of the file is uint16"):
            read_window(source(f"{server.url}/a.tif", dtype="int16"), Window(0, 0, 9, 9))
        with pytest.raises(MetadataMismatchError, match="size"):
            read_window(source(f"{server.url}/a.tif", geobox=BOX.pad(300)), Window(1500, 1500, 1600, 1600))


class Plain(http.server.SimpleHTTPRequestHandler):
    """Knows no ranges; sends ``/go?TARGET`` elsewhere."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/go":
            self.send_response(302)
            self.send_header("Location", parts.query)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (base class)
        del format, args


@contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_servers_without_ranges_are_read_whole_up_to_a_limit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain_server(file.parent) as url:
        found = read_window(source(f"{url}/a.tif"), Window(10, 20, 300, 400))
        np.testing.assert_array_equal(found.values, noise()[10:300, 20:400])
        monkeypatch.setattr(client, "MAX_WHOLE", 1000)
        monkeypatch.setattr(reader, "MAX_TRIES", 1)
        with pytest.raises(SourceError, match="does not know ranges"):
            read_window(source(f"{url}/a.tif?again"), Window(10, 20, 300, 400))


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        (lambda url: f"{url}/a.tif", None),
        (lambda _: "http://169.254.169.254/latest/meta-data", SecurityError),
        (lambda _: "file:///etc/passwd", SourceError),
        (lambda url: f"{url}/go?{url}/go?x", SourceError),
    ],
    ids=["same host", "metadata address", "file", "round and round"],
)
def test_redirects_lead_only_where_addresses_may(
    file: Path, target: Callable[[str], str], outcome: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_TRIES", 1)
    with plain_server(file.parent) as url:
        wanted = source(f"{url}/go?{target(url)}")
        if outcome is None:
            assert read_window(wanted, Window(0, 0, 9, 9)).valid.all()
            return
        with pytest.raises(outcome):
            read_window(wanted, Window(0, 0, 9, 9))
