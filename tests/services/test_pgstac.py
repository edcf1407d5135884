"""Searches on pgSTAC, the software behind public archives: the same items, whatever the page size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cubekit as ck
from cubekit.testing.archive import SampleArchive
from tests.services.servers import PgStac, items_at, serve_by_nginx

pytestmark = pytest.mark.services

FILES = [
    ("planetary_computer/sentinel-2-l2a-pc.json", "sentinel-2-l2a"),
    ("planetary_computer/landsat-c2-l2-pc.json", "landsat-c2-l2"),
    ("planetary_computer/cop-dem-glo-30-pc.json", "cop-dem-glo-30"),
    ("earth_search_v1/sentinel-2-l2a_item_collection.json", "sentinel-2-c1-l2a"),
    ("modis_13q1_061/MOD13Q1.A2022017.h12v11.061.json", "modis-13Q1-061"),
    ("usgs/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", "landsat-c2l2-sr"),
]


def entries(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text())
    found: list[dict[str, Any]] = content if isinstance(content, list) else content.get("features", [content])
    return found


@pytest.mark.shared
@pytest.mark.parametrize(("file", "collection"), FILES, ids=[f[1] for f in FILES])
def test_real_items_are_found_again(pgstac: PgStac, shared: Path, file: str, collection: str) -> None:
    path = shared / "data/stac" / file
    pgstac.load(entries(path))
    direct = ck.open_items(path)
    found = ck.search(collection, url=pgstac.url)
    assert {item.id for item in found} == {item.id for item in direct}
    assert set(found.bands) == set(direct.bands)  # the database sorts the keys of assets


def many(count: int) -> list[dict[str, Any]]:
    """Return items of a made-up collection, an hour apart."""
    times = np.datetime64("2022-01-01T00:00:00") + np.arange(count).astype("timedelta64[h]")
    places = [10 + number / 1000 for number in range(count)]
    return [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"scene-{number:04d}",
            "collection": "many",
            "geometry": {"type": "Point", "coordinates": [x, 50]},
            "bbox": [x, 50, x, 50],
            "properties": {"datetime": f"{moment}Z"},
            "links": [],
            "assets": {"red": {"href": f"https://example.com/{number}.tif", "type": "image/tiff"}},
        }
        for number, (moment, x) in enumerate(zip(times, places, strict=True))
    ]


def test_pages_are_followed_to_the_end_and_no_further(pgstac: PgStac) -> None:
    pgstac.load(many(620))
    everything = ck.search("many", url=pgstac.url)
    assert sorted(item.id for item in everything) == [f"scene-{number:04d}" for number in range(620)]
    january = ck.search("many", url=pgstac.url, datetime="2022-01-05/2022-01-06")
    assert [item.id for item in january] == [f"scene-{number:04d}" for number in range(96, 144)]
    east = ck.search("many", url=pgstac.url, bbox=(10.6, 49, 11, 51))
    assert {item.id for item in east} == {f"scene-{number:04d}" for number in range(600, 620)}


def test_a_cube_from_pgstac_is_the_cube_from_the_files(
    pgstac: PgStac, sample_archive: SampleArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    local = ck.open_items(sample_archive.items)
    where = ck.grid(crs=sample_archive.crs, resolution=20, bbox=sample_archive.bbox)
    with serve_by_nginx(sample_archive.folder) as files:
        features = items_at(sample_archive, files.url)
        pgstac.load(features)
        found = ck.search(features[0]["collection"], url=pgstac.url, bbox=sample_archive.bbox)
        assert {item.id for item in found} == {item.id for item in local}
        cubes = [ck.open_cube(items, where, bands=["red", "nir"]).compute() for items in (found, local)]
    xr.testing.assert_equal(cubes[0]["data"], cubes[1]["data"])
