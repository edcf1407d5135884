"""Scenes and tables exported from Earth Engine tell the same: features, gaps, classes of one model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer
from rasterio.transform import from_origin

pytest.importorskip("torch")

import cubekit as ck
from cubekit.batching.earth_engine import FEATURES, INDICES, load_pixel_months, read_pixel_months
from cubekit.catalog import find_bands
from cubekit.errors import ModelMismatchError, PipelineError
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.classify.steps import samples_for
from cubekit.pipeline.schema import read_pipeline
from cubekit.prediction.places import places_of_map
from cubekit.prediction.table import predict_table

pytestmark = pytest.mark.torch

STORED = tuple(name for name in FEATURES if name not in INDICES)
NAMES = tuple(f"B0{name[1:]}" if name in {f"B{n}" for n in range(1, 10)} else name for name in STORED)
SIDE = 8
MONTHS = [f"2021-{month:02d}" for month in range(1, 13)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve scenes of 8 x 8 pixels, -999 where masked, and the table of the same pixels."""
    folder = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    to_degrees = Transformer.from_crs("EPSG:32648", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(737_005 + 10 * columns, 3_730_005 - 10 * rows)
    kind = (columns > 3).astype(int)
    tables = []
    for number, month in enumerate(MONTHS):
        values = rng.integers(200, 4000, (len(STORED), rows.size))
        values[STORED.index("B8")] += 2000 * kind * (number > 4)
        for name in ("TCI_B", "TCI_G", "TCI_R"):
            values[STORED.index(name)] //= 16  # below 256
        values[:, rng.random(rows.size) < 0.1] = -999
        flags = rng.choice([0, 1 << 10, 1 << 11, 1 << 3], rows.size, p=[0.7, 0.1, 0.1, 0.1])
        kinds = np.select([flags == 1 << 10, flags == 1 << 11], [9, 10], 4)  # the same clouds in SCL
        layers = np.vstack([values, flags, kinds]).astype("int16")
        profile = {
            "driver": "GTiff", "dtype": "int16", "count": len(layers), "height": SIDE, "width": SIDE,
            "crs": "EPSG:32648", "transform": from_origin(737_000, 3_730_010, 10, 10),
        }  # fmt: skip
        with rasterio.open(folder / f"{month}-05.tif", "w", **profile) as file:
            file.write(layers.reshape(-1, SIDE, SIDE))
            file.descriptions = (*STORED, "QA60", "SCL")
        table = pd.DataFrame(dict(zip((*STORED, "QA60"), layers[:-1], strict=True)))
        tables.append(table.assign(image_date=f"{month}-05", longitude=lon, latitude=lat, Class=kind))
    whole = pd.concat(tables).assign(Class=lambda table: table["Class"].map({0: "beech", 1: "larch"}))
    whole.to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def cube(exported: Path) -> xr.Dataset:
    monthly = ck.composite(
        opened(exported, "COPERNICUS/S2_SR_HARMONIZED"),
        every="1MS",
        how="earliest",
        start="2021-01",
        end="2021-12",
    )
    return ck.add_indices(monthly, list(INDICES)).compute()


def opened(exported: Path, collection: str) -> xr.Dataset:
    items = ck.open_archive(exported, "{date:%Y-%m-%d}.tif", collection=collection, nodata=-999)
    return ck.open_cube(items, bands=list(NAMES), mask="clouds", dtype="float32")


def test_where_qa60_is_empty_scl_masks_the_same_clouds(exported: Path) -> None:
    flags = opened(exported, "sentinel-2-sr-harmonized")["data"]
    kinds = opened(exported, "sentinel-2-sr-harmonized-scl")["data"]
    np.testing.assert_array_equal(flags.to_numpy(), kinds.to_numpy())


def test_a_cube_of_exported_scenes_has_all_twenty_features_of_the_table(
    exported: Path, cube: xr.Dataset
) -> None:
    table = load_pixel_months(exported / "table.csv", bands=FEATURES)
    assert table.bands == FEATURES
    assert [str(name) for name in cube["band"].values][:3] == ["AOT", "B01", "B11"]
    own = find_bands(FEATURES, map(str, cube["band"].values), collection=cube.attrs["collection"])
    assert list(own) == list(FEATURES)
    values = cube["data"].sel(band=list(own.values())).transpose("y", "x", "time", "band").to_numpy()
    assert 0.2 < np.isnan(values).mean() < 0.45
    to_metres = Transformer.from_crs("EPSG:4326", "EPSG:32648", always_xy=True)
    x, y = to_metres.transform(table.about["longitude"].to_numpy(), table.about["latitude"].to_numpy())
    row, column = ((3_730_010 - y) // 10).astype(int), ((x - 737_000) // 10).astype(int)
    np.testing.assert_allclose(values[row, column], table.x, rtol=2e-5, atol=2e-6)


def test_a_model_of_the_table_maps_the_cube_and_the_reverse(
    exported: Path, cube: xr.Dataset, tmp_path: Path
) -> None:
    samples = read_pixel_months(exported / "table.csv", bands=FEATURES, near=0)
    train, valid, _ = ck.split(samples, by="groups")
    options: dict[str, Any] = {"epochs": 2, "batch": 16, "normalise": "standard", "progress": False}
    model = ck.fit("lstm", train, valid, arguments={"hidden": 8}, **options)
    assert model.card.bands[4] == "B2"
    mapped = places_of_map(ck.predict(model, cube)).sort_values(["lat", "lon"])
    told = predict_table(model, exported / "table.csv").sort_values(["lat", "lon"])
    assert mapped["predicted_class"].tolist() == told["predicted_class"].tolist()

    label = np.repeat([[0, 1]], 4, axis=1).repeat(8, axis=0).astype("int16")
    group = np.arange(SIDE**2, dtype="int32").reshape(SIDE, SIDE)
    known = {
        "label": (("y", "x"), label, {"_FillValue": np.int16(-1), **samples.classes.attrs()}),
        "group": (("y", "x"), group),
    }
    labels = cube.drop_dims(["time", "band"]).assign(known)
    train, valid, _ = ck.split(cube, labels, by="random")
    model = ck.fit("lstm", train, valid, arguments={"hidden": 8}, **options)
    assert "B02" in model.card.bands
    mapped = places_of_map(ck.predict(model, cube)).sort_values(["lat", "lon"])
    told = predict_table(model, exported / "table.csv").sort_values(["lat", "lon"])
    assert mapped["predicted_class"].tolist() == told["predicted_class"].tolist()
    with pytest.raises(ModelMismatchError, match="band 'B01' is missing"):
        model.check(cube.sel(band=cube["band"] != "B01"))


def test_a_table_with_bands_that_the_cube_lacks_is_refused_before_training(
    exported: Path, cube: xr.Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"title: Job\nsource: {{items: items.json}}\ntrain: {{network: lstm}}\n"
        f"series: {{source: '{exported / 'table.csv'}', form: earth-engine, label: Class}}\n"
    )
    spec = read_pipeline(file)
    assert isinstance(spec, ClassifyPipeline)
    assert len(samples_for(spec, cube, None)) == SIDE**2
    with pytest.raises(PipelineError, match=r"bands \['WVP'\] that the cube lacks"):
        samples_for(spec, cube.sel(band=cube["band"] != "WVP"), None)


def test_names_of_no_known_collection_are_themselves() -> None:
    assert find_bands(["B2", "B8"], ["B02", "B8"], collection="") == {"B8": "B8"}
    assert find_bands(["B2", "B8", "NDVI"], ["B02", "nir"], collection="sentinel-2-l2a") == {
        "B2": "B02",
        "B8": "nir",
    }
