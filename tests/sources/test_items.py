"""Items of every real file of STAC records, and what is made of them."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cubekit.errors import MissingDependencyError, SecurityError, SourceError, UnknownNameError
from cubekit.sources.extent import bounding_box
from cubekit.sources.items import Items, open_items


def words(text: str) -> list[str]:
    return text.split()


SENTINEL2 = words("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12 SCL AOT WVP")
LANDSAT = words("coastal blue green red nir08 swir16 swir22 qa_pixel qa_radsat qa_aerosol")
MODIS = words("NDVI EVI red nir blue mir quality reliability doy view_zenith sun_zenith relative_azimuth")
DEA = words("coastal blue green red nir08 swir16 swir22 pan oa_fmask oa_nbart_contiguity")
PC = "planetary-computer"
S2_2019 = "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json"

# file, number of items, collection, bands it must hold, signer
FILES: list[tuple[str, int, str, list[str], str | None]] = [
    (f"planetary_computer/{S2_2019}", 1, "sentinel-2-l2a", SENTINEL2, PC),
    ("planetary_computer/site2-2020_jun_jul-35MNM.geojson", 13, "sentinel-2-l2a", SENTINEL2, PC),
    ("planetary_computer/sentinel-2-l2a-pc.json", 4, "sentinel-2-l2a", SENTINEL2, PC),
    (
        "planetary_computer/landsat-c2-l2-pc.json",
        4,
        "landsat-c2-l2",
        [*LANDSAT, "lwir11", "st_qa", "emis"],
        PC,
    ),
    (
        "planetary_computer/100-landsat-items.parquet",
        100,
        "landsat-c2-l2",
        [*LANDSAT, "lwir11", "st_qa", "emis"],
        PC,
    ),
    ("planetary_computer/cop-dem-glo-30-pc.json", 4, "cop-dem-glo-30", ["elevation"], PC),
    ("planetary_computer/io-lulc-annual-v02-pc.json", 4, "io-lulc-annual-v02", ["lulc"], PC),
    ("earth_search_v0/S2A_28QCH_20200714_0_L2A.json", 1, "sentinel-2-l2a", SENTINEL2, None),
    ("earth_search_v1/sentinel-2-l2a_item_collection.json", 10, "sentinel-2-c1-l2a", SENTINEL2, None),
    ("earth_search_v1/100-sentinel-2-items.parquet", 100, "sentinel-2-l2a", SENTINEL2, PC),
    ("modis_13q1_061/MOD13Q1.A2022017.h12v11.061.json", 1, "modis-13q1-061", MODIS, None),
    ("modis_13q1_061/MYD13Q1.A2022009.h09v06.061.json", 1, "modis-13q1-061", MODIS, None),
    ("usgs/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", 1, "landsat-c2-l2", LANDSAT, "usgs-landsat"),
    ("usgs/LC08_L2SR_081119_20200101_20200823_02_T2.json", 1, "landsat-c2-l2", LANDSAT, None),
    ("dea/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json", 1, "ga_ls8c_ard_3", DEA, None),
]


def as_json(items: Items) -> Any:
    """Return items as JSON knows them: without the difference between tuples and lists."""
    return json.loads(json.dumps([scene.to_dict(transform_hrefs=False) for scene in items]))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "count", "collection", "bands", "signer"), FILES, ids=[f[0].split("/")[1][:24] for f in FILES]
)
def test_every_file_of_items_opens(
    shared: Path, *, file: str, count: int, collection: str, bands: list[str], signer: str | None
) -> None:
    if file.endswith(".parquet"):
        pytest.importorskip("stac_geoparquet")
    items = open_items(shared / "data/stac" / file)
    assert len(items) == count
    assert items.collection is not None
    assert items.collection.name == collection
    assert items.signer == signer
    assert set(items.bands[: len(bands)]) == set(bands)
    assert collection in repr(items)
    for scene in items[:10]:
        for band in bands:
            asset = items.asset(scene, band)
            assert asset is not None, (scene.id, band)
            fields = asset.extra_fields
            crs = rasterio.CRS.from_user_input(fields.get("proj:code") or fields["proj:wkt2"])
            assert crs.is_projected or crs.is_geographic
            assert len(fields["proj:shape"]) == 2
            assert len(fields["proj:transform"]) in (6, 9)


@pytest.mark.shared
def test_each_band_is_the_one_that_the_item_describes(shared: Path) -> None:
    for file, _, _, bands, _ in FILES:
        if file.endswith(".parquet"):
            continue
        items = open_items(shared / "data/stac" / file)
        assert items.collection is not None
        for scene in items:
            for band in bands:
                asset = items.asset(scene, band)
                assert asset is not None
                described = asset.extra_fields.get("eo:bands", [{}])[0]
                record = items.collection.band(band)
                if described.get("center_wavelength") and record.wavelength:
                    # 0.02: providers round differently
                    assert described["center_wavelength"] == pytest.approx(record.wavelength, abs=0.02)
                coding = asset.extra_fields.get("raster:bands", [{}])[0]
                if "scale" in coding:
                    assert coding["scale"] == pytest.approx(record.scale)
                if "data_type" in coding:
                    assert coding["data_type"] == record.dtype
                if "nodata" in coding:
                    assert coding["nodata"] == record.nodata


@pytest.mark.shared
def test_stactools_item_opens_with_a_named_collection(shared: Path) -> None:
    path = shared / "data/stac/stactools_sentinel2/S2A_T07HFE_20190212T192646_L2A.json"
    assert open_items(path).collection is None
    items = open_items(path, collection="sentinel-2-l2a")
    assert items.bands[: len(SENTINEL2)] == tuple(SENTINEL2)
    red = items.asset(items[0], "red")
    assert red is not None
    assert red.href.endswith("R10m/T07HFE_20190212T192651_B04_10m.tif")  # not the 20 m copy
    with pytest.raises(SecurityError, match="outside the archive folder"):  # ../../../tests/data-files/…
        items.href(red)


@pytest.mark.shared
def test_scenes_on_the_antimeridian_have_a_narrow_box(shared: Path) -> None:
    items = open_items(shared / "data/stac/planetary_computer/io-lulc-annual-v02-pc.json")
    for scene in items:
        west, _, east, _ = bounding_box([scene])
        assert 170 < west < 180, scene.id
        assert -180 <= east < -170, scene.id
    assert items.bbox[0] > items.bbox[2]


@pytest.mark.shared
def test_a_collection_without_its_items_is_refused(shared: Path) -> None:
    with pytest.raises(SourceError, match=r"names .*MOD13Q1.*which is no file inside"):
        open_items(shared / "data/stac/modis_13q1_061/collection.json")


@pytest.mark.shared
def test_saved_items_come_back(shared: Path, tmp_path: Path) -> None:
    for file, _, collection, bands, signer in FILES:
        items = open_items(shared / "data/stac" / file)
        items.save(tmp_path / "items.json")
        again = open_items(tmp_path / "items.json")
        assert as_json(again) == as_json(items)
        assert again.collection == items.collection
        assert again.collection is not None
        assert again.collection.name == collection
        assert again.signer == signer
        assert set(bands) <= set(again.bands)
    assert [path.name for path in tmp_path.iterdir()] == ["items.json"]


def item(name: str = "a", **changes: Any) -> dict[str, Any]:
    box = (5.0, 45.0, 6.0, 46.0)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": shapely.geometry.mapping(shapely.box(*box)),
        "bbox": list(box),
        "properties": {"datetime": "2023-05-01T10:00:00Z"},
        "links": [],
        "assets": {"red": {"href": "https://example.com/red.tif", "type": "image/tiff; application=geotiff"}},
        "collection": "mine",
        **changes,
    }


def test_items_are_a_frozen_sequence() -> None:
    items = open_items([item("a"), item("b"), item("c")])
    assert [s.id for s in items[1:]] == ["b", "c"]
    assert isinstance(items[1:], Items)
    assert items[-1].id == "c"
    assert items[0] in items
    assert items.datetimes.dtype == np.dtype("datetime64[ns]")
    assert items.datetimes[0] == np.datetime64("2023-05-01T10:00:00")
    with pytest.raises(AttributeError):
        items.scenes = ()  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(items))  # noqa: S301  (our own bytes: workers receive items so)
    assert [s.to_dict() for s in again] == [s.to_dict() for s in items]
    assert open_items(items) is items
    assert repr(items[:0]) == "<Items: none of unknown collection>"


def test_all_forms_of_input_are_the_same(tmp_path: Path) -> None:
    forms: list[Any] = [item(), [item()], {"type": "FeatureCollection", "features": [item()]}]
    forms += [pystac.Item.from_dict(item()), pystac.ItemCollection([pystac.Item.from_dict(item())])]
    for number, form in enumerate(forms[:3]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(form))
        forms += [path, str(path)]
    found = [as_json(open_items(form)) for form in forms]
    assert found == [found[0]] * len(found)


def test_bands_may_be_asked_for_by_asset_key() -> None:
    items = open_items([item(), item("b", assets={})])
    assert items.bands == ("red",)
    assert items.asset(items[0], "red") is not None
    assert items.asset(items[1], "red") is None
    with pytest.raises(UnknownNameError, match="Did you mean 'red'"):
        items.asset(items[0], "rad")


def test_a_numbered_key_gives_way_to_the_description() -> None:
    tif = "image/tiff"
    assets = {
        "SR_B4": {
            "href": "https://e.com/4.tif",
            "type": tif,
            "eo:bands": [{"name": "B4", "common_name": "nir08"}],
        },
        "SR_B3": {
            "href": "https://e.com/3.tif",
            "type": tif,
            "eo:bands": [{"name": "B3", "common_name": "red"}],
        },
    }
    items = open_items(item(assets=assets), collection="landsat-c2-l2")  # as Landsat 7 numbers its bands
    red, nir = items.asset(items[0], "red"), items.asset(items[0], "nir")
    assert red is not None
    assert nir is not None
    assert (red.href, nir.href) == ("https://e.com/3.tif", "https://e.com/4.tif")
    assert items.asset(items[0], "green") is None


def test_signatures_are_taken_off() -> None:
    signed = "https://acc.blob.core.windows.net/c/x.tif?st=2026&se=2026&sp=rl&sv=1&sr=c&sig=SECRET&keep=1"
    items = open_items(item(assets={"red": {"href": signed, "type": "image/tiff"}}))
    assert items[0].assets["red"].href == "https://acc.blob.core.windows.net/c/x.tif?keep=1"


def test_item_grid_reaches_assets_that_have_none() -> None:
    assets = {
        "a": {"href": "https://e.com/a.tif", "type": "image/tiff"},
        "b": {"href": "https://e.com/b.tif", "type": "image/tiff", "proj:shape": [5, 5]},
    }
    grid = {"proj:epsg": 32631, "proj:shape": [10, 10], "proj:transform": [10, 0, 0, 0, -10, 0]}
    properties = {"datetime": "2023-05-01T10:00:00Z", **grid}
    extension = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    scene = open_items(item(assets=assets, properties=properties, stac_extensions=extension))[0]
    a, b = (scene.assets[key].extra_fields for key in "ab")
    assert (a["proj:code"], a["proj:shape"], len(a["proj:transform"])) == ("EPSG:32631", [10, 10], 6)
    assert (b["proj:code"], b["proj:shape"]) == ("EPSG:32631", [5, 5])
    assert "proj:transform" not in b  # the item's transform does not fit another shape


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": None}, "id None"),
        ({"type": "Collection"}, "not a STAC item|Not a STAC item"),
        ({"assets": None}, "needs type 'Feature', an id and assets"),
        ({"properties": {"datetime": None}}, "'bad' has neither datetime nor start_datetime"),
        ({"properties": {"datetime": "yesterday"}}, "'bad' is not valid STAC"),
        ({"geometry": 5, "bbox": "x", "stac_version": 7}, "'bad' is not valid STAC"),
        ({"assets": {"a": 5}}, "'bad' is not valid STAC"),
    ],
)
def test_bad_items_are_named_or_skipped(bad: dict[str, Any], message: str) -> None:
    features = [item("good"), item("bad") | bad]
    with pytest.raises(SourceError, match=message):
        open_items(features)
    assert [s.id for s in open_items(features, on_bad_item="skip")] == ["good"]


def test_files_that_are_not_items_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(SourceError, match=r"x\.json"):
        open_items(path)
    path.write_text("<html>")
    with pytest.raises(SourceError, match=r"x\.json cannot be read as STAC items"):
        open_items(path)
    path.write_text("5")
    with pytest.raises(SourceError, match="holds a int"):
        open_items(path)
    with pytest.raises(UnknownNameError, match="sentinel-2-l2a"):
        open_items(item(), collection="sentinel-2-l2")


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "stac_geoparquet.arrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cubekit\[parquet\]'"):
        open_items(tmp_path / "x.parquet")


def test_local_files_are_read_below_the_list_of_items(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    scene = item(assets={"a": {"href": "data/a.tif", "type": "image/tiff"}, "b": {"href": "../b.tif"}})
    (tmp_path / "items.json").write_text(json.dumps(scene))
    items = open_items(tmp_path / "items.json")
    assert items.href(items[0].assets["a"]) == str(tmp_path / "data/a.tif")
    with pytest.raises(SecurityError):
        items.href(items[0].assets["b"])
    wide = open_items(tmp_path / "items.json", root=tmp_path.parent)
    assert wide.href(wide[0].assets["b"]) == str(tmp_path.parent / "b.tif")
    with pytest.raises(SecurityError):  # items from memory name no local files at all
        open_items(scene).href(open_items(scene)[0].assets["a"])


@given(st.lists(st.tuples(st.floats(-180, 179), st.floats(0.01, 40)), min_size=1, max_size=6))
def test_the_box_covers_every_scene_and_no_arc_is_shorter(spans: list[tuple[float, float]]) -> None:
    scenes = []
    for start, width in spans:
        end = start + width if start + width <= 180 else start + width - 360
        box = item(bbox=[start, 0.0, end, 1.0], geometry=None)
        scenes.append(open_items(box)[0])
    west, _, east, _ = bounding_box(scenes)
    length = east - west if east >= west else east - west + 360
    for start, width in spans:
        assert (start - west + 1e-9) % 360 + width <= length + 1e-6
    # Oracle: the shortest arc starts at one of the scenes.
    arcs = [max((start - first) % 360 + width for start, width in spans) for first, _ in spans]
    assert length <= min(*arcs, 360.0) + 1e-6


def test_saved_items_can_be_read_by_others_and_make_their_folder(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    target = tmp_path / "new" / "items.json"
    open_items({"type": "FeatureCollection", "features": []}).save(target)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in target.parent.iterdir()] == ["items.json"]
    with pytest.raises(SourceError, match="Cannot write"):
        open_items([]).save(target / "x.json")


@pytest.mark.shared
def test_scenes_of_three_zones_become_a_tree_of_cubes(shared: Path) -> None:
    import cubekit

    items = open_items(shared / "data/stac/earth_search_v1/100-sentinel-2-items.parquet")
    zones = items.by_crs()
    assert {crs: len(part) for crs, part in zones.items()} == {
        "EPSG:32612": 21, "EPSG:32613": 69, "EPSG:32614": 10,
    }  # fmt: skip
    tree = xr.DataTree.from_dict(
        {crs: cubekit.open_cube(part[:2], bands=["B04"]) for crs, part in zones.items()}
    )
    for crs in zones:
        cube = tree[crs].to_dataset()
        assert f"EPSG:{cube.odc.geobox.crs.epsg}" == crs
        assert abs(cube.odc.geobox.resolution.x) == 10  # on its own pixels
