"""The test servers themselves: ranges against bytes, faults, the request log, and a clean end."""

import json
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio
import requests

from cubekit.errors import MissingDependencyError
from cubekit.testing.servers import Fault, file_server, stac_server

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a b.bin").write_bytes(CONTENT)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        (None, 200, CONTENT),
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=100-", 206, CONTENT[100:]),
        ("bytes=-7", 206, CONTENT[-7:]),
        ("bytes=1000-5000", 206, CONTENT[1000:]),
        ("bytes=-5000", 206, CONTENT),
        ("bytes=1024-", 416, b""),
        ("lines=1-2", 200, CONTENT),
    ],
)
def test_ranges(folder: Path, asked: str | None, status: int, body: bytes) -> None:
    with file_server(folder) as server:
        headers = {"Range": asked} if asked else {}
        answer = requests.get(f"{server.url}/sub/a%20b.bin?x=1", headers=headers, timeout=5)
        assert (answer.status_code, answer.content) == (status, body)
        logged = {
            "method": "GET",
            "path": "/sub/a b.bin",
            "query": "x=1",
            "range": asked or "",
            "status": status,
        }
        assert server.requests() == [logged]


def test_head_etag_and_keep_alive(folder: Path) -> None:
    with file_server(folder) as server, requests.Session() as session:
        url = f"{server.url}/sub/a%20b.bin"
        head = session.head(url, timeout=5)
        assert head.headers["Content-Length"] == str(len(CONTENT))
        assert head.headers["Accept-Ranges"] == "bytes"
        assert head.headers["ETag"] == session.get(url, timeout=5).headers["ETag"]
        assert head.raw.version == 11
        assert "close" not in head.headers.get("Connection", "")
        (folder / "sub/a b.bin").write_bytes(CONTENT + b"x")
        assert session.head(url, timeout=5).headers["ETag"] != head.headers["ETag"]
        assert [entry["method"] for entry in server.requests()] == ["HEAD", "GET", "HEAD"]


def test_only_the_folder_is_served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.touch()
    (folder / "link").symlink_to(outside)
    with file_server(folder) as server:
        for path in ("/link", "/../outside/secret", "/%2e%2e/secret", "/nothing", "/sub"):
            assert requests.get(server.url + path, timeout=5).status_code == 404


def test_faults_are_used_up_in_order(folder: Path) -> None:
    faults = [
        Fault(path="/sub/*", status=503, retry_after="7", times=2),
        Fault(path="/sub/a b.bin", delay=0.3, times=1),
        Fault(path="/sub/a b.bin", short=0.5, times=1),
    ]
    with file_server(folder, faults=faults) as server:
        url = f"{server.url}/sub/a%20b.bin"
        answers = [requests.get(url, timeout=5) for _ in range(2)]
        assert [a.status_code for a in answers] == [503, 503]
        assert answers[0].headers["Retry-After"] == "7"
        start = time.monotonic()
        assert requests.get(url, timeout=5).content == CONTENT
        assert time.monotonic() - start >= 0.3
        with pytest.raises(requests.exceptions.RequestException, match=r"512 bytes read|IncompleteRead"):
            requests.get(url, timeout=5)
        assert requests.get(url, timeout=5).content == CONTENT
        assert [entry["status"] for entry in server.requests()] == [503, 503, 200, 200, 200]


def test_gdal_reads_a_part_of_a_tiff(tmp_path: Path) -> None:
    data = np.arange(1024 * 1024, dtype="uint16").reshape(1024, 1024)
    grid = {"transform": rasterio.Affine(10, 0, 0, 0, -10, 0), "crs": "EPSG:32631"}
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=1024,
        height=1024,
        count=1,
        dtype="uint16",
        **tiled,
        **grid,
    ) as target:
        target.write(data, 1)
    with file_server(tmp_path) as server, rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with rasterio.open(f"{server.url}/a.tif", driver="GTiff") as source:
            part = source.read(1, window=((900, 910), (500, 520)))
        np.testing.assert_array_equal(part, data[900:910, 500:520])
        ranges = [entry["range"] for entry in server.requests() if entry["status"] == 206]
        assert ranges
        assert all(ranges)


def item(name: str, **changes: object) -> dict[str, object]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {"type": "Point", "coordinates": [5, 45]},
        "bbox": [5, 45, 5, 45],
        "properties": {"datetime": "2023-05-01T10:00:00Z"},
        "links": [],
        "assets": {},
        **changes,
    }


def test_stac_server_takes_all_forms_and_ends(tmp_path: Path) -> None:
    pytest.importorskip("rustac")
    (tmp_path / "list.json").write_text(json.dumps([item("b"), item("c", collection="mine")]))
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "mine",
        "description": "given",
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }
    features = {"type": "FeatureCollection", "features": [item("d")]}
    with stac_server(item("a"), tmp_path / "list.json", features, collection) as url:
        found = requests.get(f"{url}/search", timeout=5).json()["features"]
        assert sorted(entry["id"] for entry in found) == ["a", "b", "c", "d"]
        collections = requests.get(f"{url}/collections", timeout=5).json()["collections"]
        assert {c["id"]: c["description"] for c in collections}["mine"] == "given"
        assert {c["id"] for c in collections} == {"mine", "items"}
    parts = urlsplit(url)
    with socket.socket() as probe:
        assert probe.connect_ex((parts.hostname, parts.port)) != 0


def test_a_server_that_does_not_start_tells_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rustac")
    with (
        pytest.raises(OSError, match=r"did not answer.*rustac|did not answer"),
        stac_server(item("a", geometry=5)),
    ):
        pass
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="pip install rustac"), stac_server(item("a")):
        pass
