"""Every real item file under the shared data: served, searched, and opened as a lazy cube."""

from pathlib import Path

import pytest
import shapely

import cubekit
from cubekit.cube.contract import check_cube
from cubekit.testing.servers import stac_server

SITE2 = "planetary_computer/site2-2020_jun_jul-35MNM.geojson"

REAL = [
    (SITE2, "sentinel-2-l2a"),
    ("planetary_computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", "sentinel-2-l2a"),
    ("planetary_computer/sentinel-2-l2a-pc.json", "sentinel-2-l2a"),
    ("planetary_computer/landsat-c2-l2-pc.json", "landsat-c2-l2"),
    ("planetary_computer/100-landsat-items.parquet", "landsat-c2-l2"),
    ("planetary_computer/cop-dem-glo-30-pc.json", "cop-dem-glo-30"),
    ("planetary_computer/io-lulc-annual-v02-pc.json", "io-lulc-annual-v02"),
    ("earth_search_v0/S2A_28QCH_20200714_0_L2A.json", "sentinel-s2-l2a-cogs"),
    ("earth_search_v1/sentinel-2-l2a_item_collection.json", "sentinel-2-c1-l2a"),
    ("earth_search_v1/100-sentinel-2-items.parquet", "sentinel-2-l2a"),
    ("modis_13q1_061/MOD13Q1.A2022017.h12v11.061.json", "modis-13Q1-061"),
    ("modis_13q1_061/MYD13Q1.A2022009.h09v06.061.json", "modis-13Q1-061"),
    ("stactools_sentinel2/S2A_T07HFE_20190212T192646_L2A.json", "sentinel2-l2a-example"),
    ("usgs/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", "landsat-c2l2-sr"),
    ("usgs/LC08_L2SR_081119_20200101_20200823_02_T2.json", "landsat-c2l2-sr"),
    ("dea/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json", "items"),
]


@pytest.mark.shared
@pytest.mark.parametrize(("file", "collection"), REAL, ids=[entry[0][-28:] for entry in REAL])
def test_every_file_of_items_becomes_a_lazy_cube(shared: Path, file: str, collection: str) -> None:
    pytest.importorskip("rustac")
    with stac_server(shared / "data/stac" / file) as url:
        items = cubekit.search(collection, url=url)
    if collection == "items":  # names no collection itself; the catalog knows its bands
        items = cubekit.open_items(shared / "data/stac" / file, collection="ga_ls8c_ard_3")
    place = shapely.geometry.shape(items[0].geometry or {}).representative_point()
    around = (place.x - 0.05, place.y - 0.05, place.x + 0.05, place.y + 0.05)
    # Bands of one product may be coded differently; decoded they always go together.
    cube = cubekit.open_cube(items, cubekit.grid(resolution=100, bbox=around), dtype="float32")
    check_cube(cube)
    assert cube["data"].chunks is not None
    assert cube["data"].size > 0
