"""Cubes against rasterio reads of the same files, put together by hand."""

import datetime as dt
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio
import rasterio.warp
from odc.geo.geobox import GeoBox

from cubekit.cube.contract import MAIN, Encoding, check_cube, encoding_of, geobox_of, to_physical
from cubekit.cube.fuse import FailedReadWarning
from cubekit.cube.load import open_cube
from cubekit.cube.reader import Source, read_values
from cubekit.cube.scenes import MissingAssetWarning
from cubekit.errors import CubeError, MetadataMismatchError, OptionError, SourceError, UnknownNameError
from cubekit.grids import grid

Array = npt.NDArray[Any]
TEN = GeoBox.from_bbox((400_000, 4_400_000, 401_200, 4_400_960), "EPSG:32630", resolution=10)
TWENTY, SIXTY = TEN.zoom_out(2), TEN.zoom_out(6)
S2 = "sentinel-2-l2a"
CODED = {"scale": 1e-4, "offset": -0.1}


def numbers(box: GeoBox, seed: int = 0, dtype: str = "uint16") -> Array:
    return np.random.default_rng(seed).integers(1, 10_000, box.shape.yx).astype(dtype)


def full(value: float, box: GeoBox = TEN, dtype: str = "uint16") -> Array:
    return np.full(box.shape.yx, value, dtype)


def values_of(cube: Any) -> Array:
    return np.asarray(cube[MAIN].to_numpy())


def enlarge(values: Array, by: int) -> Array:
    return np.repeat(np.repeat(values, by, axis=0), by, axis=1)


def test_bands_of_three_resolutions_meet_on_the_fine_grid(make_item: Any) -> None:
    ten, twenty, sixty = numbers(TEN, 1), numbers(TWENTY, 2), numbers(SIXTY, 3)
    bands = {"B04": (ten, TEN), "B11": (twenty, TWENTY), "B01": (sixty, SIXTY)}
    cube = open_cube([make_item("a", "2023-05-01T10:30:31.024", bands, coding=CODED)])
    check_cube(cube)
    assert geobox_of(cube) == TEN
    assert cube.indexes["band"].tolist() == ["B04", "B11", "B01"]
    assert cube.indexes["time"].tolist() == [np.datetime64("2023-05-01")]
    assert encoding_of(cube[MAIN]) == Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)
    assert cube[MAIN].dtype == "uint16"
    np.testing.assert_array_equal(values_of(cube)[0], [ten, enlarge(twenty, 2), enlarge(sixty, 6)])


def test_a_part_of_a_scene_equals_a_window_read(make_item: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (numbers(TEN), TEN)})
    box = grid(crs="EPSG:32630", resolution=10, bounds=(400_305, 4_400_333, 400_777, 4_401_200))
    cube = open_cube([item], box)
    with rasterio.open(item.assets["red"].href) as file:
        window = file.window(*box.boundingbox.bbox)
        expected = file.read(1, window=window, boundless=True, fill_value=0)
    np.testing.assert_array_equal(values_of(cube)[0, 0], expected)


def test_scenes_in_two_zones_meet_on_one_grid(make_item: Any) -> None:
    # Overlapping squares on both sides of the 6th meridian, in zones 31 and 32.
    west = GeoBox.from_bbox((710_000, 5_540_000, 717_000, 5_546_000), "EPSG:32631", resolution=20)
    east = GeoBox.from_bbox((282_000, 5_540_000, 290_000, 5_546_000), "EPSG:32632", resolution=20)
    items = [
        make_item("w", "2023-05-01T10:00", {"red": (numbers(west, 1), west)}),
        make_item("e", "2023-05-01T10:01", {"red": (numbers(east, 2), east)}),
    ]
    box = grid(crs="EPSG:3035", resolution=20, bbox=(5.93, 49.95, 6.1, 50.03))
    found = values_of(open_cube(items, box))[0, 0]
    layers = []
    for item in items:
        out = np.zeros(box.shape.yx, "uint16")
        with rasterio.open(item.assets["red"].href) as file:
            rasterio.warp.reproject(
                rasterio.band(file, 1),
                out,
                dst_transform=box.transform,
                dst_crs="EPSG:3035",
                src_nodata=0,
                dst_nodata=0,
            )
        layers.append(out)
    expected = np.where(layers[0] > 0, layers[0], layers[1])
    assert (layers[0] > 0).any()
    assert (layers[1] > 0).any()
    # GDAL approximates the transformation by up to an eighth of a pixel.
    assert (found != expected).mean() < 0.05
    assert (found > 0).mean() == pytest.approx((expected > 0).mean(), abs=1e-3)


def test_scenes_of_a_solar_day_are_one_step_and_the_earlier_lies_on_top(make_item: Any) -> None:
    west = GeoBox.from_bbox((-150.0, 10.0, -149.99, 10.01), "EPSG:4326", resolution=0.001)
    first, second = full(5, west), full(7, west)
    first[:3] = 0
    items = [
        make_item("b", "2023-05-02T00:30", {"red": (second, west)}),  # local: afternoon of 1 May
        make_item("a", "2023-05-01T23:30", {"red": (first, west)}),
        make_item("c", "2023-05-02T22:00", {"red": (full(9, west), west)}),
    ]
    cube = open_cube(items)
    assert [str(day)[:10] for day in cube["time"].to_numpy()] == ["2023-05-01", "2023-05-02"]
    found = values_of(cube)[:, 0]
    assert (found[0, :3] == 7).all()
    assert (found[0, 3:] == 5).all()
    assert (found[1] == 9).all()
    by_time = open_cube(items, group_by="time")
    assert by_time.sizes["time"] == 3
    assert by_time.indexes["time"][0] == np.datetime64("2023-05-01T23:30")


def test_ties_in_time_are_broken_by_identifier_whatever_the_order_of_items(make_item: Any) -> None:
    items = [make_item(n, "2023-05-01", {"red": (full(v), TEN)}) for n, v in (("b", 2), ("a", 1))]
    assert (values_of(open_cube(items)) == 1).all()
    assert (values_of(open_cube(items[::-1])) == 1).all()
    with pytest.raises(CubeError, match="group_by='item'"):
        open_cube(items, group_by="item")


def s2_scene(make_item: Any, name: str, when: str, red: Array, scl: Array, **properties: Any) -> pystac.Item:
    properties = {"s2:processing_baseline": "05.10"} | properties
    bands = {"B04": (red, TEN), "SCL": (scl, TWENTY)}
    item: pystac.Item = make_item(name, when, bands, properties=properties)
    for asset in item.assets.values():
        asset.extra_fields["raster:bands"][0].pop("nodata", None)
    return item


def test_clouds_are_taken_out_before_scenes_are_laid_over_each_other(make_item: Any, as_items: Any) -> None:
    scl = full(4, TWENTY, "uint8")
    cloudy = scl.copy()
    cloudy[:10] = 9
    items = [
        s2_scene(make_item, "a", "2023-05-01T10:00", full(2000), cloudy),
        s2_scene(make_item, "b", "2023-05-01T10:01", full(3000), scl),
    ]
    plain = values_of(open_cube(as_items(items, S2), bands=["red"]))[0, 0]
    assert (plain == 2000).all()
    masked = values_of(open_cube(as_items(items, S2), bands=["red"], mask="clouds"))[0, 0]
    assert (masked[:20] == 3000).all()
    assert (masked[20:] == 2000).all()
    alone = values_of(open_cube(as_items(items[:1], S2), bands=["red"], mask=("clouds", "snow")))[0, 0]
    assert (alone[:20] == 0).all()
    assert (alone[20:] == 2000).all()


def test_masks_grow_across_blocks(make_item: Any, as_items: Any) -> None:
    scl = full(4, TWENTY, "uint8")
    scl[24, 30] = 8
    items = as_items([s2_scene(make_item, "a", "2023-05-01", full(2000), scl)], S2)
    whole = values_of(open_cube(items, bands=["B04"], mask="clouds", dilate=7))
    parts = values_of(open_cube(items, bands=["B04"], mask="clouds", dilate=7, chunks={"y": 17, "x": 13}))
    np.testing.assert_array_equal(whole, parts)
    rows, cols = np.nonzero(whole[0, 0] == 0)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (48 - 7, 49 + 7, 60 - 7, 61 + 7)
    assert (whole == 0).sum() == 16 * 16


def test_what_the_quality_band_does_not_cover_is_masked(make_item: Any, as_items: Any) -> None:
    item = s2_scene(make_item, "a", "2023-05-01", full(2000), full(4, TWENTY, "uint8"))
    del item.assets["SCL"]
    with pytest.raises(SourceError, match="a lacks SCL"):
        open_cube(as_items([item], S2), bands=["B04"], mask="clouds")
    with pytest.warns(MissingAssetWarning, match="a lacks SCL"):
        cube = open_cube(as_items([item], S2), bands=["B04"], mask="clouds", on_error="record")
    assert (values_of(cube) == 0).all()


@pytest.mark.parametrize(
    ("properties", "shift"),
    [
        ({"s2:processing_baseline": "03.01"}, 1000),
        ({"s2:processing_baseline": "04.00"}, 0),
        ({"s2:processing_baseline": "05.10"}, 0),
        ({"s2:processing_baseline": None, "processing:version": "02.14"}, 1000),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, 1000),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}, 0),
        ({"s2:processing_baseline": None, "s2:product_uri": "S2A_MSIL2A_20230422T1_N0509_R098.SAFE"}, 0),
        ({"s2:processing_baseline": None, "sentinel:product_id": "S2A_MSIL2A_20200714T1_N0214_R123"}, 1000),
        ({"s2:processing_baseline": "02.09", "earthsearch:boa_offset_applied": False}, 1000),
    ],
)
def test_every_processing_baseline_gives_the_same_reflectance(
    make_item: Any, as_items: Any, properties: dict[str, Any], shift: int
) -> None:
    red = numbers(TEN)
    red[0, :4] = 0, 1, 999, 65_535
    item = s2_scene(make_item, "a", "2023-05-01", red, full(4, TWENTY, "uint8"), **properties)
    cube = open_cube(as_items([item], S2), bands=["B04"])
    assert cube.attrs["item_shifts"] == [shift]
    assert encoding_of(cube[MAIN]) == Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)
    expected = np.where(red == 0, 0, np.minimum(red.astype(int) + shift, 65_535))
    np.testing.assert_array_equal(values_of(cube)[0, 0], expected)
    physical = to_physical(cube[MAIN]).to_numpy()[0, 0]
    truth = red.astype(float) * 1e-4 + (0.0 if shift else -0.1)
    unsaturated = (red > 0) & (red < 60_000)
    np.testing.assert_allclose(physical[unsaturated], truth[unsaturated], atol=1e-6)
    assert np.isnan(physical[0, 0])


def test_an_item_that_does_not_say_its_baseline_is_refused(make_item: Any, as_items: Any) -> None:
    item = s2_scene(make_item, "a", "2023-05-01", full(1), full(4, TWENTY, "uint8"))
    item.properties.pop("s2:processing_baseline")
    with pytest.raises(CubeError, match=r"'a' says neither its processing baseline"):
        open_cube(as_items([item], S2), bands=["B04"])
    item.assets["B04"].extra_fields["raster:bands"][0] |= {"scale": 1e-4, "offset": 0}
    assert open_cube(as_items([item], S2), bands=["B04"]).attrs["item_shifts"] == [1000]


def test_bands_of_different_coding_need_physical_values(make_item: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (full(2000), TEN), "lst": (full(3000), TEN)}, coding=CODED)
    item.assets["lst"].extra_fields["raster:bands"][0] |= {"scale": 0.1, "offset": 0}
    with pytest.raises(CubeError, match=r"red: uint16, scale 0.0001, offset -0.1; lst: .*dtype='float32'"):
        open_cube([item])
    cube = open_cube([item], dtype="float32")
    assert cube[MAIN].dtype == "float32"
    np.testing.assert_allclose(values_of(cube)[0, :, 0, 0], [0.1, 300.0], rtol=1e-6)


def test_scenes_with_a_whole_number_between_their_codings_are_shifted(make_item: Any) -> None:
    items = [
        make_item("a", "2023-05-01", {"red": (full(2000), TEN)}, coding={"scale": 0.1, "offset": 0}),
        make_item("b", "2023-05-02", {"red": (full(2000), TEN)}, coding={"scale": 0.1, "offset": 3}),
    ]
    assert values_of(open_cube(items))[:, 0, 0, 0].tolist() == [2000, 2030]
    items[1].assets["red"].extra_fields["raster:bands"][0]["offset"] = 3.05
    with pytest.raises(CubeError, match="no whole number turns one into the other"):
        open_cube(items)


@pytest.mark.parametrize(
    ("dtype", "nodata", "hole", "fill"),
    [("int16", -9999, -9999, -9999), ("float32", float("nan"), np.nan, np.nan), ("uint8", 0, 0, 0)],
)
def test_nodata_of_every_kind_stays_nodata(
    make_item: Any, dtype: str, nodata: float, hole: float, fill: float
) -> None:
    data = full(7, TEN, dtype)
    data[0, 0] = hole
    item = make_item("a", "2023-05-01", {"red": (data, TEN)}, nodata=nodata)
    cube = open_cube([item], TEN.pad(1))
    found = values_of(cube)[0, 0]
    np.testing.assert_array_equal(found[1:-1, 1:-1], data)
    np.testing.assert_array_equal(found[0], np.full(found.shape[1], fill, dtype))
    assert np.isnan(to_physical(cube[MAIN]).to_numpy()[0, 0, 1, 1])


def test_without_any_nodata_the_end_of_the_range_stands_for_it_and_is_refused_as_data(make_item: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (full(0, dtype="uint8"), TEN)}, nodata=None)
    cube = open_cube([item], TEN.pad(1))
    assert encoding_of(cube[MAIN]).nodata == 255
    found = values_of(cube)[0, 0]
    assert (found[1:-1, 1:-1] == 0).all()
    assert (found[0] == 255).all()
    bright = make_item("b", "2023-05-01", {"red": (full(255, dtype="uint8"), TEN)}, nodata=None)
    with pytest.raises(SourceError, match=r"item 'b'.*holds 255 as data"):
        open_cube([bright])[MAIN].compute()


def test_nodata_that_only_the_file_knows_is_found(make_item: Any) -> None:
    data = full(7)
    data[:5] = 42
    item = make_item("a", "2023-05-01", {"red": (data, TEN)}, nodata=42)
    del item.assets["red"].extra_fields["raster:bands"][0]["nodata"]
    cube = open_cube([item])
    assert encoding_of(cube[MAIN]).nodata == 42
    np.testing.assert_array_equal(values_of(cube)[0, 0], data)


def test_items_without_projection_are_opened_once(make_item: Any, as_items: Any) -> None:
    red, nir = numbers(TEN, 1), numbers(TWENTY, 2)
    item = make_item("a", "2023-05-01", {"red": (red, TEN), "nir": (nir, TWENTY)}, projection=False)
    cube = open_cube(as_items([item]))
    np.testing.assert_array_equal(values_of(cube)[0], [red, enlarge(nir, 2)])


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_threads_processes_and_chunks_give_equal_cubes(make_item: Any, scheduler: str) -> None:
    east = GeoBox.from_bbox((400_500, 4_400_300, 401_900, 4_401_200), "EPSG:32630", resolution=20)
    items = [
        make_item(f"i{n}", f"2023-05-{n // 2 + 1:02}T10:0{n % 2}", {"red": (numbers(box, n), box)})
        for n, box in enumerate((TEN, east, TEN, TWENTY, east))
    ]
    box = GeoBox.from_bbox(rasterio.warp.transform_bounds("EPSG:32630", "EPSG:3035", *TEN.boundingbox.bbox),
                           "EPSG:3035", resolution=10)  # fmt: skip
    with dask.config.set(scheduler="synchronous"):
        expected = values_of(open_cube(items, box, chunks={"time": -1, "y": -1, "x": -1}))
    assert (expected > 0).mean() > 0.3
    with dask.config.set(scheduler=scheduler):
        cube = open_cube(items, box, chunks={"time": 2, "y": (50, box.shape.y - 50), "x": 37})
        np.testing.assert_array_equal(values_of(cube), expected)
        window = cube.isel(time=slice(1, 3), y=slice(11, 99), x=slice(5, 77))
        np.testing.assert_array_equal(values_of(window), expected[1:3, :, 11:99, 5:77])


def test_opening_reads_no_pixel_and_opens_no_file(make_item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_item("a", "2023-05-01", {"red": (numbers(TEN), TEN)})

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("cubekit.cube.reader._open", refuse)
    cube = open_cube([item])
    with pytest.raises(AssertionError, match="a file was opened"):
        cube[MAIN].compute()


def many_items(count: int, day_of: Callable[[int], int]) -> list[pystac.Item]:
    tiles = [GeoBox.from_bbox((x, 4_400_000, x + 109_800, 4_509_800), "EPSG:32630", resolution=10)
             for x in range(300_000, 700_000, 100_000)]  # fmt: skip
    items = []
    for number in range(count):
        box = tiles[number % len(tiles)]
        when = dt.datetime(2016, 1, 1, 10, 30, number % 60, tzinfo=dt.UTC) + dt.timedelta(days=day_of(number))
        properties = {"proj:code": "EPSG:32630", "s2:processing_baseline": "03.01" if number % 2 else "05.10"}
        item = pystac.Item(f"S2A_30T{number % 4}_{when:%Y%m%d}_{number}_L2A", None, None, when, properties)
        for band in ("blue", "green", "red", "nir"):
            href = f"https://bucket.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/30/T/{item.id}/{band}.tif"
            fields = {"proj:shape": list(box.shape.yx), "proj:transform": list(box.transform)[:6]}
            item.add_asset(band, pystac.Asset(href, media_type=pystac.MediaType.COG, extra_fields=fields))
        items.append(item)
    return items


def test_graphs_stay_small_and_hold_no_signature(as_items: Any) -> None:
    items = as_items(many_items(1600, lambda n: n // 4 * 5), S2, signer="planetary-computer")
    cube = open_cube(items, bands=["blue", "green", "red", "nir"])
    array = cube[MAIN].data
    assert cube.sizes == {"time": 400, "band": 4, "y": 10_980, "x": 40_980}
    layers = array.dask.layers
    assert len(layers) == 2  # the blocks, and the plan they share
    text = pickle.dumps(array)
    assert len(text) < 2_000_000
    assert array.npartitions < 15_000
    assert b"sig=" not in text
    assert len(cube.attrs["items"]) == 1600
    assert set(cube.attrs["item_shifts"]) == {0, 1000}


def test_equal_plans_have_equal_keys_and_others_do_not(make_item: Any) -> None:
    items = [make_item("a", "2023-05-01", {"red": (numbers(TEN), TEN)})]
    name = open_cube(items)[MAIN].data.name
    assert open_cube(items)[MAIN].data.name == name
    assert open_cube(items, TEN[:50])[MAIN].data.name != name
    assert open_cube(items, resampling="bilinear")[MAIN].data.name != name


def test_blocks_that_no_scene_touches_are_made_without_reading(
    make_item: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = make_item("a", "2023-05-01", {"red": (full(3), TEN)})
    seen = []

    def count(source: Source, *arguments: Any) -> Any:
        seen.append(source.item)
        return read_values(source, *arguments)

    monkeypatch.setattr("cubekit.cube.ahead.read_values", count)
    wide = GeoBox((TEN.shape.y, TEN.shape.x * 3), TEN.transform, TEN.crs)
    found = values_of(open_cube([item], wide, chunks={"x": TEN.shape.x}))[0, 0]
    assert seen == ["a"]
    assert (found[:, : TEN.shape.x] == 3).all()
    assert (found[:, TEN.shape.x :] == 0).all()


def test_failed_reads_raise_by_default_and_can_be_recorded(make_item: Any) -> None:
    items = [make_item(n, "2023-05-01", {"red": (full(v), TEN)}) for n, v in (("a", 1), ("b", 2))]
    Path(items[0].assets["red"].href).unlink()
    with pytest.raises(SourceError, match="item 'a', asset 'red'"):
        open_cube(items)[MAIN].compute()
    cube = open_cube(items, on_error="record")
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.warns(FailedReadWarning, match="item 'a', asset 'red'"),
    ):
        assert (values_of(cube) == 2).all()


def test_items_whose_projection_contradicts_their_bbox_are_refused(make_item: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (full(1), TEN)})
    item.bbox = [-4.2, 39.7, -4.1, 39.8]
    open_cube([item])
    item.assets["red"].extra_fields["proj:code"] = "EPSG:32631"
    with pytest.raises(MetadataMismatchError, match="Item 'a': its bbox is"):
        open_cube([item])


def test_common_names_aliases_and_keys_find_bands(make_item: Any, as_items: Any) -> None:
    item = make_item("a", "2023-05-01", {"B04": (full(1), TEN), "B08": (full(2), TEN)},
                     properties={"s2:processing_baseline": "05.10"})  # fmt: skip
    cube = open_cube(as_items([item], S2), bands=["nir", "B4"])
    assert cube.indexes["band"].tolist() == ["nir", "B4"]
    assert values_of(cube)[0, :, 0, 0].tolist() == [2, 1]
    with pytest.raises(UnknownNameError, match=r"no band 'redd'.*'red'"):
        open_cube(as_items([item], S2), bands=["redd"])
    with pytest.raises(UnknownNameError, match=r"'B44'.*'B04'"):
        open_cube([item], bands=["B44"])
    with pytest.raises(UnknownNameError, match=r"'cloud'.*'clouds'"):
        open_cube(as_items([item], S2), bands=["red"], mask="cloud")


def test_assets_beyond_the_catalog_can_be_asked_for_and_stand_in_for_default_bands(
    make_item: Any, as_items: Any
) -> None:
    bands = {"B01": (full(3), TEN), "extra": (full(4), TEN)}
    properties = {"s2:processing_baseline": "05.10"}
    items = as_items([make_item("a", "2023-05-01", bands, properties=properties)], S2)
    assert open_cube(items).indexes["band"].tolist() == ["B01"]
    assert (values_of(open_cube(items, bands=["extra"])) == 4).all()


def test_wishes_that_cannot_be_met_are_refused(make_item: Any, as_items: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (full(1), TEN)})
    with pytest.raises(CubeError, match="no items"):
        open_cube([])
    with pytest.raises(CubeError, match="None of the 1 items touches the grid"):
        open_cube([item], TEN.translate_pix(5000, 0))
    with pytest.raises(CubeError, match="needs a collection with quality rules"):
        open_cube([item], mask="clouds")
    with pytest.raises(OptionError, match="each once"):
        open_cube([item], bands=["red", "red"])
    with pytest.raises(OptionError, match="all 1 bands of a pixel stay in one block"):
        open_cube([item], chunks={"band": 2})
    with pytest.raises(OptionError, match="chunks='z'"):
        open_cube([item], chunks={"z": 2})
    with pytest.raises(OptionError, match=r"resampling='biliner'.*'bilinear'"):
        open_cube([item], resampling="biliner")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="resampling names no band: 'rad'"):
        open_cube([item], resampling={"rad": "nearest"})
    with pytest.raises(OptionError, match="rotated"):
        open_cube([item], TEN.rotate(10))


def test_the_native_grid_covers_all_scenes_or_is_refused(make_item: Any) -> None:
    right = TEN.translate_pix(60, -30)
    items = [
        make_item(n, "2023-05-01", {"red": (full(v, b), b)}) for n, v, b in (("a", 1, TEN), ("b", 2, right))
    ]
    cube = open_cube(items)
    assert cube.sizes["y"] == TEN.shape.y + 30
    assert cube.sizes["x"] == TEN.shape.x + 60
    found = values_of(cube)[0, 0]
    assert ((found == 1).sum(), (found > 0).sum()) == (TEN.shape.y * TEN.shape.x, 2 * 96 * 120 - 66 * 60)
    half = make_item("c", "2023-05-01", {"red": (full(2, TEN), TEN.translate_pix(0.5, 0))})
    with pytest.raises(CubeError, match="not on one grid"):
        open_cube([items[0], half])
    zone = GeoBox(TEN.shape, TEN.transform, "EPSG:32631")
    with pytest.raises(CubeError, match=r"several CRSs \(EPSG:32630, EPSG:32631\)"):
        open_cube([items[0], make_item("d", "2023-05-01", {"red": (full(2), zone)})])


def test_one_pixel_and_prime_sizes(make_item: Any) -> None:
    prime = GeoBox((53, 37), TEN.transform, TEN.crs)
    item = make_item("a", "2023-05-01", {"red": (numbers(prime), prime)})
    np.testing.assert_array_equal(
        values_of(open_cube([item], chunks={"y": 7, "x": 11}))[0, 0], numbers(prime)
    )
    one = open_cube([item], prime[20:21, 30:31])
    assert values_of(one).tolist() == [[[[numbers(prime)[20, 30]]]]]


def test_cubes_survive_pickling(make_item: Any) -> None:
    cube = open_cube([make_item("a", "2023-05-01", {"red": (numbers(TEN), TEN)})])
    np.testing.assert_array_equal(values_of(pickle.loads(pickle.dumps(cube))), values_of(cube))  # noqa: S301


def test_float_scenes_of_different_scale_share_the_first_coding(make_item: Any) -> None:
    items = [
        make_item(n, f"2023-05-0{d}", {"red": (full(5, dtype="float32"), TEN)}, nodata=-1, coding=coding)
        for n, d, coding in (("a", 1, {"scale": 0.5, "offset": 1}), ("b", 2, {"scale": 2, "offset": 0}))
    ]
    cube = open_cube(items)
    assert encoding_of(cube[MAIN]) == Encoding(dtype="float32", nodata=-1, scale=0.5, offset=1)
    assert to_physical(cube[MAIN]).to_numpy()[:, 0, 0, 0].tolist() == [3.5, 10.0]


def test_interpolated_numbers_never_become_nodata(make_item: Any) -> None:
    pair = np.tile(np.array([-10_000, -9_998], "int16"), (TEN.shape.y, TEN.shape.x // 2))
    item = make_item("a", "2023-05-01", {"red": (pair, TEN)}, nodata=-9999)
    between = TEN.translate_pix(0.5, 0)[:, 1:-1]
    found = values_of(open_cube([item], between, resampling="bilinear"))
    assert set(np.unique(found)) == {-9998}
