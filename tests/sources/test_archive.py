"""Archives on disk: real ones against rasterio and xarray, made ones with known faults."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr

from cubekit.errors import ArchiveError, OptionError, SecurityError, UnknownNameError
from cubekit.sources.archive import open_archive
from cubekit.sources.headers import read_layers
from cubekit.sources.items import Items, open_items

CBERS = "CB4_64_16D_STK_022024_{date:%Y-%m-%d}_{end:%Y-%m-%d}_{band}.tif"


def fields(items: Items, scene: int, band: str) -> dict[str, Any]:
    asset = items.asset(items[scene], band)
    assert asset is not None
    return asset.extra_fields


def check_against_rasterio(items: Items) -> None:
    """Compare what items say with the headers as rasterio reads them."""
    for scene in items[:: max(1, len(items) // 5)]:
        for asset in scene.assets.values():
            with rasterio.open(items.href(asset)) as data:
                extra = asset.extra_fields
                crs = rasterio.CRS.from_user_input(extra.get("proj:code") or extra["proj:wkt2"])
                assert crs == data.crs or crs.to_proj4() == data.crs.to_proj4()
                assert tuple(extra["proj:shape"]) == data.shape
                assert tuple(extra["proj:transform"]) == tuple(data.transform)[:6]
                assert extra["raster:bands"][0]["data_type"] == data.dtypes[0]
                west, south, east, north = rasterio.warp.transform_bounds(data.crs, "EPSG:4326", *data.bounds)
                assert scene.bbox == pytest.approx([west, south, east, north])


@pytest.mark.shared
def test_cbers_periods_in_a_crs_without_code(shared: Path) -> None:
    items = open_archive(shared / "data/cbers4_bahia_2018_2019", CBERS, collection="cbers4-awfi-16d")
    assert len(items) == 23
    assert items.bands == ("NDVI",)
    assert items.datetimes[0] == np.datetime64("2018-08-29")
    assert items.datetimes[-1] == np.datetime64("2019-08-13")
    first = items[0]
    assert first.properties["end_datetime"] == "2018-09-13T23:59:59Z"
    extra = fields(items, 0, "NDVI")
    assert "proj:code" not in extra
    assert "Albers" in extra["proj:wkt2"]
    assert extra["raster:bands"] == [{"data_type": "int16", "nodata": -9999, "scale": 1e-4, "offset": 0.0}]
    check_against_rasterio(items)


@pytest.mark.shared
def test_modis_jp2_takes_nodata_from_catalog_or_caller(shared: Path) -> None:
    folder, pattern = shared / "data/modis_jp2_sinop_2013_2014", "TERRA_MODIS_{tile}_{band}_{date}.jp2"
    known = open_archive(folder, pattern, collection="modis-13q1-061")
    assert len(known) == 12
    assert fields(known, 0, "NDVI")["raster:bands"][0]["nodata"] == -3000
    assert known[0].properties["cubekit:tile"] == "012010"
    plain = open_archive(folder, pattern)
    assert fields(plain, 0, "NDVI")["raster:bands"] == [{"data_type": "int16"}]
    told = open_archive(folder, pattern, nodata={"NDVI": -3000}, scale=1e-4, offset=0.5)
    assert fields(told, 0, "NDVI")["raster:bands"] == [
        {"data_type": "int16", "nodata": -3000, "scale": 1e-4, "offset": 0.5}
    ]
    check_against_rasterio(known)


@pytest.mark.shared
def test_netcdf_stacks_of_two_resolutions_join_by_date(shared: Path) -> None:
    folder = shared / "data/s2_l8_s1_flanders_patch"
    patterns = ["S2_L2A_10m_*.nc", "S2_L2A_20m_*.nc"]
    with pytest.raises(ArchiveError, match=r"4 file\(s\) fit no pattern.*on_unmatched='skip': AgERA5"):
        open_archive(folder, patterns)
    items = open_archive(folder, patterns, on_unmatched="skip", collection="sentinel-2-l2a")
    assert len(items) == 118
    assert items.bands == ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL")
    for resolution, band, side in (("10m", "B04", 64), ("20m", "SCL", 32)):
        file = next(folder.glob(f"S2_L2A_{resolution}_*.nc"))
        with xr.open_dataset(file, mask_and_scale=False) as data:
            assert (items.datetimes == data["time"].to_numpy()).all()
            for scene in (0, 57, 117):
                extra = fields(items, scene, band)
                assert extra["cubekit:band"] == scene + 1
                assert extra["proj:shape"] == [side, side]
                name = f"netcdf:{file}:{extra['cubekit:variable']}"
                with rasterio.open(name) as layer:
                    np.testing.assert_array_equal(layer.read(extra["cubekit:band"]), data[band][scene])
    assert fields(items, 0, "red")["raster:bands"][0] == {
        "data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": 0.0,
    }  # fmt: skip
    some = open_archive(folder, patterns, on_unmatched="skip", bands=["B04", "SCL"])
    assert some.bands == ("B04", "SCL")


@pytest.mark.shared
def test_seasons_by_first_and_last_day(shared: Path) -> None:
    pattern = "**/{band}_landsat.*_s_{date:%Y%m%d}_{end:%Y%m%d}_*.tif"
    items = open_archive(shared / "data/landsat_seasonal_nl/ndvi/gappy", pattern)
    assert len(items) == 24
    assert items[0].properties["end_datetime"].startswith("2015-03-20")
    assert fields(items, 0, "ndvi")["raster:bands"] == [{"data_type": "uint8", "nodata": 255}]
    check_against_rasterio(items)
    with pytest.raises(ArchiveError, match=r"2 file\(s\) fit no pattern.*static/elev") as raised:
        open_archive(shared / "data/landsat_seasonal_nl", pattern)
    assert "24 file(s) give a band of one date again" in str(raised.value)  # gappy and filled
    both = open_archive(shared / "data/landsat_seasonal_nl", "ndvi/{kind}/" + pattern.removeprefix("**/"))
    assert len(both) == 48
    assert {s.properties["cubekit:kind"] for s in both} == {"gappy", "filled"}


@pytest.mark.shared
def test_landsat_numbers_become_catalog_names(shared: Path) -> None:
    folder = shared / "data/landsat_c2_l2_overview_017036"
    items = open_archive(folder, "LC08_L2SP_{tile}_{date:%Y%m%d}_*_T2_{band}.TIF", collection="landsat-c2-l2")
    assert items.bands == ("blue", "green", "red", "nir08", "swir16", "swir22", "lwir11", "qa_pixel")
    red, thermal = fields(items, 0, "red")["raster:bands"][0], fields(items, 0, "lwir11")["raster:bands"][0]
    assert (red["scale"], red["offset"], red["nodata"]) == (2.75e-5, -0.2, 0)
    assert (thermal["scale"], thermal["offset"]) == (0.00341802, 149.0)
    assert fields(items, 0, "qa_pixel")["raster:bands"] == [{"data_type": "uint16", "nodata": 1}]
    check_against_rasterio(items)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "pattern", "count", "first", "last"),
    [
        ("modis_mod13q1_sinop_2000_2017", "*.nc", 392, "2000-02-18", "2017-02-18"),
        ("modis_mod13q1_sinop_2000_2017", "annual_max/{band}_*{date:%Y}.tif", 16, "2001-01-01", "2016-01-01"),
        ("modis_lai_china_2001_2020", "annual/{band}_{date:%Y}.tif", 20, "2001-01-01", "2020-01-01"),
        ("s2_monthly_belgium", "*_croptypes.nc", 20, "2020-08-01", "2022-03-01"),
        ("s2_slovenia_eopatch", "s2_l1c_*.nc", 5, "2015-07-11", "2015-09-09"),
    ],
)  # fmt: skip
def test_other_archives(
    shared: Path, *, folder: str, pattern: str, count: int, first: str, last: str
) -> None:
    items = open_archive(shared / "data" / folder, pattern, on_unmatched="skip")
    assert len(items) == count
    days = items.datetimes.astype("datetime64[D]")
    assert (str(days[0]), str(days[-1])) == (first, last)


@pytest.mark.shared
def test_an_archive_may_be_saved_and_opened_again(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/cbers4_bahia_2018_2019"
    items = open_archive(folder, CBERS, collection="cbers4-awfi-16d")
    items.save(tmp_path / "items.json")
    again = open_items(tmp_path / "items.json", root=folder)
    assert again.collection == items.collection
    assert again.bbox == pytest.approx(items.bbox)
    asset = again[3].assets["NDVI"]
    assert again.href(asset) == items.href(items[3].assets["NDVI"])
    assert asset.extra_fields == items[3].assets["NDVI"].extra_fields
    with pytest.raises(SecurityError, match="root="):
        open_items(tmp_path / "items.json").href(asset)


def write(path: Path, *, count: int = 1, crs: str | None = "EPSG:32631", **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"driver": "GTiff", "dtype": "uint16", "width": 7, "height": 5, **profile}
    grid = {"crs": crs, "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)} if crs else {}
    with rasterio.open(path, "w", count=count, **grid, **values) as data:
        data.write(np.ones((count, values["height"], values["width"]), values["dtype"]))
    return path


def test_one_item_per_date_and_tile(tmp_path: Path) -> None:
    for tile in ("a", "b"):
        for day in ("20200101", "20200229"):
            for band in ("red", "nir"):
                write(tmp_path / tile / f"{day}_{band}.tif")
    items = open_archive(tmp_path, "{tile}/{date:%Y%m%d}_{band}.tif")
    assert [s.id.removeprefix(f"{tmp_path.name}_") for s in items] == [
        "20200101_a", "20200101_b", "20200229_a", "20200229_b",
    ]  # fmt: skip
    assert all(set(s.assets) == {"red", "nir"} for s in items)
    assert items.root == tmp_path


def test_layers_of_multi_band_files_get_names(tmp_path: Path) -> None:
    write(tmp_path / "2020.tif", count=2)
    with pytest.raises(ArchiveError, match=r"layers without a name; give bands=.*2020\.tif"):
        open_archive(tmp_path, "{date:%Y}.tif")
    with pytest.raises(ArchiveError, match="layers without a name"):
        open_archive(tmp_path, "{date:%Y}.tif", bands=["a", "b", "c"])
    items = open_archive(tmp_path, "{date:%Y}.tif", bands=["a", "b"])
    assert (fields(items, 0, "a")["cubekit:band"], fields(items, 0, "b")["cubekit:band"]) == (1, 2)
    with rasterio.open(tmp_path / "2020.tif", "r+") as data:
        data.descriptions = ("first", "second")
    assert open_archive(tmp_path, "{date:%Y}.tif").bands == ("first", "second")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # from writing such a file
def test_all_faults_are_told_at_once_and_nothing_is_indexed(tmp_path: Path) -> None:
    write(tmp_path / "20200101_a.tif")
    write(tmp_path / "20201301_a.tif")
    write(tmp_path / "other.tif")
    write(tmp_path / "20200102_a.tif", crs=None)
    (tmp_path / "20200103_a.tif").write_bytes(b"II*\0 broken")
    (tmp_path / "20200104_a.tif").write_text(
        f"<VRTDataset rasterXSize='7' rasterYSize='5'><VRTRasterBand><SimpleSource><SourceFilename>"
        f"{tmp_path}/20200101_a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.tif").touch()
    with pytest.raises(ArchiveError) as raised:
        open_archive(tmp_path, "{date:%Y%m%d}_{band}.tif")
    text = str(raised.value)
    assert "1 file(s) fit no pattern" in text
    assert "other.tif" in text
    assert "1 file(s) carry no usable date: 20201301_a.tif" in text
    assert "3 file(s) cannot be read" in text
    assert "20200102_a.tif has no CRS" in text
    assert "20200103_a.tif cannot be read as GTiff" in text
    assert "20200104_a.tif cannot be read as GTiff" in text  # a VRT in disguise
    assert "notes" not in text
    assert ".hidden" not in text


def test_a_band_twice_on_one_date_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x_20200101.tif")
    write(tmp_path / "y_20200101.tif")
    with pytest.raises(
        ArchiveError, match=r"y_20200101\.tif \(band a of 2020-01-01, also in x_20200101\.tif\)"
    ):
        open_archive(tmp_path, "*_{date:%Y%m%d}.tif", bands=["a"])


def test_links_out_of_the_archive_are_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/20200101_a.tif")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/20200101_a.tif").symlink_to(outside)
    with pytest.raises(SecurityError, match="outside the archive folder"):
        open_archive(tmp_path / "archive", "{date:%Y%m%d}_{band}.tif")


@pytest.mark.parametrize(
    ("dtype", "stored", "given", "expected"),
    [
        ("uint8", None, None, None), ("uint8", 0, None, 0), ("uint8", 0, 255, 255),
        ("int16", -9999, None, -9999), ("float32", None, None, None), ("float32", -1e30, None, -1e30),
        ("float32", float("nan"), None, "nan"), ("float64", None, float("-inf"), "-inf"),
        ("float32", float("nan"), -1, -1),
    ],
)  # fmt: skip
def test_nodata_of_file_and_caller(
    tmp_path: Path, dtype: str, stored: float | None, given: float | None, expected: object
) -> None:
    write(tmp_path / "2020_a.tif", dtype=dtype, nodata=stored)
    items = open_archive(tmp_path, "{date:%Y}_{band}.tif", nodata=given)
    found = fields(items, 0, "a")["raster:bands"][0].get("nodata")
    assert found == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)
    items.save(tmp_path / "items.json")  # JSON knows no NaN


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", -1), ("uint8", 256), ("int16", 0.5), ("uint8", float("nan"))]
)
def test_nodata_that_cannot_occur_is_refused(tmp_path: Path, dtype: str, value: float) -> None:
    write(tmp_path / "2020_a.tif", dtype=dtype)
    with pytest.raises(OptionError, match="cannot occur"):
        open_archive(tmp_path, "{date:%Y}_{band}.tif", nodata=value)


def test_one_number_for_all_spares_the_quality_band(tmp_path: Path) -> None:
    write(tmp_path / "2020_B04.tif")
    write(tmp_path / "2020_SCL.tif", dtype="uint8")
    items = open_archive(
        tmp_path, "{date:%Y}_{band}.tif", collection="sentinel-2-l2a", nodata=65535, scale=1e-4
    )
    assert fields(items, 0, "B04")["raster:bands"][0]["nodata"] == 65535
    assert fields(items, 0, "SCL")["raster:bands"] == [{"data_type": "uint8", "nodata": 0}]


def test_harmonised_collections_leave_scale_to_the_processing_version(tmp_path: Path) -> None:
    write(tmp_path / "N0510_2020_B04.tif")
    items = open_archive(tmp_path, "{baseline}_{date:%Y}_{band}.tif", collection="sentinel-2-l2a")
    assert fields(items, 0, "B04")["raster:bands"] == [{"data_type": "uint16", "nodata": 0}]
    assert items[0].properties["s2:processing_baseline"] == "05.10"


def test_files_of_other_folders_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "wanted/2020_a.tif")
    write(tmp_path / "other/x.tif")
    write(tmp_path / "wanted/deeper/x.tif")
    assert len(open_archive(tmp_path, "wanted/{date:%Y}_{band}.tif")) == 1
    with pytest.raises(ArchiveError, match=r"deeper/x\.tif"):
        open_archive(tmp_path, "wanted/**/{date:%Y}_{band}.tif")


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="No folder"):
        open_archive(tmp_path / "x", "{date:%Y}.tif")
    with pytest.raises(ArchiveError, match="No raster file"):
        open_archive(tmp_path, "{date:%Y}.tif")
    with pytest.raises(UnknownNameError, match="modis-13q1-061"):
        open_archive(tmp_path, "{date:%Y}.tif", collection="modis-13q1")


def test_netcdf_times_of_all_kinds(tmp_path: Path) -> None:
    times = {
        "days": ("days since 1970-01-01", "int32", [0, 18321]),
        "hours": ("hours since 1900-01-01 00:00:0.0", "float64", [613608.0, 1053312.5]),
        "leap year": ("days since 2000-01-01", "int32", [0, 365]),
    }
    expected = {
        "days": ["1970-01-01", "2020-02-29"],
        "hours": ["1970-01-01", "2020-02-29T00:30:00"],
        "leap year": ["2000-01-01", "2000-12-31"],
    }
    for name, (units, dtype, steps) in times.items():
        data = xr.Dataset(
            {"v": (("time", "y", "x"), np.zeros((2, 3, 4), "int16"))},
            {
                "time": ("time", np.array(steps, dtype), {"units": units, "calendar": "standard"}),
                "y": np.array([25.0, 15, 5]),
                "x": np.array([5.0, 15, 25, 35]),
            },
        )
        data = data.rio.write_crs(32631).rio.write_coordinate_system()
        path = tmp_path / f"{name}.nc"
        data.to_netcdf(path, engine="scipy")
        layers = read_layers(path)
        found = [layer.time.replace(tzinfo=None) for layer in layers if layer.time]
        assert found == [
            np.datetime64(text).astype("datetime64[us]").astype(object) for text in expected[name]
        ]
        assert {layer.variable for layer in layers} == {"v"}
        assert layers[0].grid.shape == (3, 4)


def test_headers_are_read_by_name_suffix_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    os.rename(path, tmp_path / "2020_a.jp2")  # noqa: PTH104
    with pytest.raises(ArchiveError, match="cannot be read as JP2OpenJPEG"):
        open_archive(tmp_path, "{date:%Y}_{band}.jp2")
