"""Snapshots of items: every real file, in every form, and what must not be in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cubekit
from cubekit.errors import SourceError
from cubekit.sources.items import Items, open_items
from cubekit.testing.archive import SampleArchive

pytest.importorskip("stac_geoparquet")


def facts(items: Items) -> list[Any]:
    """Return what a cube is made of."""
    return [
        [
            scene.id,
            scene.collection_id or scene.properties.get("odc:product"),
            str(scene.datetime),
            np.round(scene.bbox or [], 9).tolist(),
            scene.properties.get("s2:processing_baseline"),
            {
                key: [
                    asset.href,
                    asset.media_type,
                    *(
                        json.loads(json.dumps(asset.extra_fields.get(name)))
                        for name in ("proj:code", "proj:wkt2", "proj:shape", "proj:transform")
                    ),
                    [
                        {name: value for name, value in band.items() if value is not None}
                        for band in asset.extra_fields.get("raster:bands") or []
                        if "histogram" not in band
                    ],
                ]
                for key, asset in sorted(scene.assets.items())
            },
        ]
        for scene in items
    ]


FILES = [
    "planetary_computer/sentinel-2-l2a-pc.json",
    "planetary_computer/landsat-c2-l2-pc.json",
    "planetary_computer/io-lulc-annual-v02-pc.json",
    "earth_search_v1/sentinel-2-l2a_item_collection.json",
    "modis_13q1_061/MOD13Q1.A2022017.h12v11.061.json",
    "dea/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json",
    "usgs/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["items.parquet", "catalog"])
@pytest.mark.parametrize("file", FILES, ids=[file.split("/")[1][:24] for file in FILES])
def test_real_items_come_back_from_every_form(shared: Path, tmp_path: Path, file: str, name: str) -> None:
    items = open_items(shared / "data/stac" / file)
    items.save(tmp_path / name)
    again = open_items(tmp_path / name)
    by_id = sorted(range(len(items)), key=lambda n: items[n].id)
    order = sorted(range(len(again)), key=lambda n: again[n].id)
    assert [facts(again)[n] for n in order] == [facts(items)[n] for n in by_id]
    assert again.collection == items.collection
    assert again.signer == items.signer
    assert sorted(again.datetimes) == sorted(items.datetimes)


def test_a_cube_from_a_snapshot_is_the_same(sample_archive: SampleArchive, tmp_path: Path) -> None:
    items = open_items(sample_archive.items)
    expected = cubekit.open_cube(items, bands=["red"])
    for name in ("items.parquet", "catalog", "items.geojson"):
        items.save(tmp_path / name)
        again = open_items(tmp_path / name, root=sample_archive.items.parent)
        cube = cubekit.open_cube(again, bands=["red"])
        assert cube["data"].attrs == expected["data"].attrs
        assert (cube["time"] == expected["time"]).all()
        window = {"time": slice(0, 2), "y": slice(0, 40)}
        np.testing.assert_array_equal(cube["data"].isel(window).values, expected["data"].isel(window).values)


SIGNED = "https://acc.blob.core.windows.net/c/{}?st=2026&se=2026&sp=rl&sv=1&sr=c&sig=SECRETTOKEN"


@pytest.mark.parametrize("name", ["items.json", "items.parquet", "catalog"])
def test_no_signature_is_saved(tmp_path: Path, name: str) -> None:
    asset = {
        "href": SIGNED.format("red.tif"),
        "type": "image/tiff",
        "alternate": {"s3": {"href": SIGNED.format("other.tif")}},
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "geometry": {"type": "Point", "coordinates": [5, 45]},
        "bbox": [5, 45, 5, 45],
        "properties": {"datetime": "2023-05-01T10:00:00.123456Z"},
        "links": [{"rel": "self", "href": SIGNED.format("a.json")}],
        "assets": {"red": asset},
    }
    items = open_items([item])
    items.save(tmp_path / name)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(b"SECRETTOKEN" in content for content in written)
    again = open_items(tmp_path / name)
    assert again[0].assets["red"].href == "https://acc.blob.core.windows.net/c/red.tif"
    assert again.datetimes[0] == np.datetime64("2023-05-01T10:00:00.123456")


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    empty = open_items([])
    with pytest.raises(SourceError, match="no items to save"):
        empty.save(tmp_path / "x.parquet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(SourceError, match="is not empty"):
        empty.save(tmp_path / "full")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"bad\.parquet cannot be read as stac-geoparquet"):
        open_items(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("href", "message"),
    [
        ("../outside.json", "no file inside"),
        ("https://e.com/a.json", "to the web"),
        ("./none.json", "no file"),
    ],
)
def test_static_catalogs_stay_in_their_folder(tmp_path: Path, href: str, message: str) -> None:
    (tmp_path / "outside.json").write_text("{}")
    folder = tmp_path / "catalog"
    folder.mkdir()
    links = [{"rel": "item", "href": href}, {"rel": "child", "href": "./catalog.json"}]
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    with pytest.raises(SourceError, match=message):
        open_items(folder)
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links[1:]}))
    with pytest.raises(SourceError, match="leads to none"):
        open_items(folder)
