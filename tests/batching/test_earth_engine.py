"""Pixel-months of Earth Engine: twelve steps on the calendar, never a value of another pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.batching.earth_engine import FEATURES, INDICES, load_pixel_months, read_pixel_months
from cubekit.errors import LabelError, OptionError, UnknownNameError

YEAR = ("2022-01", "2022-12")
BANDS = [feature for feature in FEATURES if feature not in INDICES]


def pixel(lon: float, lat: float, species: str, months: dict[str, int]) -> list[dict[str, Any]]:
    """Return rows of one pixel: date to a number that all its bands are made of."""
    return [
        {
            "system:index": f"{date}_{lon}",
            **{band: value + 10 * place for place, band in enumerate(BANDS)},
            "EVI": 0.1,  # as made from integers: wrong, and not to be used
            "NDVI": -7.0,
            "NDWI": -7.0,
            "Class": species,
            "image_date": date,
            ".geo": f'{{"type":"Point","coordinates":[{lon},{lat}]}}',
        }
        for date, value in months.items()
    ]


def exported(*pixels: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in pixels for row in rows])


def every_month(value: int) -> dict[str, int]:
    return {f"2022-{month:02d}-05": value + month for month in range(1, 13)}


def test_the_features_are_those_specified_in_their_order() -> None:
    specified = "AOT B1 B11 B12 B2 B3 B4 B5 B6 B7 B8 B8A B9 EVI NDVI NDWI TCI_B TCI_G TCI_R WVP"
    assert " ".join(FEATURES) == specified


def test_twelve_months_by_hand(tmp_path: Path) -> None:
    gappy = every_month(5000) | {"2022-03-02": 4000}  # earlier than the fifth of March
    del gappy["2022-07-05"]  # no row
    table = exported(
        pixel(107.6, 33.7, "larch_CN", gappy),
        pixel(107.7, 33.7, "deci_broad", {"2021-12-31": 9999, **every_month(3000), "2023-01-01": 9999}),
    )
    table.loc[table["image_date"] == "2022-05-05", BANDS] = -999
    table.loc[(table["image_date"] == "2022-09-05") & (table["Class"] == "larch_CN"), "B4"] = np.nan
    table.to_csv(tmp_path / "plots.csv", index=False)
    samples = read_pixel_months(tmp_path / "plots.csv", months=YEAR)

    assert samples.x.shape == (2, 12, 20)
    assert samples.bands == FEATURES
    assert samples.classes.names == ("deci_broad", "larch_CN")
    assert samples.y.tolist() == [1, 0]
    np.testing.assert_array_equal(samples.times.astype("datetime64[M]").astype(str), [
        f"2022-{month:02d}" for month in range(1, 13)
    ])  # fmt: skip
    red, nir, blue, green = (samples.bands.index(name) for name in ("B4", "B8", "B2", "B3"))
    place = BANDS.index("B4")
    expected = np.array([5001, 5002, 4000, 5004, np.nan, 5006, np.nan, 5008, np.nan, 5010, 5011, 5012.0])
    np.testing.assert_allclose(samples.x[0, :, red], (expected + 10 * place) * 1e-4, rtol=1e-6)
    other = np.array([3000 + month if month != 5 else np.nan for month in range(1, 13)])
    np.testing.assert_allclose(samples.x[1, :, red], (other + 10 * place) * 1e-4, rtol=1e-6)

    b4, b8, b2, b3 = (samples.x[..., index].astype("float64") for index in (red, nir, blue, green))
    evi, ndvi, ndwi = (samples.x[..., samples.bands.index(name)] for name in INDICES)
    np.testing.assert_allclose(ndvi, (b8 - b4) / (b8 + b4), rtol=1e-4)
    np.testing.assert_allclose(ndwi, (b3 - b8) / (b3 + b8), rtol=1e-4)
    np.testing.assert_allclose(evi, 2.5 * (b8 - b4) / (b8 + 6 * b4 - 7.5 * b2 + 1), rtol=1e-4)
    assert np.isnan(ndvi[0]).tolist() == [month in {5, 7, 9} for month in range(1, 13)]
    assert samples.x[0, 0, samples.bands.index("TCI_R")] <= 100  # scaled in its own way
    assert samples.x[0, 0, 0] == pytest.approx(5.001)


def test_clouds_and_cirrus_of_qa60_hide_a_row(tmp_path: Path) -> None:
    table = exported(pixel(107.6, 33.7, "larch_CN", every_month(5000) | {"2022-04-20": 6000}))
    table["QA60"] = 1  # another flag
    table.loc[table["image_date"] == "2022-02-05", "QA60"] = 1 << 10
    table.loc[table["image_date"] == "2022-04-05", "QA60"] = 1 << 11
    table.to_csv(tmp_path / "plots.csv", index=False)
    samples = read_pixel_months(tmp_path / "plots.csv", bands=["B1"], months=YEAR)
    first = 10 * BANDS.index("B1")
    assert np.isnan(samples.x[0, :, 0]).tolist() == [month == 1 for month in range(12)]
    assert samples.x[0, 3, 0] == pytest.approx((6000 + first) * 1e-4)  # the next of April counts


@given(seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_rows_and_other_pixels_do_not_matter(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    pixels = [
        pixel(
            107.0 + n,
            33.7,
            "oak",
            {date: v for date, v in every_month(1000 * n).items() if rng.random() < 0.7},
        )
        for n in range(1, 5)
    ]
    pixels = [rows or pixel(107.0 + n, 33.7, "oak", {"2022-01-01": n}) for n, rows in enumerate(pixels, 1)]
    folder = tmp_path_factory.mktemp("tables")
    exported(*pixels).sample(frac=1, random_state=seed).to_csv(folder / "all.csv", index=False)
    together = load_pixel_months(folder / "all.csv", months=YEAR)
    for rows in pixels:
        exported(rows).to_csv(folder / "one.csv", index=False)
        alone = load_pixel_months(folder / "one.csv", months=YEAR)
        place = np.flatnonzero(together.about["longitude"] == alone.about["longitude"][0])
        np.testing.assert_array_equal(together.x[place], alone.x)


def test_the_pixels_around_a_plot_are_one_group(tmp_path: Path) -> None:
    step = 10 / 111_195  # degrees of 10 m, northwards
    table = exported(
        *(pixel(107.6, 33.7 + n * step, "oak", every_month(n)) for n in (0, 1, 2, 10, 11)),
        pixel(107.9, 33.7, "larch", every_month(9)),
    )
    table.to_csv(tmp_path / "plots.csv", index=False)
    group = read_pixel_months(tmp_path / "plots.csv").group
    assert len(set(group[:3])) == len(set(group[3:5])) == 1
    assert len(set(group)) == 3
    assert len(set(read_pixel_months(tmp_path / "plots.csv", near=0).group)) == 6
    table.assign(plot=[1] * 36 + [2] * 36).to_csv(tmp_path / "named.csv", index=False)
    assert len(set(read_pixel_months(tmp_path / "named.csv", group="plot").group)) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": "species"}, UnknownNameError, "'species'"),
        ({"bands": ["B99"]}, UnknownNameError, "B99"),
        ({"months": ("2022-05", "2022-01")}, OptionError, "ends before"),
        ({"months": ("spring", "autumn")}, OptionError, "first and a last month"),
        ({"scale": 0}, OptionError, "scale"),
        ({"near": -1}, OptionError, "near"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    exported(pixel(107.6, 33.7, "oak", every_month(1))).to_csv(tmp_path / "plots.csv", index=False)
    with pytest.raises(error, match=message):
        read_pixel_months(tmp_path / "plots.csv", **options)


def test_a_place_of_two_species_is_refused(tmp_path: Path) -> None:
    table = exported(pixel(107.6, 33.7, "oak", every_month(1)))
    table.loc[3, "Class"] = "larch"
    table.to_csv(tmp_path / "plots.csv", index=False)
    with pytest.raises(LabelError, match="several classes"):
        read_pixel_months(tmp_path / "plots.csv")
