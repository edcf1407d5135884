"""Tree species end to end: from scenes and plots, and from the tables of the same plots."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import rasterio

import cubekit as ck
from cubekit.batching.earth_engine import load_pixel_months, read_pixel_months

pytest.importorskip("torch")

from cubekit.demo import run_demo
from cubekit.nn.registry import create
from cubekit.pipeline.classify.steps import OPTIMISTIC
from cubekit.pipeline.runner import locate
from cubekit.pipeline.schema import read_pipeline
from cubekit.specs import find
from cubekit.testing.forest import SPECIES

if TYPE_CHECKING:
    from cubekit.pipeline.result import RunResult

pytestmark = [pytest.mark.torch, pytest.mark.slow]

YEAR = {"start": "2023-01", "end": "2023-12", "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


@pytest.fixture(scope="module")
def from_scenes(folder: Path) -> "RunResult":
    return run_demo(folder, "tree_species", sample={"size": 110, "dates": 16}, settings={"epochs": 8})


@pytest.fixture(scope="module")
def from_table(from_scenes: "RunResult", folder: Path) -> "RunResult":
    archive = from_scenes.folder / "archive"
    tables = {"table": str(archive / "plots.csv"), "unlabelled": str(archive / "unlabelled.csv")}
    return ck.run("tree_species", out=folder / "table", settings=YEAR | tables)


def test_scenes_give_a_map_of_species_with_both_splits(from_scenes: "RunResult") -> None:
    scores = from_scenes.scores
    assert scores["lstm"].overall > scores["majority class"].overall + 0.2
    assert f"lstm, {OPTIMISTIC}" in scores
    assert f"random forest, {OPTIMISTIC}" in scores
    assert "neighbours are on both sides" in from_scenes.verdict
    cube = ck.open(from_scenes.files["cube"])
    assert cube.sizes["time"] == 12
    assert cube["band"].to_numpy()[-3:].tolist() == ["EVI", "NDVI", "NDWI"]
    with rasterio.open(from_scenes.files["map"]) as opened:
        numbers = opened.read(1)
    table = pd.read_csv(from_scenes.files["predicted"])
    assert list(table) == ["lat", "lon", "predicted_class"]
    assert table["predicted_class"].tolist() == np.array(SPECIES)[numbers[numbers != 255]].tolist()
    prediction = ck.open(from_scenes.files["prediction"])
    assert {"class", "probability", "entropy"} <= set(prediction.data_vars)


def test_pixels_of_one_plot_lie_on_one_side(from_scenes: "RunResult") -> None:
    cube = ck.open(from_scenes.files["cube"])
    labels = ck.load_labels(from_scenes.folder / "archive" / "plots.gpkg", cube, column="Class")
    train, valid, test = ck.split(cube, labels, by="groups", seed=0)
    assert not set(train.group) & (set(valid.group) | set(test.group))
    assert np.bincount(test.group[test.group >= 0]).max() == 4  # 2 x 2 pixels


def test_tables_give_a_csv_and_the_map_of_their_pixels(from_table: "RunResult") -> None:
    scores = from_table.scores
    assert next(iter(scores)) == "lstm"
    assert f"lstm, {OPTIMISTIC}" in scores
    predicted = pd.read_csv(from_table.files["predicted"])
    assert len(predicted) == 3600
    assert set(predicted["predicted_class"]) <= set(SPECIES)
    with rasterio.open(from_table.files["predicted_map"]) as opened:
        assert opened.shape == (60, 60)
        assert opened.res == pytest.approx((10, 10), abs=0.01)
        assert opened.crs.to_epsg() == 32633
    assert from_table.files["confusion"].stat().st_size > 1000
    assert "plots" in from_table.files["report"].read_text()


def test_the_table_holds_what_the_cube_holds(from_scenes: "RunResult") -> None:
    archive = from_scenes.folder / "archive"
    table = load_pixel_months(archive / "unlabelled.csv", months=("2023-01", "2023-12"))
    cube = ck.open(from_scenes.files["cube"])
    square = cube["data"].isel(y=slice(20, 80), x=slice(20, 80)).to_numpy()
    bands = [band.replace("B0", "B") for band in cube["band"].to_numpy().tolist()]
    order = [bands.index(band) for band in table.bands]
    expected = square.transpose(2, 3, 0, 1).reshape(3600, 12, -1)[:, :, order]
    np.testing.assert_array_equal(np.isnan(table.x), np.isnan(expected))
    np.testing.assert_allclose(table.x, expected, atol=2e-4)


def test_the_model_of_the_specification(from_table: "RunResult") -> None:
    spec = read_pipeline(locate("tree_species"), {"table": "plots.csv"})
    assert spec.train.network == "lstm"
    network = create("lstm", bands=20, steps=12, classes=5, **spec.train.arguments)
    assert sum(values.numel() for values in network.parameters()) == 209_541
    assert "209,541" in (find("models", "tree_species") / "README.md").read_text()
    again = ck.load_model(from_table.files["model"])
    samples = read_pixel_months(
        from_table.folder.parent / "archive" / "plots.csv", months=("2023-01", "2023-12")
    )
    first = again.probabilities(samples.physical())
    np.testing.assert_array_equal(again.probabilities(samples.physical()), first)
    assert again.card.classes.names == SPECIES
