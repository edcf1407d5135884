"""Items behind an address: retries, limits, and where relative addresses lead."""

import json
from pathlib import Path
from typing import Any

import pytest

from cubekit.errors import SearchError, SecurityError
from cubekit.sources import web
from cubekit.sources.items import open_items
from cubekit.testing.servers import Fault, file_server

ASSETS = {"near": "data/a.tif", "far": "http://169.254.169.254/x", "up": "/b.tif"}
ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "a",
    "geometry": None,
    "properties": {"datetime": "2023-05-01T10:00:00Z"},
    "links": [],
    "assets": {
        "near": {"href": "data/a.tif"},
        "far": {"href": "http://169.254.169.254/x"},
        "up": {"href": "/b.tif"},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stac").mkdir()
    (tmp_path / "stac/items.json").write_text(json.dumps([ITEM]))
    return tmp_path


def test_relative_addresses_start_where_the_list_lies(folder: Path) -> None:
    with file_server(folder) as server:
        items = open_items(f"{server.url}/stac/items.json?token=SECRET")
        assets = items[0].assets
        assert items.href(assets["near"]) == f"{server.url}/stac/data/a.tif"
        assert items.href(assets["up"]) == f"{server.url}/b.tif"
        with pytest.raises(SecurityError):
            items.href(assets["far"])
        assert items.root is None


def test_a_busy_server_is_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = web.retry_policy(backoff=0.01)
    monkeypatch.setattr(web, "retry_policy", lambda: policy)
    with file_server(folder, faults=[Fault(path="/stac/*", status=503, times=3)]) as server:
        assert len(open_items(f"{server.url}/stac/items.json")) == 1
        assert [entry["status"] for entry in server.requests()] == [503, 503, 503, 200]


@pytest.mark.parametrize("fault", [Fault(path="*", status=404), Fault(path="*", short=0.5)])
def test_failures_name_the_address_without_its_query(
    folder: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = web.retry_policy(backoff=0.01)
    monkeypatch.setattr(web, "retry_policy", lambda: policy)
    with file_server(folder, faults=[fault]) as server:
        with pytest.raises(SearchError, match=r"/stac/items\.json gave no JSON") as raised:
            open_items(f"{server.url}/stac/items.json?token=SECRET")
        assert "SECRET" not in str(raised.value)


def test_huge_documents_are_not_read_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_JSON_BYTES", 100)
    with file_server(folder) as server, pytest.raises(SearchError, match="more than 100 bytes"):
        open_items(f"{server.url}/stac/items.json")
