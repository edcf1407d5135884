"""Prediction with a real network: the same map on every path, one torch thread, one load per process."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.contract import Encoding, to_physical
from cubekit.errors import ModelMismatchError
from cubekit.labels import ClassTable
from cubekit.prediction.predict import predict
from cubekit.prediction.shipping import ShippedModel, model_digest, torch_threads

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

CODING = Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)
TIMES = pd.date_range("2023-01-01", periods=12, freq="MS")
BANDS = ("blue", "red", "nir")


def make_model(seed: int = 0) -> "Model":
    from cubekit.batching.normalise import Normalisation
    from cubekit.nn.registry import create
    from cubekit.training.bundle import Model
    from cubekit.training.card import DataRecord, ModelCard

    arguments = {"bands": 3, "steps": 12, "classes": 4}
    torch.manual_seed(seed)
    network = create("tempcnn", **arguments)
    card = ModelCard(
        network="tempcnn",
        arguments=arguments,
        task="classify",
        bands=BANDS,
        times=tuple(str(time.date()) for time in TIMES),
        encoding=CODING,
        normalisation=Normalisation(method="percentile", bands=BANDS, low=(0.0,) * 3, high=(0.4,) * 3),
        classes=ClassTable.of(["water", "bare soil", "forest", "crop"]),
        crs="EPSG:32630",
        resolution=10.0,
        parameters=1,
        data=DataRecord(digest="0", train=1, valid=1, dropped=0, train_counts=(1, 1, 1, 1), extent=None),
        settings={},
        metrics={},
        history=(),
        versions={},
        created="2023-01-01T00:00:00Z",
    )
    return Model(network, card)


@pytest.fixture(scope="module")
def model() -> "Model":
    return make_model()


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    stored = rng.integers(1001, 6000, size=(12, 3, 90, 110)).astype("uint16")
    stored[rng.random(stored.shape) < 0.2] = 0
    stored[:, :, :20, :30] = 0
    stored[:, 0, 40:50, 40:50] = 0  # one band never observed
    box = GeoBox((90, 110), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    data = xr.DataArray(stored, dims=("time", "band", "y", "x"), attrs=CODING.attrs())
    coords = xr_coords(box) | {"time": TIMES, "band": ["nir", "red", "blue"]}
    return xr.Dataset({"data": data}).assign_coords(coords)


@pytest.fixture(scope="module")
def whole(model: "Model", cube: xr.Dataset) -> np.ndarray[Any, Any]:
    x = to_physical(cube["data"].sel(band=list(BANDS))).transpose("y", "x", "time", "band").to_numpy()
    with torch_threads():
        flat = model.probabilities(x.reshape(-1, 12, 3))
    return flat.reshape(90, 110, 4)


def test_the_map_is_what_the_model_says(model: "Model", cube: xr.Dataset, whole: Any) -> None:
    found = predict(model, cube).compute()
    empty = np.isnan(whole).any(axis=-1)
    assert empty[:20, :30].all()
    assert empty[40:50, 40:50].all()
    npt.assert_array_equal(found["class"] == 255, empty)
    npt.assert_array_equal(found["class"].to_numpy()[~empty], whole.argmax(axis=-1)[~empty])
    decoded = np.moveaxis(found["probability"].to_numpy(), 0, -1)[~empty] / 250
    npt.assert_allclose(decoded, whole[~empty], atol=0.5 / 250 + 1e-5)
    assert len(np.unique(found["class"].to_numpy())) > 2


@pytest.mark.parametrize("chunks", [{"y": 17, "x": 110}, {"time": 5, "band": 1, "y": 50, "x": 60}, {"y": 90}])
@pytest.mark.parametrize(
    "options", [{"scheduler": "threads", "num_workers": 4}, {"scheduler": "synchronous"}]
)
def test_any_cut_gives_bit_equal_maps(
    chunks: dict[str, int], options: dict[str, Any], model: "Model", cube: xr.Dataset
) -> None:
    one = predict(model, cube).compute(scheduler="synchronous")
    xr.testing.assert_equal(predict(model, cube.chunk(chunks), tile=33).compute(**options), one)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"scheduler": "processes", "workers": 2}, marks=pytest.mark.slow),
        {"scheduler": "threads", "workers": 3},
    ],
)
def test_written_by_processes_or_threads_it_is_the_same(
    options: dict[str, Any], model: "Model", cube: xr.Dataset, tmp_path: Path
) -> None:
    written = predict(model, cube, out=tmp_path / "map.zarr", tile=64, progress=False, **options)
    lazy = predict(model, cube).compute()
    for name in ("class", "probability"):
        npt.assert_array_equal(written[name].to_numpy(), lazy[name].to_numpy())


def test_a_cube_of_other_dates_is_refused(model: "Model", cube: xr.Dataset) -> None:
    with pytest.raises(ModelMismatchError, match="11 time steps"):
        predict(model, cube.isel(time=slice(1, None)))


def test_digest_and_token_follow_the_weights(model: "Model") -> None:
    same, other = make_model(), make_model(1)
    assert model_digest(model) == model_digest(same) != model_digest(other)
    assert tokenize(ShippedModel(model)) == tokenize(ShippedModel(same)) != tokenize(ShippedModel(other))


def test_a_pickle_holds_a_path_and_loads_once_per_process(model: "Model") -> None:
    shipped = ShippedModel(model)
    blob = cloudpickle.dumps(shipped)
    assert len(blob) < 1000
    one, two = cloudpickle.loads(blob), cloudpickle.loads(blob)
    assert one.get() is two.get()
    assert one.get() is not model
    assert one.token == shipped.token
    x = np.random.default_rng(0).uniform(0, 0.5, (8, 12, 3)).astype("float32")
    npt.assert_array_equal(one.get().probabilities(x), model.probabilities(x))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_tasks_use_one_torch_thread_and_give_the_others_back(
    model: "Model", cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = type(model.network).forward

    def spy(self: Any, x: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(self, x, **options)

    monkeypatch.setattr(type(model.network), "forward", spy)
    for _ in range(2):  # the second time, pool threads already stand at one
        predict(model, cube.chunk({"y": 30, "x": 30}), tile=30).compute(scheduler="threads", num_workers=3)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
        fresh: list[int] = []
        thread = threading.Thread(target=lambda into=fresh: into.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [3]


@pytest.mark.usefixtures("three_threads")
def test_overlapping_tasks_hold_one_thread_until_the_last_leaves() -> None:
    inside, leave = threading.Event(), threading.Event()

    def long_task() -> None:
        with torch_threads():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=long_task)
    thread.start()
    inside.wait(10)
    with torch_threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1, "another task still computes"
    leave.set()
    thread.join()
    with pytest.raises(ZeroDivisionError), torch_threads():
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 3
