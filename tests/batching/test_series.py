from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from pyproj import Geod

from cubekit.batching.leakage import leakage
from cubekit.batching.position import metric_positions
from cubekit.batching.series import read_series
from cubekit.batching.split import split
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, SourceError, UnknownNameError


def long_table(years: tuple[int, ...] = (2020, 2020, 2021), steps: int = 6) -> pd.DataFrame:
    """Series s0, s1 … of monthly dates; the value tells series, step and band."""
    rows = [
        {
            "sample_id": f"s{index}",
            "longitude": 15 + 0.01 * index,
            "latitude": 45.0,
            "label": "ab"[index % 2],
            "date": pd.Timestamp(year, month + 1, 1),
            "red": index + month / 100,
            "nir": -(index + month / 100),
        }
        for index, year in enumerate(years)
        for month in range(steps)
    ]
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_rows_in_any_order_become_series_in_order_of_appearance(tmp_path: Path, name: str) -> None:
    table = long_table()
    shuffled = table.sample(frac=1, random_state=3)
    samples = read_series(write(shuffled, tmp_path / name), bands=["nir", "red"])
    seen = shuffled["sample_id"].unique()
    for index, series in enumerate(seen):
        expected = table[table["sample_id"] == series].sort_values("date")
        np.testing.assert_allclose(samples.x[index], expected[["nir", "red"]], rtol=1e-6)
        assert samples.classes.names[samples.y[index]] == expected["label"].iloc[0]
    assert samples.bands == ("nir", "red")


def test_times_are_those_of_the_first_series_and_years_may_differ(tmp_path: Path) -> None:
    samples = read_series(write(long_table((2021, 2020, 2019)), tmp_path / "t.parquet"))
    assert samples.times.astype("datetime64[D]").tolist() == [
        pd.Timestamp(2021, month, 1).date() for month in range(1, 7)
    ]
    assert samples.bands == ("red", "nir")


def test_another_calendar_is_refused(tmp_path: Path) -> None:
    table = long_table()
    table.loc[table["sample_id"] == "s1", "date"] += pd.Timedelta(40, "D")
    with pytest.raises(LabelError, match=r"1 series .*40 days.*'s1'"):
        read_series(write(table, tmp_path / "t.parquet"))


def test_new_year_is_no_gap(tmp_path: Path) -> None:
    table = long_table((2020, 2021), steps=2)
    table["date"] = pd.to_datetime(["2019-12-31", "2020-01-31", "2021-01-01", "2021-02-01"])
    assert read_series(write(table, tmp_path / "t.parquet")).x.shape == (2, 2, 2)


def test_unequal_series_are_listed_or_cut_to_the_dates_in_common(tmp_path: Path) -> None:
    table = long_table((2020, 2020, 2020)).drop(index=[8])  # s1 lacks March
    path = write(table, tmp_path / "t.parquet")
    with pytest.raises(LabelError, match=r"1 of 3 series do not have 6 dates.*'s1' has 5.*steps='common'"):
        read_series(path)
    samples = read_series(path, steps="common")
    assert samples.x.shape == (3, 5, 2)
    np.testing.assert_allclose(samples.x[:, 2, 0], [0.03, 1.03, 2.03], rtol=1e-5)
    with pytest.raises(LabelError, match="share none"):
        read_series(write(long_table((2020, 2021)), tmp_path / "years.parquet"), steps="common")


def test_one_place_is_one_group_in_every_year(tmp_path: Path) -> None:
    table = long_table((2020, 2021, 2022))
    table.loc[table["sample_id"] == "s2", "longitude"] = 15.0
    group = read_series(write(table, tmp_path / "t.parquet")).group
    assert group[0] == group[2] != group[1]


def test_groups_may_be_named_and_positions_may_be_absent(tmp_path: Path) -> None:
    table = long_table().drop(columns=["longitude"]).assign(field=lambda t: t["sample_id"].isin(["s0", "s1"]))
    path = write(table, tmp_path / "t.parquet")
    samples = read_series(path, group="field", bands=["red"])
    assert samples.group.tolist() == [0, 0, 1]
    assert np.isnan(samples.position).all()
    assert samples.crs is None
    assert read_series(path, bands=["red"]).group.tolist() == [0, 1, 2]


def test_integers_keep_their_coding(tmp_path: Path) -> None:
    table = long_table().assign(red=lambda t: (t["red"] * 1000).round().astype(int))
    table.loc[3, "red"] = 65535
    coding = Encoding(dtype="uint16", nodata=65535, scale=1e-3)
    samples = read_series(write(table, tmp_path / "t.parquet"), bands=["red"], encoding=coding)
    assert samples.x.dtype == np.uint16
    assert np.isnan(samples.physical()[0, 3, 0])
    assert samples.physical()[1, 2, 0] == pytest.approx(1.02)
    with pytest.raises(OptionError, match=r"uint8, such as"):
        read_series(tmp_path / "t.parquet", bands=["red"], encoding=Encoding(dtype="uint8"))


def test_numbers_as_labels_keep_their_codes(tmp_path: Path) -> None:
    table = long_table().assign(label=lambda t: t["label"].map({"a": 40, "b": 9}))
    samples = read_series(write(table, tmp_path / "t.csv"))
    assert samples.classes.names == ("9", "40")
    assert samples.classes.codes == (9, 40)
    assert samples.y.tolist() == [1, 0, 1]


def test_tables_that_cannot_be_read_so(tmp_path: Path) -> None:
    table = long_table()
    with pytest.raises(SourceError, match="No table"):
        read_series(tmp_path / "nowhere.parquet")
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(SourceError, match="neither Parquet nor CSV"):
        read_series(tmp_path / "t.xlsx")
    with pytest.raises(UnknownNameError, match="'label'"):
        read_series(write(table, tmp_path / "t.csv"), label="labels")
    with pytest.raises(LabelError, match=r"1 rows repeat.*'s0'"):
        read_series(write(pd.concat([table, table[:1]]), tmp_path / "twice.csv"))
    with pytest.raises(LabelError, match=r"several classes.*'s0'"):
        read_series(write(table.assign(label=["b", *table["label"][1:]]), tmp_path / "several.csv"))
    with pytest.raises(LabelError, match=r"'s0' has rows without a class"):
        read_series(write(table.assign(label=table["label"].mask(table.index == 0)), tmp_path / "none.csv"))
    with pytest.raises(LabelError, match="no rows"):
        read_series(write(table[:0], tmp_path / "empty.csv"))
    with pytest.raises(UnknownNameError, match="bands="):
        read_series(write(table.drop(columns=["red", "nir"]), tmp_path / "bare.csv"))
    with pytest.raises(OptionError, match="'common'"):
        read_series(tmp_path / "t.csv", steps="comon")  # type: ignore[arg-type]


@pytest.mark.parametrize("middle", [0.0, 179.9])
def test_distances_in_metres_agree_with_the_ellipsoid(middle: float) -> None:
    random = np.random.default_rng(0)
    lon = (middle + random.uniform(-5, 5, 50) + 180) % 360 - 180
    lat = random.uniform(-15, -10, 50)
    position, _ = metric_positions(lon, lat, "EPSG:4326")
    _, _, expected = Geod(ellps="WGS84").inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
    np.testing.assert_allclose(np.hypot(*np.diff(position, axis=0).T), expected, rtol=0.01)


@pytest.mark.shared
def test_cbers_series_compare_with_the_tile(shared: Path) -> None:
    import rasterio
    from rasterio.warp import transform

    folder = shared / "data/cbers4_bahia_2018_2019"
    samples = read_series(folder / "cbers_samples_022024.parquet", bands=["ndvi"])
    assert samples.x.shape == (922, 23, 1)
    assert samples.counts() == {"Cerradao": 215, "Cerrado": 207, "Cropland": 242, "Pasture": 258}

    table = pd.read_parquet(folder / "cbers_samples_022024.parquet").groupby("sample_id").first()
    december = sorted(folder.rglob("*.tif"))[8]
    with rasterio.open(december) as file:
        x, y = transform("EPSG:4326", file.crs, table["longitude"], table["latitude"])
        inside = [
            file.bounds.left < e < file.bounds.right and file.bounds.bottom < n < file.bounds.top
            for e, n in zip(x, y, strict=True)
        ]
        tile = np.array([value[0] for value in file.sample(np.column_stack([x, y])[inside])]) * 1e-4
    assert len(tile) == 72
    series = samples.physical()[inside, 8, 0]
    assert np.median(np.abs(tile - series)) < 0.01
    assert np.corrcoef(tile, series)[0, 1] > 0.99


@pytest.mark.shared
def test_modis_series_of_many_years_split_by_place(shared: Path) -> None:
    samples = read_series(shared / "data/pixel_series/cerrado_2classes.parquet")
    assert samples.x.shape == (746, 23, 2)
    assert len(np.unique(samples.group)) == 83
    parts = split(samples, by="groups")
    assert sum(map(len, parts)) == 746
    report = leakage(*parts)
    assert set(report.groups.values()) == {0}
    assert min(report.distance.values()) > 0


@pytest.mark.shared
def test_canadian_months_of_unequal_length(shared: Path) -> None:
    samples = read_series(
        shared / "data/pixel_series/can_aafc_2017_monthly_long_3621px.parquet",
        label="LANDCOVER_LABEL",
        date="timestamp",
        bands=["S2-L2A-B04", "S2-L2A-B08"],
        group="location_id",
        encoding=Encoding(dtype="uint16", nodata=65535, scale=1e-4),
        steps="common",
    )
    assert samples.x.shape == (3621, 17, 2)
    assert samples.valid().mean() == pytest.approx(0.95, abs=0.02)
    ndvi = np.nanmedian(
        (samples.physical()[..., 1] - samples.physical()[..., 0]) / samples.physical().sum(-1), axis=0
    )
    assert ndvi[6] > ndvi[0] + 0.3  # July is green in Canada, January is not


@pytest.mark.parametrize("steps", ["equal", "common", "months"])
@pytest.mark.parametrize(("column", "cell"), [("sample_id", None), ("date", None), ("date", "spring")])
def test_rows_of_no_series_or_no_date_are_refused(
    steps: Literal["equal", "common", "months"], column: str, cell: str | None, tmp_path: Path
) -> None:
    table = long_table((2020,)).astype({column: object})
    table.loc[1, column] = cell
    with pytest.raises(LabelError, match=rf"1 of {len(table)} rows .* '{column}', the first is row 1"):
        read_series(write(table, tmp_path / "t.csv"), steps=steps)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no rows"):
        read_series(write(long_table((2020,)).iloc[:0], tmp_path / "t.csv"))
