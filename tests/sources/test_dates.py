"""Dates that names do not say: sidecar lists, stacks, missing dates; against rasterio and pandas."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import cubekit
from cubekit.errors import ArchiveError, OptionError
from cubekit.sources.archive import open_archive
from cubekit.sources.dates import missing_dates, parse_date, read_dates


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def write_stack(path: Path, layers: int, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": 4, "height": 3, "count": layers, "dtype": "int16", "nodata": -1}
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile) as file:
        for index in range(1, layers + 1):
            file.write(np.full((3, 4), value + index, "int16"), index)


@given(st.dates(min_value=day("1970-01-01").date()))
def test_every_form_of_a_date_is_read(date: Any) -> None:
    expected = datetime(date.year, date.month, date.day, tzinfo=UTC)
    forms = (date.isoformat(), date.strftime("%Y%m%d"), date.strftime("%Y%j"), date.strftime("A%Y%j"))
    assert [parse_date(form) for form in forms] == [expected] * 4


@pytest.mark.shared
def test_a_timeline_gives_the_dates_of_137_layers(shared: Path) -> None:
    folder = shared / "data/modis_mato_grosso_2007_2013"
    items = open_archive(
        folder, "{band}.tif", dates=folder / "timeline", collection="modis-13q1-061", nodata=float("nan")
    )
    assert len(items) == 137
    expected = pd.to_datetime((folder / "timeline").read_text().split())
    assert (pd.DatetimeIndex(items.datetimes) == expected).all()
    asset = items.asset(items[100], "NDVI")
    assert asset is not None
    assert asset.extra_fields["cubekit:band"] == 101
    assert items.missing_dates("16D") == (day("2013-07-28"),)  # the series is full but for this one


@pytest.mark.shared
def test_yearly_layers_of_one_file(shared: Path) -> None:
    folder = shared / "data/modis_lai_china_2001_2020"
    items = open_archive(folder, "MOD15A2_{band}_China_G050_{date:%Y}-{end:%Y}.tif", every="1YS")
    assert [item.datetime.year for item in items if item.datetime] == list(range(2001, 2021))
    cube = cubekit.open_cube(items, bands=["LAI"])
    with rasterio.open(folder / "MOD15A2_LAI_China_G050_2001-2020.tif") as file:
        np.testing.assert_array_equal(cube["data"].values[7, 0], file.read(8))
    single = open_archive(folder / "annual", "{band}_{date:%Y}.tif")
    again = cubekit.open_cube(single, bands=["LAI"])
    np.testing.assert_array_equal(again["data"].values, cube["data"].values)


def test_a_stack_for_each_year(tmp_path: Path) -> None:
    for year in (2013, 2014):
        write_stack(tmp_path / f"NDVI_{year}.tif", 23, value=year)
    items = open_archive(tmp_path, "{band}_{date:%Y}.tif", every="16D")
    assert len(items) == 46
    assert items[1].datetime == day("2013-01-17")
    assert items[23].datetime == day("2014-01-01")  # a new year starts anew, as the composites of MODIS do
    assert items.missing_dates("16D") == ()
    assert cubekit.open_cube(items)["data"].values[24, 0, 0, 0] == 2016
    with pytest.raises(
        ArchiveError, match=r"NDVI_2013\.tif .layer 13 of 23, every 1MS, would leave the year 2013"
    ):
        open_archive(tmp_path, "{band}_{date:%Y}.tif", every="1MS")


def test_one_multi_band_file_for_each_date(tmp_path: Path) -> None:
    for name in ("20130914", "20130930"):
        write_stack(tmp_path / f"S_{name}.tif", 2)
    items = open_archive(tmp_path, "S_{date:%Y%m%d}.tif", bands=["red", "nir"])
    assert [sorted(item.assets) for item in items] == [["nir", "red"]] * 2
    assert cubekit.open_cube(items, bands=["nir", "red"])["data"].values[1, :, 0, 0].tolist() == [2, 1]


def test_dates_of_files_come_from_a_list(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_stack(tmp_path / f"scenes/{name}.tif", 1)
    table = tmp_path / "dates.csv"
    table.write_text("file,date,end,note\nscenes/b.tif,2013-09-14,2013-09-29,x\nscenes/a.tif,A2013273,,\n")
    items = open_archive(tmp_path, "scenes/*.tif", dates=table, bands=["red"])
    assert [item.datetime for item in items] == [day("2013-09-14"), day("2013-09-30")]
    assert items[0].properties["end_datetime"] == "2013-09-29T23:59:59Z"
    write_stack(tmp_path / "scenes/c.tif", 1)
    table.write_text("file,date\nscenes/a.tif,2013-09-14\nscenes/b.tif,2013-09-15\nscenes/z.tif,2013-09-16\n")
    with pytest.raises(ArchiveError) as raised:
        open_archive(tmp_path, "scenes/*.tif", dates=table, bands=["red"])
    assert "scenes/c.tif (not listed in dates=)" in str(raised.value)
    assert "have a date in dates= but are not there: scenes/z.tif" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,date\na.tif,2013-13-01\nb.tif,soon\n", r"'2013-13-01' \(row 2\), 'soon' \(row 3\)"),
        ("file,date\na.tif,2013-01-01\na.tif,2013-01-02\n", "names files twice: a.tif"),
        ("2013-01-01\n2013-01-01\n", "dates come twice: 2013-01-01"),
        ("", "holds no dates"),
        ("file,day\na.tif,2013-01-01\n", r"'file' \(row 1\)"),
    ],
)
def test_lists_with_mistakes_are_refused_with_the_rows(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "dates.csv"
    table.write_text(text)
    with pytest.raises(ArchiveError, match=message):
        read_dates(table)


def test_layers_and_dates_must_be_as_many(tmp_path: Path) -> None:
    write_stack(tmp_path / "NDVI.tif", 3)
    with pytest.raises(ArchiveError, match=r"NDVI\.tif \(3 layers, but 2 dates\)"):
        open_archive(tmp_path, "{band}.tif", dates=["2013-01-01", "2013-01-17"])
    with pytest.raises(ArchiveError, match=r"carry no usable date: NDVI\.tif"):
        open_archive(tmp_path, "{band}.tif", every="16D")
    with pytest.raises(OptionError, match="either dates= or every="):
        open_archive(tmp_path, "{band}.tif", dates=["2013-01-01"], every="16D")
    with pytest.raises(OptionError, match="every='16X' is no step"):
        open_archive(tmp_path, "{band}.tif", every="16X")
    assert len(open_archive(tmp_path, "{band}.tif", dates=["2013-01-01", "2013-01-17", "2013-02-02"])) == 3


@given(
    every=st.sampled_from(["1D", "8D", "16D", "1MS"]),
    count=st.integers(3, 60),
    taken=st.sets(st.integers(1, 58)),
    yearly=st.booleans(),
)
def test_what_is_taken_out_is_missing(every: str, count: int, taken: set[int], *, yearly: bool) -> None:
    if every.endswith("D") and yearly:
        step = int(every[:-1])
        days = [f"{2013 + n // (-(-365 // step))}" for n in range(count)]
        series = [
            day(f"{year}-01-01") + timedelta(step * (n % (-(-365 // step)))) for n, year in enumerate(days)
        ]
    else:
        series = list(pd.date_range("2013-03-01", periods=count, freq=every, tz="UTC").to_pydatetime())
    gone = {n for n in taken if n < count - 1}
    kept = [time for n, time in enumerate(series) if n not in gone]
    expected = tuple(series[n] for n in sorted(gone))
    assert missing_dates(kept, every) == expected


def test_dates_off_the_series_are_named() -> None:
    with pytest.raises(OptionError, match="2013-01-20 do not lie on it"):
        missing_dates([day("2013-01-01"), day("2013-01-20"), day("2013-02-02")], "16D")
    assert missing_dates([], "16D") == ()
