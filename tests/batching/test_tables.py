"""Tables as people have them: wide ones, and pixel-months exported from Earth Engine."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cubekit.batching.series import read_series
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, UnknownNameError

MONTHS = [f"2022-{month:02d}-01" for month in range(1, 13)]


def exported(rows: list[tuple[float, float, str, float]]) -> pd.DataFrame:
    """Return rows as Earth Engine exports them: a date, a band, a class and a GeoJSON point."""
    return pd.DataFrame(
        {
            "system:index": [f"{number}_0" for number in range(len(rows))],
            "B4": [value for *_, value in rows],
            "Class": ["oak" if lon < 108 else "larch" for lon, *_ in rows],
            "image_date": [date for *_, date, _ in rows],
            ".geo": [
                f'{{"geodesic":false,"type":"Point","coordinates":[{lon!r},{lat!r}]}}'
                for lon, lat, *_ in rows
            ],
        }
    )


def test_pixel_months_of_earth_engine_become_calendar_months(tmp_path: Path) -> None:
    rows = [
        (107.5, 33.6, "2022-03-20", 5.0),
        (107.5, 33.6, "2022-01-30", 2.0),
        (107.5, 33.6, "2022-01-04", 1.0),  # the earliest of January
        (108.5, 33.7, "2022-02-11", -999.0),
        (108.5, 33.7, "2022-03-01", 7.0),
    ]
    exported(rows).to_csv(tmp_path / "months.csv", index=False)
    samples = read_series(
        tmp_path / "months.csv",
        label="Class",
        date="image_date",
        id=None,
        bands=["B4"],
        missing=[-999],
        steps="months",
    )
    assert samples.times.astype("datetime64[M]").astype(str).tolist() == ["2022-01", "2022-02", "2022-03"]
    nan = np.nan
    np.testing.assert_array_equal(samples.x[..., 0], [[1, nan, 5], [nan, nan, 7]])
    assert [samples.classes.names[index] for index in samples.y] == ["oak", "larch"]
    assert np.hypot(*np.diff(samples.position, axis=0)[0]) == pytest.approx(93_400, rel=0.02)


def test_a_polygon_is_no_point(tmp_path: Path) -> None:
    table = exported([(107.5, 33.6, "2022-01-01", 1.0)])
    table[".geo"] = '{"type":"Polygon","coordinates":[[[0,0],[0,1],[1,1],[0,0]]]}'
    table.to_csv(tmp_path / "polygons.csv", index=False)
    with pytest.raises(LabelError, match="GeoJSON point"):
        read_series(tmp_path / "polygons.csv", label="Class", date="image_date", id=None)


@pytest.mark.shared
def test_a_wide_table_is_the_long_one_it_was_made_of(shared: Path) -> None:
    folder = shared / "data/pixel_series"
    wide = read_series(
        folder / "fra_2022_tree_and_crop_12months_500px.csv",
        label="class_name",
        columns="B{band}_{step}",
        dates=MONTHS,
        encoding=Encoding(dtype="uint16", nodata=65535, scale=1e-4),
    )
    assert wide.x.shape == (500, 12, 9)
    assert wide.bands[:3] == ("02", "03", "04")
    assert wide.counts()["citrus_fruit"] == 35
    assert 1 - wide.valid().mean() == pytest.approx(0.006, abs=0.004)

    long = pd.read_parquet(folder / "fra_lpis_2022_monthly_long_500px.geoparquet")
    ids = pd.read_csv(folder / "fra_2022_tree_and_crop_12months_500px.csv")["sample_id"]
    july = long[pd.to_datetime(long["timestamp"]).dt.strftime("%Y-%m") == "2022-07"].set_index("sample_id")
    np.testing.assert_array_equal(wide.x[:, 6, 2], july.loc[ids, "S2-L2A-B04"].to_numpy())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": "{band}"}, OptionError, r"\{step\} once"),
        ({"columns": "{band}-{step}"}, OptionError, "fits none"),
        ({"columns": "{band}_{step}", "dates": MONTHS[:3]}, OptionError, "2 steps .*names 3"),
        ({"columns": "{band}_{step}", "dates": None}, OptionError, "date of each"),
        ({"dates": MONTHS}, OptionError, "wide tables"),
        ({"columns": "{band}_{step}", "id": None}, UnknownNameError, "no positions"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    pd.DataFrame({"sample_id": [1], "label": ["a"], "red_1": [0.1], "red_2": [0.2]}).to_csv(
        tmp_path / "wide.csv", index=False
    )
    with pytest.raises(error, match=message):
        read_series(tmp_path / "wide.csv", **{"dates": MONTHS[:2], **options})  # type: ignore[arg-type]


def test_a_hole_in_a_wide_table_is_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"sample_id": [1], "label": ["a"], "red_1": [0.1], "red_2": [0.2], "nir_1": [0.3]})
    table.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(OptionError, match="band 'nir' of step 2"):
        read_series(tmp_path / "wide.csv", columns="{band}_{step}", dates=MONTHS[:2])
