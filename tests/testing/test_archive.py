import hashlib
import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from shapely.geometry import shape

from cubekit.errors import OptionError
from cubekit.testing.archive import SampleArchive, write_sample_archive
from cubekit.testing.scene import ASSETS
from cubekit.typing import Array

BANDS = tuple(asset for asset in ASSETS if asset != "SCL")
SIZE = 100


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SampleArchive:
    return write_sample_archive(tmp_path_factory.mktemp("archive"), size=SIZE, dates=4, progress=False)


@pytest.fixture(scope="module")
def items(archive: SampleArchive) -> list[pystac.Item]:
    collection = pystac.ItemCollection.from_dict(archive.item_collection())
    return list(collection)


def read(item: pystac.Item, asset: str) -> Array:
    with rasterio.open(item.assets[asset].href) as file:
        return np.asarray(file.read(1))


def reflectance(item: pystac.Item, asset: str) -> Array:
    band = RasterExtension.ext(item.assets[asset]).bands
    assert band is not None
    numbers = read(item, asset)
    scale, offset = band[0].scale, band[0].offset
    assert scale is not None
    assert offset is not None
    return np.where(numbers == 0, np.nan, numbers * scale + offset)


def by_date(items: list[pystac.Item]) -> list[list[pystac.Item]]:
    dates = defaultdict(list)
    for item in items:
        assert item.datetime is not None
        dates[item.datetime.date()].append(item)
    return list(dates.values())


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_equal_seeds_write_equal_bytes_also_over_an_older_archive(tmp_path: Path) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    write_sample_archive(first, size=SIZE, dates=1, seed=3)
    write_sample_archive(second, size=SIZE, dates=1, seed=3)
    write_sample_archive(other, size=SIZE, dates=1, seed=4)
    written = digests(first)
    assert len(written) == 2 * len(ASSETS) + 4
    assert digests(second) == written
    assert not any(
        digests(other).get(name) == digest for name, digest in written.items() if "json" not in name
    )
    write_sample_archive(first, size=SIZE, dates=1, seed=3)
    assert digests(first) == written


def test_files_are_cogs_that_match_their_items(items: list[pystac.Item]) -> None:
    for item in items:
        assert set(item.assets) == set(ASSETS)
        for name, asset in item.assets.items():
            described = ProjectionExtension.ext(asset)
            band = (RasterExtension.ext(asset).bands or [])[0]
            with rasterio.open(asset.href) as file:
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG", name
                assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE", name
                assert file.crs.to_string() == described.code
                assert list(file.shape) == described.shape
                assert list(file.transform)[:6] == described.transform
                assert (file.dtypes[0], file.nodata) == (band.data_type, band.nodata)


def test_large_files_have_overviews(tmp_path: Path) -> None:
    archive = write_sample_archive(tmp_path, size=300, dates=1)
    with rasterio.open(archive.truth) as file:
        assert file.overviews(1) == [2, 4]
        assert file.block_shapes == [(256, 256)]


def test_bands_of_both_resolutions_cover_the_same_ground_on_the_20_m_grid(items: list[pystac.Item]) -> None:
    for item in items:
        bounds = set()
        for asset in ASSETS:
            with rasterio.open(item.assets[asset].href) as file:
                bounds.add(tuple(file.bounds))
        (only,) = bounds
        assert all(edge % 20 == 0 for edge in only)


def test_a_date_has_two_scenes_seconds_apart_that_agree_where_they_overlap(items: list[pystac.Item]) -> None:
    assert len(by_date(items)) == 4
    for west, east in by_date(items):
        assert west.datetime is not None
        assert east.datetime is not None
        assert 0 < (east.datetime - west.datetime).total_seconds() < 10
        for asset in ASSETS:
            left, right = read(west, asset), read(east, asset)
            overlap = left.shape[1] // 5
            assert np.array_equal(left[:, -overlap:], right[:, :overlap]), (west.id, asset)
            assert not np.array_equal(left, right)


def test_scene_classification_is_nodata_exactly_where_every_band_is(items: list[pystac.Item]) -> None:
    partial = 0
    for item in items:
        outside = read(item, "SCL") == 0
        partial += outside.any()
        assert item.properties["s2:nodata_pixel_percentage"] == pytest.approx(100 * outside.mean(), abs=0.01)
        for band in BANDS:
            numbers = read(item, band)
            steps = numbers.shape[0] // outside.shape[0]
            assert np.array_equal(numbers == 0, outside.repeat(steps, 0).repeat(steps, 1)), (item.id, band)
    assert partial == 1


def test_footprints_leave_out_what_the_swath_misses(items: list[pystac.Item]) -> None:
    for item in items:
        assert item.geometry is not None
        footprint = gpd.GeoSeries([shape(item.geometry)], crs="EPSG:4326").to_crs("EPSG:32633")
        covered = footprint.area[0] / (SIZE * 10) ** 2
        assert covered == pytest.approx(1 - item.properties["s2:nodata_pixel_percentage"] / 100, abs=0.01)


def test_scene_classes_say_what_the_pixels_show(archive: SampleArchive, items: list[pystac.Item]) -> None:
    with rasterio.open(archive.truth) as file:
        truth = file.read(1)[::2, ::2]
    seen = set()
    for item in items:
        scl, blue, infrared = read(item, "SCL"), read(item, "B02"), reflectance(item, "B8A")
        blue = reflectance(item, "B02").reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
        seen |= set(np.unique(scl).tolist())
        column = (read(item, "B02").shape[1] * 4 // 5 if item.id.split("_")[4] == "T33UIB" else 0) // 2
        here = truth[:, column : column + SIZE // 2]
        clear = np.isin(scl, (4, 5, 6))
        if (scl == 9).sum() > 20:
            assert np.median(blue[scl == 9]) > 3 * np.median(blue[clear])
        if (scl == 3).sum() > 20:
            assert np.median(infrared[scl == 3]) < np.median(infrared[scl == 4])
        assert (here[scl == 6] == 6).mean() > 0.9
        cover = 100 * np.isin(scl, (8, 9, 10)).sum() / (scl != 0).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(cover, abs=0.01)
    assert seen >= {0, 3, 4, 5, 6, 8, 9}
    assert seen <= {0, 3, 4, 5, 6, 8, 9, 10}


def test_reflectance_does_not_depend_on_the_processing_baseline(items: list[pystac.Item]) -> None:
    baselines = {item.properties["s2:processing_baseline"] for item in items}
    assert baselines == {"03.01", "05.09"}
    for item in items:
        clear_water = read(item, "SCL") == 6
        dark = np.nanmedian(reflectance(item, "B12")[clear_water])
        assert 0 <= dark < 0.06, (item.id, item.properties["s2:processing_baseline"])
        assert read(item, "B12")[read(item, "SCL") != 0].min() >= 1


def test_narrow_and_broad_near_infrared_agree_across_resolutions(items: list[pystac.Item]) -> None:
    for item in items:
        broad = reflectance(item, "B08").reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
        narrow = reflectance(item, "B8A")
        valid = np.isfinite(broad)
        assert np.corrcoef(broad[valid], narrow[valid])[0, 1] > 0.99


def test_items_are_valid_stac(archive: SampleArchive, items: list[pystac.Item]) -> None:
    collection = pystac.Collection.from_file(str(archive.folder / "collection.json"))
    assert len({item.id for item in items}) == len(items) == 8
    start, end = (datetime.fromisoformat(day) for day in archive.datetime.split("/"))
    west, south, east, north = archive.bbox
    for item in items:
        assert item.collection_id == collection.id == "sentinel-2-l2a"
        assert item.datetime is not None
        assert start.date() <= item.datetime.date() <= end.date()
        assert item.bbox is not None
        assert west - 1e-5 <= item.bbox[0] < item.bbox[2] <= east + 1e-5
        assert south - 1e-5 <= item.bbox[1] < item.bbox[3] <= north + 1e-5
        assert item.ext.has("proj")
        assert item.ext.proj.code == archive.crs
        assert "I" in item.properties["s2:mgrs_tile"], "the letter I marks an invented tile"


def test_hrefs_follow_the_base(archive: SampleArchive) -> None:
    stored = json.loads(archive.items.read_text())
    served = archive.item_collection("http://127.0.0.1:8000/")
    for plain, absolute in zip(stored["features"], served["features"], strict=True):
        for name, asset in plain["assets"].items():
            assert (archive.folder / asset["href"]).is_file()
            assert absolute["assets"][name]["href"] == f"http://127.0.0.1:8000/{asset['href']}"


def test_every_pixel_of_the_area_has_a_true_class(archive: SampleArchive) -> None:
    with rasterio.open(archive.truth) as file:
        codes, colours = np.unique(file.read(1)), file.colormap(1)
        assert file.shape == (SIZE, SIZE + 80)
        assert transform_bounds(file.crs, "EPSG:4326", *file.bounds) == pytest.approx(archive.bbox)
    assert set(codes.tolist()) == set(archive.codes)
    for code, colour in zip(archive.codes, archive.colours, strict=True):
        assert "#{:02x}{:02x}{:02x}".format(*colours[code][:3]) == colour


def test_labels_are_right_and_spread_over_all_classes(archive: SampleArchive) -> None:
    labels = gpd.read_file(archive.labels)
    with rasterio.open(archive.truth) as file:
        truth, box, grid = file.read(1), file.bounds, file.transform
    assert labels.crs == archive.crs
    assert labels.geometry.is_valid.all()
    assert (labels.geom_type == "Polygon").all()
    bounds = labels.total_bounds
    assert (bounds[:2] >= (box.left, box.bottom)).all()
    assert (bounds[2:] <= (box.right, box.top)).all()
    assert (labels["class"].value_counts().reindex(archive.classes) >= 2).all()
    names = dict(zip(archive.classes, archive.codes, strict=True))
    assert (labels["class"].map(names) == labels["code"]).all()
    for inward, least in ((0, 0.85), (20, 0.995)):
        shapes = [(g.buffer(-inward), c) for g, c in zip(labels.geometry, labels["code"], strict=True)]
        drawn = rasterize([s for s in shapes if not s[0].is_empty], truth.shape, transform=grid)
        share = (drawn == truth)[drawn > 0].mean()
        assert least <= share
        assert (share < 1) or inward, "outlines are imprecise, so that going inwards helps"


@pytest.mark.parametrize(
    ("argument", "value"),
    [("size", 98), ("size", 101), ("size", 4000), ("dates", 0), ("dates", 37), ("seed", -1)],
)
def test_what_cannot_be_made_is_refused_with_the_value(tmp_path: Path, argument: str, value: int) -> None:
    given = {"size": SIZE, "dates": 1, "seed": 0} | {argument: value}
    with pytest.raises(OptionError, match=f"{argument}={value}"):
        write_sample_archive(tmp_path / "new", size=given["size"], dates=given["dates"], seed=given["seed"])
    assert not list(tmp_path.rglob("*.tif"))
