"""A model over tables: the classes of the same series, on the model's months, whatever stood where masked."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import rasterio

from cubekit.batching.earth_engine import load_pixel_months, read_pixel_months
from cubekit.errors import GridError, ModelMismatchError, OptionError, StoreError, UnknownNameError
from cubekit.labels import ClassTable

pytest.importorskip("torch")

import cubekit as ck
from cubekit.cli import main
from cubekit.exports.export import export
from cubekit.prediction.places import map_of_places, places_of_map
from cubekit.prediction.table import predict_table

pytestmark = pytest.mark.torch

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

BANDS = ("B2", "B3", "B4", "B8", "EVI", "NDVI")
SHAPE = (9, 11)


def months_of_a_scene(seed: int = 0, year: int = 2022) -> pd.DataFrame:
    """Return pixel-months of a scene of 9 x 11 pixels of 10 m in UTM 48 N, with gaps."""
    from pyproj import Transformer

    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SHAPE).reshape(2, -1)
    to_degrees = Transformer.from_crs("EPSG:32648", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(737_005 + 10 * columns, 3_730_005 - 10 * rows)
    kind = (columns > 5).astype(int) + (rows > 4)
    table = []
    for month in range(1, 13):
        season = 1 + np.sin((month - 4 - 2 * kind) / 6 * np.pi)
        nir = 1500 + 1200 * season + rng.normal(0, 60, kind.size)
        bands = {
            "B2": 300 + rng.normal(0, 20, kind.size),
            "B3": 500 + 0.02 * nir,
            "B4": 900 - 250 * season,
            "B8": nir,
        }
        part = pd.DataFrame({name: np.rint(values) for name, values in bands.items()})
        part.loc[rng.random(kind.size) < 0.2] = -999
        part = part.assign(
            image_date=f"{year}-{month:02d}-{rng.integers(1, 28):02d}",
            longitude=np.round(lon, 6),
            latitude=np.round(lat, 6),
            Class=np.array(["beech", "larch", "pine"])[kind],
        )
        table.append(part[rng.random(kind.size) < 0.95])
    return pd.concat(table, ignore_index=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def model(folder: Path) -> "Model":
    months_of_a_scene(1).to_csv(folder / "plots.csv", index=False)
    samples = read_pixel_months(folder / "plots.csv", bands=BANDS, months=("2022-01", "2022-12"), near=0)
    train, valid, _ = ck.split(samples, by="groups")
    arguments = {"hidden": 16}
    return ck.fit(
        "lstm",
        train,
        valid,
        epochs=15,
        batch=16,
        normalise="standard",
        arguments=arguments,
        learning_rate=0.01,
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    def to_csv(table: pd.DataFrame) -> Path:
        table.to_csv(tmp_path / "scene.csv", index=False)
        return tmp_path / "scene.csv"

    return to_csv


def test_a_table_gets_the_classes_of_its_series(
    model: "Model", write: Callable[[pd.DataFrame], Path], tmp_path: Path
) -> None:
    path = write(months_of_a_scene(2).drop(columns="Class"))
    found = predict_table(model, path, out=tmp_path / "predicted.csv", probabilities=True)
    series = load_pixel_months(path, bands=BANDS, months=("2022-01", "2022-12"))
    likely = model.probabilities(series.x)
    np.testing.assert_array_equal(found[[f"p_{name}" for name in model.card.classes]].to_numpy(), likely)
    names = np.array(model.card.classes.names)
    assert found["predicted_class"].tolist() == names[likely.argmax(axis=1)].tolist()

    written = pd.read_csv(tmp_path / "predicted.csv")
    assert list(written)[:4] == ["lat", "lon", "predicted_class", "probability"]
    assert written["predicted_class"].tolist() == found["predicted_class"].tolist()
    with pytest.raises(StoreError, match="exists"):
        predict_table(model, path, out=tmp_path / "predicted.csv")


def test_it_tells_the_kinds_apart(model: "Model", write: Callable[[pd.DataFrame], Path]) -> None:
    table = months_of_a_scene(3)
    found = predict_table(model, write(table.drop(columns="Class")))
    truth = table.drop_duplicates(["longitude", "latitude"])  # in the order of the table, as the predictions
    assert (truth["Class"].to_numpy() == found["predicted_class"].to_numpy()).mean() > 0.8


def test_what_stands_at_masked_values_changes_nothing(
    model: "Model", write: Callable[[pd.DataFrame], Path]
) -> None:
    table = months_of_a_scene(4).drop(columns="Class")
    expected = predict_table(model, write(table), probabilities=True)
    masked = table["B8"] == -999
    empty = table.copy()
    empty.loc[masked, ["B2", "B3", "B4", "B8"]] = np.nan
    pd.testing.assert_frame_equal(predict_table(model, write(empty), probabilities=True), expected)
    flagged = table.assign(QA60=np.where(masked, 1 << 10, 0))
    flagged.loc[masked, ["B2", "B3", "B4", "B8"]] = [9000, 1, 12345, 6]  # what a cloud looked like
    pd.testing.assert_frame_equal(predict_table(model, write(flagged), probabilities=True), expected)


def test_another_year_falls_on_the_same_months(model: "Model", write: Callable[[pd.DataFrame], Path]) -> None:
    table = months_of_a_scene(5).drop(columns="Class")
    expected = predict_table(model, write(table))
    later = table.assign(image_date=table["image_date"].str.replace("2022", "2025"))
    pd.testing.assert_frame_equal(predict_table(model, write(later)), expected)
    stray = pd.concat([later, later.tail(1).assign(image_date="2027-03-03")])  # does not decide the year
    pd.testing.assert_frame_equal(predict_table(model, write(stray)), expected)


def test_a_pixel_without_data_has_no_class(model: "Model", write: Callable[[pd.DataFrame], Path]) -> None:
    table = months_of_a_scene(6).drop(columns="Class")
    first = (table["longitude"] == table["longitude"][0]) & (table["latitude"] == table["latitude"][0])
    table.loc[first, ["B2", "B3", "B4", "B8"]] = -999
    found = predict_table(model, write(table), probabilities=True)
    assert found["predicted_class"].isna().tolist() == [True, *[False] * (len(found) - 1)]
    assert int((map_of_places(found, model.card.classes)["class"] == 255).sum()) == 1


def test_numbers_of_another_scale_are_refused(model: "Model", write: Callable[[pd.DataFrame], Path]) -> None:
    table = months_of_a_scene(7).drop(columns="Class")
    with pytest.raises(ModelMismatchError, match="scale"):
        predict_table(model, write(table), scale=1)
    with pytest.raises(UnknownNameError, match="'B8'"):
        predict_table(model, write(table.drop(columns="B8")))
    with pytest.raises(UnknownNameError, match="'date'"):
        predict_table(model, write(table), date="date")
    with pytest.raises(OptionError, match=r"\.csv"):
        predict_table(model, write(table), out="classes.txt")
    short = load_pixel_months(write(table), bands=BANDS, months=("2022-01", "2022-06"))
    with pytest.raises(ModelMismatchError, match="6 time steps"):
        predict_table(model, short)


def test_pixels_of_an_image_become_its_raster_again(
    model: "Model", write: Callable[[pd.DataFrame], Path], tmp_path: Path
) -> None:
    folder = model.save(tmp_path / "model")
    path = write(months_of_a_scene(8).drop(columns="Class").sample(frac=1, random_state=0))
    targets = ["--out", str(tmp_path / "p.csv"), "--map", str(tmp_path / "map.tif")]
    assert main(["predict-table", str(folder), str(path), *targets]) == 0
    written = pd.read_csv(tmp_path / "p.csv")
    with rasterio.open(tmp_path / "map.tif") as opened:
        assert opened.crs.to_epsg() == 32648
        assert opened.shape == SHAPE
        # coordinates were rounded to 0.1 m
        np.testing.assert_allclose(opened.transform[:6], (10, 0, 737_000, 0, -10, 3_730_010), atol=0.15)
        from rasterio.warp import transform

        east, north = transform("EPSG:4326", opened.crs, written["lon"], written["lat"])
        numbers = [value[0] for value in opened.sample(zip(east, north, strict=True))]
    assert [model.card.classes.names[number] for number in numbers] == written["predicted_class"].tolist()


def test_a_map_as_a_table_is_the_table_as_a_map(tmp_path: Path) -> None:
    table = ClassTable.of(["a", "b"])
    rng = np.random.default_rng(0)
    lon, lat = np.meshgrid(10 + 0.001 * np.arange(7), 50 - 0.001 * np.arange(5))
    share = rng.random(35).astype("float32")
    frame = pd.DataFrame({"lat": lat.ravel(), "lon": lon.ravel(), "p_a": share, "p_b": 1 - share}).drop(
        index=[3, 17]
    )
    drawn = map_of_places(frame, table)  # regular in degrees
    assert drawn["class"].shape == (5, 7)
    assert drawn.odc.geobox.crs.epsg == 4326
    back = places_of_map(drawn)
    assert len(back) == 33
    np.testing.assert_allclose(back[["lat", "lon"]], frame[["lat", "lon"]], atol=2e-6)
    assert back["predicted_class"].tolist() == np.where(frame["p_a"] >= frame["p_b"], "a", "b").tolist()
    twice = pd.concat([frame.assign(p_a=1.0, p_b=0.0), frame], ignore_index=True)
    with pytest.warns(UserWarning, match="33 of 66 places lie in the pixel of another"):
        np.testing.assert_array_equal(map_of_places(twice, table)["class"], drawn["class"])
    export(drawn, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as opened:
        np.testing.assert_array_equal(opened.read(1), drawn["class"].to_numpy())


def test_scattered_points_are_no_map() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"lat": rng.uniform(50, 51, 40), "lon": rng.uniform(10, 11, 40), "p_a": 1.0, "p_b": 0.0}
    )
    with pytest.raises(GridError):
        map_of_places(frame, ClassTable.of(["a", "b"]))
    with pytest.raises(GridError, match="longitude"):
        map_of_places(frame.drop(columns="lat"), ClassTable.of(["a", "b"]))
