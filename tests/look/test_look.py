"""Pictures: that they show the numbers of the cube, read little, and say what is wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from PIL import Image

import cubekit as ck
from cubekit.cli import main
from cubekit.errors import OptionError, UnknownNameError
from cubekit.look.pictures import coloured, limits
from cubekit.look.sample import sample

Array = npt.NDArray[Any]


def a_cube(values: Array, times: pd.DatetimeIndex, bands: list[str]) -> xr.Dataset:
    rows, cols = values.shape[2:]
    box = GeoBox.from_bbox((500_000, 0, 500_000 + 10 * cols, 10 * rows), "EPSG:32630", resolution=10)
    coords = {"time": times, "band": bands, **xr_coords(box, dims=("y", "x"))}
    attrs = {
        "_FillValue": np.uint16(0),
        "scale_factor": 1e-4,
        "add_offset": 0.0,
        "grid_mapping": "spatial_ref",
    }
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, attrs=attrs)
    return xr.Dataset({"data": data}, attrs={"collection": "sentinel-2-l2a"})


@pytest.fixture
def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    values = rng.integers(200, 3000, (8, 4, 30, 40)).astype("uint16")
    values[2] = 0
    values[3, :, :15] = 0
    days = ["2022-11-03", "2022-11-20", "2022-12-05", "2023-02-01", "2023-02-09"]
    times = pd.DatetimeIndex([*days, "2023-03-01", "2023-03-11", "2023-03-21"])
    return a_cube(values, times, ["B02", "B03", "B04", "B08"])


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_a_quicklook_shows_the_bands_stretched(cube: xr.Dataset, tmp_path: Path) -> None:
    figure = ck.quicklook(cube, time="2023-02-08", path=tmp_path / "deep" / "look.png")
    assert "True colour, 2023-02-09" in texts(figure)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    stored = cube["data"].isel(time=4).sel(band=["B04", "B03", "B02"]).to_numpy() / 1e4
    low, high = np.percentile(stored.reshape(3, -1), (2, 98), axis=1)
    expected = np.clip((stored - low[:, None, None]) / (high - low)[:, None, None], 0, 1) ** (1 / 1.4)
    np.testing.assert_allclose(shown, expected.transpose(1, 2, 0), atol=1e-5)
    with Image.open(tmp_path / "deep" / "look.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 500


def test_the_default_date_is_a_full_and_dark_one(cube: xr.Dataset) -> None:
    cube["data"][4] = cube["data"][4] // 4 + 1
    assert "2023-02-09" in texts(ck.quicklook(cube))
    assert "B08, 2022-11-03" in texts(ck.quicklook(cube, bands="B08"))
    assert "B08 (reflectance)" in texts(ck.quicklook(cube, bands=["B08"]))


def test_no_data_is_grey_and_an_empty_cube_is_drawn(cube: xr.Dataset) -> None:
    shown = np.asarray(ck.quicklook(cube, time=3).axes[0].images[0].get_array())
    np.testing.assert_allclose(shown[:15], 0xE6 / 255)
    empty = cube.copy(data={"data": np.zeros_like(cube["data"])})
    for figure in (ck.quicklook(empty), ck.time_strip(empty), ck.coverage_calendar(empty)):
        assert figure.axes


def test_few_cloudy_dates_do_not_darken_the_others() -> None:
    rng = np.random.default_rng(1)
    clear = rng.uniform(0.02, 0.2, (5, 20, 20, 3))
    cloudy = np.concatenate([clear, np.full((2, 20, 20, 3), 0.9)])
    np.testing.assert_allclose(limits(cloudy)[1], limits(clear)[1], rtol=0.05)
    low, high = limits(clear)
    assert coloured(clear[0], low, high).mean() > 0.4


def test_a_strip_shows_the_fullest_date_of_each_span(cube: xr.Dataset) -> None:
    figure = ck.time_strip(cube)
    assert len([axes for axes in figure.axes if axes.images]) == 8
    assert "2022-12-05" in texts(figure)
    assert "0 %" in texts(figure)
    assert "50 %" in texts(figure)
    short = texts(ck.time_strip(cube, dates=3))
    assert "3 of 8 dates" in short
    assert "2022-12-05" not in short
    months = ck.composite(cube, how="latest")
    assert "| 2022-11 |" in texts(ck.time_strip(months))
    assert "True colour, DJF 2023" in texts(ck.quicklook(ck.composite(cube, every="season"), time=1))


def test_the_calendar_counts_pixels_seen_at_least_once(cube: xr.Dataset) -> None:
    figure = ck.coverage_calendar(cube)
    months: Array = np.ma.filled(np.ma.asarray(figure.axes[0].images[0].get_array()), np.nan)
    assert months[0, 10:].tolist() == [1, 0]  # November, December 2022
    assert months[1, :3].tolist() == [0, 1, 1]
    assert np.isnan(months[0, :10]).all()
    assert np.isnan(months[1, 3:]).all()
    found = texts(figure)
    assert "none" in found  # January has no date
    assert "1 without any" in found


def test_a_series_marks_filled_dates_and_dates_without_data(cube: xr.Dataset) -> None:
    figure = ck.point_series(cube, 500_205, 205, bands=["B04", "B08"])
    found = texts(figure)
    assert "no data (2)" in found
    assert "row 9, column 20" in found
    assert "Reflectance" in found
    lines = figure.axes[0].get_lines()
    red = cube["data"].sel(band="B04").to_numpy()[:, 9, 20] / 1e4
    np.testing.assert_allclose(np.asarray(lines[0].get_ydata()), red[red > 0], rtol=1e-5)
    filled = ck.point_series(ck.fill_gaps(cube), 500_205, 205, bands="B04")
    hollow = [line for line in filled.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert [len(np.asarray(line.get_xdata())) for line in hollow] == [2, 0]
    assert "no data" not in texts(filled)


def test_a_point_in_degrees(cube: xr.Dataset) -> None:
    from pyproj import Transformer

    lon, lat = Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True).transform(500_205, 205)
    assert "row 9, column 20" in texts(ck.point_series(cube, lon, lat, crs="EPSG:4326"))


def test_a_huge_cube_shows_its_middle_and_computes_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cubekit.look.sample.BUDGET", 3 * 100 * 100 * 2 * 4)
    made: list[tuple[int, ...]] = []

    def block(block_info: Any = None) -> Array:
        made.append(tuple(block_info[None]["chunk-location"]))
        return np.full(block_info[None]["chunk-shape"], 1000, "uint16")

    sizes = ((2,) * 50, (3,), (100,) * 20, (100,) * 20)
    values = da.map_blocks(block, chunks=sizes, dtype="uint16", meta=np.empty((0,) * 4, "u2"))  # type: ignore[no-untyped-call]
    lazy = a_cube(
        np.zeros((100, 3, 1, 1), "uint16"), pd.date_range("2023", periods=100), ["B02", "B03", "B04"]
    )
    box = GeoBox.from_bbox((500_000, 0, 520_000, 20_000), "EPSG:32630", resolution=10)
    coords = {"time": lazy["time"], "band": lazy["band"], **xr_coords(box, dims=("y", "x"))}
    data = xr.DataArray(values, dims=lazy["data"].dims, coords=coords, attrs=lazy["data"].attrs)
    figure = ck.quicklook(xr.Dataset({"data": data}), time=5)
    assert len(made) <= 9
    assert all(place[0] == 2 for place in made)
    assert "middle of the area" in texts(figure)


def test_small_cubes_are_seen_whole(cube: xr.Dataset) -> None:
    thin, area, note = sample(cube.chunk(x=7), longest=20)
    assert note == ""
    assert area.shape == cube["data"].shape
    np.testing.assert_array_equal(thin, cube["data"][:, :, 1::2, 1::2])


def test_shares_of_valid_pixels_can_order_dates(cube: xr.Dataset) -> None:
    share = ck.valid_share(cube.chunk(time=1))
    assert share.chunks is not None
    assert share.sel(band="B03").to_numpy().tolist() == [1, 1, 0, 0.5, 1, 1, 1, 1]
    ordered = cube.assign_coords(cloud_cover=1 - share.mean("band"))
    found = ck.composite(ordered, every="QS-DEC", how="least_cloudy", layers=["source"])
    assert found["source"][:, 0, 0].to_numpy().tolist() == [0, 4, 5]


def test_the_accessor(cube: xr.Dataset) -> None:
    assert "2 of 8 dates" in texts(cube.ck.time_strip(dates=2))
    assert cube.ck.quicklook().axes
    assert cube.ck.coverage_calendar().axes
    assert cube.ck.point_series(500_205, 205).axes
    assert cube.ck.valid_share().shape == (8, 4)


def test_the_command(cube: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "cube.zarr"
    ck.write(cube.chunk(), store, progress=False)
    assert main(["look", str(store), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("wrote ") == 4
    assert len([p for p in (tmp_path / "out").iterdir() if p.read_bytes().startswith(b"\x89PNG")]) == 4
    assert main(["look", str(store), "--out", str(tmp_path / "other"), "--point", "40,50"]) == 2
    assert "lies outside the cube" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_datasets_have_the_accessor_and_the_import_stays_light() -> None:
    code = (
        "import cubekit, sys\n"
        "print('xarray' in sys.modules)\n"
        "import xarray\n"
        "cubekit.valid_share\n"
        "print(hasattr(xarray.Dataset, 'ck'), 'matplotlib' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_wrong_wishes_are_refused(cube: xr.Dataset) -> None:
    with pytest.raises(UnknownNameError, match="'B04'"):
        ck.quicklook(cube, bands=["B4"])
    with pytest.raises(OptionError, match="three bands, or one"):
        ck.quicklook(cube, bands=["B04", "B03"])
    with pytest.raises(OptionError, match="time=8: the cube has 8 dates"):
        ck.quicklook(cube, time=8)
    with pytest.raises(OptionError, match="is not a date"):
        ck.quicklook(cube, time="May")
    with pytest.raises(OptionError, match="dates=0"):
        ck.time_strip(cube, dates=0)
    with pytest.raises(OptionError, match="lies outside the cube"):
        ck.point_series(cube, 0, 0)
    with pytest.raises(OptionError, match="one to 6 series"):
        ck.point_series(cube, 500_205, 205, bands=[])
