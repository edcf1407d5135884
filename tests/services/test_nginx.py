"""Scenes behind nginx: the same pixels, by ranges, and a server that sets a pace."""

from collections.abc import Iterator

import numpy as np
import pytest

import cubekit as ck
from cubekit.testing.archive import SampleArchive
from tests.services.servers import Nginx, items_at, serve_by_nginx

pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")


@pytest.fixture
def nginx(sample_archive: SampleArchive) -> Iterator[Nginx]:
    with serve_by_nginx(sample_archive.folder) as server:
        yield server


def test_pixels_over_http_are_the_pixels_on_disk(nginx: Nginx, sample_archive: SampleArchive) -> None:
    where = ck.grid(crs=sample_archive.crs, resolution=20, bbox=sample_archive.bbox)
    bands = ["red", "swir16"]
    local = ck.open_cube(ck.open_items(sample_archive.items), where, bands=bands)
    remote = ck.open_cube(ck.open_items(items_at(sample_archive, nginx.url)), where, bands=bands)
    np.testing.assert_array_equal(remote["data"].compute(), local["data"].compute())
    reads = [r for r in nginx.requests() if r["method"] == "GET" and r["path"] != "/"]
    assert {r["status"] for r in reads} == {"206"}  # ranges, never whole files by accident
    files = {r["path"] for r in nginx.requests()}
    assert len(reads) <= 3 * len(files)


def test_a_server_that_limits_the_rate_is_waited_for(sample_archive: SampleArchive) -> None:
    where = ck.grid(crs=sample_archive.crs, resolution=20, bbox=sample_archive.bbox)
    with serve_by_nginx(sample_archive.folder, per_second=20) as slow:
        items = ck.open_items(items_at(sample_archive, slow.url))
        cube = ck.open_cube(items, where, bands=["red"])["data"].compute()
        statuses = {r["status"] for r in slow.requests()}
    assert "429" in statuses  # the limit did bite
    local = ck.open_cube(ck.open_items(sample_archive.items), where, bands=["red"])
    np.testing.assert_array_equal(cube, local["data"].compute())
