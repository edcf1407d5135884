"""Networks of pixel series over a cube: each pixel alone, in any chunking, whatever stands where masked."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

pytest.importorskip("torch")

import torch

from cubekit.batching.normalise import Normalisation
from cubekit.cube.contract import Encoding, to_physical
from cubekit.labels import ClassTable
from cubekit.nn.registry import create
from cubekit.prediction.predict import predict
from cubekit.training.bundle import Model
from cubekit.training.card import DataRecord, ModelCard

pytestmark = pytest.mark.torch

BANDS = ("B4", "B8", "NDVI")
TIMES = pd.date_range("2022-01-01", periods=12, freq="MS")
CODING = Encoding(dtype="int16", nodata=-999, scale=1e-4)
NETWORKS = ("lstm", "tempcnn", "conv1d", "ltae")


def untrained(name: str) -> Model:
    torch.manual_seed(0)
    network = create(name, bands=3, steps=12, classes=5)
    for part in network.modules():  # as after training: norms that do something
        if isinstance(part, torch.nn.BatchNorm1d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    card = ModelCard(
        network=name,
        arguments={"bands": 3, "steps": 12, "classes": 5},
        task="classify",
        bands=BANDS,
        times=tuple(str(time.date()) for time in TIMES),
        encoding=CODING,
        normalisation=Normalisation(
            method="standard", bands=BANDS, mean=(0.2, 0.3, 0.5), std=(0.1, 0.1, 0.2)
        ),
        classes=ClassTable.of(["a", "b", "c", "d", "e"]),
        crs="EPSG:32648",
        resolution=10.0,
        parameters=1,
        data=DataRecord(digest="0", train=1, valid=1, dropped=0, train_counts=(1,) * 5, extent=None),
        settings={},
        metrics={},
        history=(),
        versions={},
        created="2023-01-01T00:00:00Z",
    )
    return Model(network, card)


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest) -> Model:
    return untrained(request.param)


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 6000, size=(12, 3, 40, 36)).astype("int16")
    stored[rng.random(stored.shape) < 0.2] = -999
    stored[:, :, :4, :5] = -999
    box = GeoBox((40, 36), Affine(10, 0, 7e5, 0, -10, 3.7e6), "EPSG:32648")
    data = xr.DataArray(stored, dims=("time", "band", "y", "x"), attrs=CODING.attrs())
    coords = xr_coords(box, dims=("y", "x")) | {"time": TIMES, "band": np.array(BANDS, dtype=object)}
    return xr.Dataset({"data": data.assign_coords(coords)})


def likely(model: Model, cube: xr.Dataset) -> np.ndarray:
    return predict(model, cube, outputs=("probability",))["probability"].to_numpy()


def test_a_cube_gets_what_its_pixels_get(model: Model, cube: xr.Dataset) -> None:
    pixels = to_physical(cube["data"]).stack(n=("y", "x")).transpose("n", "time", "band").to_numpy()
    expected = np.rint(model.probabilities(pixels) * 250)
    found = likely(model, cube).reshape(5, -1).T.astype(float)
    found[found == 255] = np.nan
    assert (np.isnan(found) == np.isnan(expected)).all()
    assert np.nanmax(np.abs(found - expected)) <= 1  # the batches differ, so the last bit may
    assert np.nanmean(found != expected) < 0.01 + np.isnan(found).mean()


@given(
    y=st.integers(1, 40), x=st.integers(1, 36), time=st.sampled_from([1, 5, 12]), band=st.sampled_from([1, 3])
)
@settings(max_examples=2, deadline=None)
def test_any_chunks_give_the_same_map(
    model: Model, cube: xr.Dataset, y: int, x: int, time: int, band: int
) -> None:
    tile = {"y": max(y, 10), "x": max(x, 9), "time": time, "band": band}
    np.testing.assert_array_equal(likely(model, cube.chunk(tile)), likely(model, cube))


def test_evaluation_is_deterministic(model: Model, cube: xr.Dataset) -> None:
    np.testing.assert_array_equal(likely(model, cube), likely(model, cube))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_stands_at_masked_values_has_no_influence(name: str, cube: xr.Dataset) -> None:
    model = untrained(name)
    expected = likely(model, cube)
    stored = to_physical(cube["data"])
    floats = cube.assign(data=stored.assign_attrs(grid_mapping="spatial_ref"))  # NaN in place of -999
    np.testing.assert_array_equal(likely(model, floats), expected)
