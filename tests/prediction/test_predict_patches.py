"""Patch models over scenes: tiles show no seams, whatever the model gives and however the scene is cut."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from cubekit.batching.normalise import Normalisation  # noqa: E402
from cubekit.cube.contract import Encoding, to_physical  # noqa: E402
from cubekit.errors import OptionError, PredictionError, StoreError  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402
from cubekit.nn.reach import Reach  # noqa: E402
from cubekit.nn.registry import create  # noqa: E402
from cubekit.prediction.forward import PatchForward  # noqa: E402
from cubekit.prediction.predict import predict  # noqa: E402
from cubekit.prediction.windows import mirrored  # noqa: E402
from cubekit.tasks.series import SeriesInput  # noqa: E402
from cubekit.typing import Array, FloatArray  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CODING = Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)
TIMES = pd.date_range("2023-01-01", periods=3, freq="MS")
BANDS = ("blue", "red")
NAMES = ("water", "forest", "crop")
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class Plain:
    """A plain network behind the preprocessing of prediction."""

    form = "patches"

    def __init__(
        self, network: Any, *, kind: str = "class", names: tuple[str, ...] = NAMES, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.network, self.names, self.seed = network, names, seed
        self.kind: Any = kind
        self.card = SimpleNamespace(
            classes=ClassTable.of(list(NAMES)),
            normalisation=Normalisation(method="percentile", bands=BANDS, low=(0.0,) * 2, high=(0.4,) * 2),
            dates=TIMES.to_numpy,
        )

    def digest(self) -> str:
        weights = sum(float(value.double().abs().sum()) for value in self.network.state_dict().values())
        return f"{type(self.network).__name__}-{self.kind}-{self.seed}-{weights}"

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        return cube.sel(band=list(BANDS))


def lively(network: Any, seed: int = 0) -> Any:
    """Give batch norms statistics, and weights a size, with which far pixels count."""
    torch.manual_seed(seed)
    for part in network.modules():
        if isinstance(part, NORMS):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.02, 0.2)
    return network.eval()


def unet(**options: Any) -> Any:
    torch.manual_seed(0)
    return lively(create("unet", bands=2, steps=3, classes=3, width=6, depth=2, **options))


def make_cube(shape: tuple[int, int] = (150, 201), *, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    stored = rng.integers(1001, 6000, size=(3, 2, *shape)).astype("uint16")
    stored[rng.random(stored.shape) < 0.1] = 0
    stored[:, :, 100:, :40] = 0
    box = GeoBox(shape, Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    data = xr.DataArray(stored, dims=("time", "band", "y", "x"), attrs=CODING.attrs())
    coords = xr_coords(box) | {"time": TIMES, "band": list(BANDS)}
    return xr.Dataset({"data": data}).assign_coords(coords)


def whole(model: Plain, cube: xr.Dataset, multiple: int) -> FloatArray:
    """Predict the scene in one go, NaN where no value is data."""
    physical = to_physical(cube["data"]).to_numpy()
    forward = PatchForward(
        model.network, SeriesInput(model.card.dates(), model.card.normalisation), model.kind
    )
    rows, columns = physical.shape[-2:]
    found = forward([mirrored(physical, multiple)])[:, :rows, :columns].copy()
    found[:, np.isnan(physical).all(axis=(0, 1))] = np.nan
    return found


def small_windows(monkeypatch: pytest.MonkeyPatch, side: int = 32) -> None:
    """Windows of a few pixels, so that a small scene has many."""
    monkeypatch.setattr("cubekit.prediction.windows.SIDE", side)
    monkeypatch.setattr("cubekit.prediction.windows._LONGEST", side)


def labels(found: FloatArray) -> Array:
    return np.where(np.isnan(found[0]), 255, np.nan_to_num(found).argmax(axis=0))


@pytest.mark.parametrize("shape", [(150, 201), (7, 90), (1, 1)])
def test_tiles_of_a_unet_equal_the_whole_scene(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_windows(monkeypatch)
    model, cube = Plain(unet()), make_cube(shape)
    expected = whole(model, cube, 4)
    found = predict(model, cube, outputs=("class", "probability")).compute(scheduler="threads")
    npt.assert_array_equal(found["class"], labels(expected))
    known = found["probability"].to_numpy() != 255
    npt.assert_array_equal(known, np.isfinite(expected))
    error = found["probability"].to_numpy()[known] / 250 - expected[known]
    assert np.abs(error).max() < 0.5 / 250 + 1e-5
    if shape == (150, 201):
        assert (~known).any()
        assert len(np.unique(labels(expected))) == 4


def test_without_its_halo_the_tiles_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    model, cube = Plain(unet()), make_cube()
    expected = labels(whole(model, cube, 4))
    model.reach = Reach(halo=0, multiple=4)  # type: ignore[attr-defined]
    assert (predict(model, cube)["class"].compute().to_numpy() != expected).any()


@pytest.mark.parametrize("halo", ["measured", None])
@pytest.mark.parametrize("chunks", [{}, {"time": 1, "band": 1, "y": 40, "x": 64}, {"y": 11, "x": 201}])
def test_any_chunks_and_tiles_give_bit_equal_maps(
    halo: str | None, chunks: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_windows(monkeypatch)
    model, cube = Plain(unet()), make_cube()
    if halo is None:
        model.reach = Reach(halo=None, multiple=4)  # type: ignore[attr-defined]
    one = predict(model, cube, outputs=("class", "probability", "entropy"), tile=1000).compute()
    cut = predict(model, cube.chunk(chunks), outputs=("class", "probability", "entropy"), tile=50)
    assert cut["class"].data.npartitions > 4
    xr.testing.assert_equal(cut.compute(scheduler="threads"), one)


class GlobalMean(torch.nn.Module):  # type: ignore[misc]
    """Sees the whole window: each pixel minus the mean of all."""

    def forward(self, x: Any) -> Any:
        flat = x.flatten(1, 2)[:, :3]
        return 20 * (flat - flat.mean(dim=(2, 3), keepdim=True))


def test_a_network_that_sees_everything_is_blended_without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    cube = make_cube((100, 160))
    cube["data"][:] = 3000 + (np.arange(160) * 10).astype("uint16")  # a ramp: windows differ in their means
    model = Plain(GlobalMean(), kind="value", names=("a", "b", "c"))
    found = predict(model, cube).compute()["value"]
    assert found.dims == ("band", "y", "x")
    assert np.isfinite(found).all()
    steps = np.abs(np.diff(found.to_numpy(), axis=-1))
    hard = 20 * 0.001 / 0.4 * 24  # what a hard cut between windows 24 pixels apart would show
    assert steps.max() < hard / 4


@pytest.mark.parametrize("kind", ["fractions", "value"])
def test_fractions_and_values_of_plain_networks(kind: str) -> None:
    class Shares(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.flatten(1, 2)[:, :3].softmax(dim=1)

    model, cube = Plain(Shares(), kind=kind), make_cube((40, 50))
    expected = whole(model, cube, 1)
    found = predict(model, cube).compute()[kind]
    if kind == "fractions":
        assert found.dims == ("category", "y", "x")
        assert found["category"].to_numpy().tolist() == list(NAMES)
        decoded = np.where(found == 255, np.nan, found / 250)
        npt.assert_allclose(decoded, expected, atol=0.5 / 250 + 1e-6)
    else:
        assert found.dtype == np.float32
        npt.assert_allclose(found, expected, atol=1e-6)


def forecaster() -> Plain:
    model = Plain(lively(create("convlstm_unet")), kind="value", names=("ndvi",))
    model.card.normalisation = Normalisation(method="percentile", bands=("red",), low=(0.0,), high=(0.4,))
    model.select = lambda cube: cube.sel(band=["red"])  # type: ignore[method-assign]
    return model


def test_a_forecast_of_one_value_is_a_plain_map(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    model = forecaster()
    cube = make_cube((90, 120))
    expected = whole(model, cube.sel(band=["red"]), 4)[0]
    found = predict(model, cube).compute()["value"]
    assert found.dims == ("y", "x")
    npt.assert_allclose(found, expected, atol=1e-5)


def test_windows_without_data_are_not_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    cube = make_cube((64, 640))
    cube["data"][..., 100:] = 0
    calls: list[int] = []

    class Counting(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            calls.append(1)
            return x.flatten(1, 2)[:, :3]

    model = Plain(Counting())
    model.reach = Reach(halo=0)  # type: ignore[attr-defined]
    lazy = predict(model, cube)["class"]
    calls.clear()  # layers were counted
    found = lazy.compute(scheduler="synchronous").to_numpy()
    assert (found[:, 100:] == 255).all()
    assert (found[:, :100] != 255).any()
    assert len(calls) == 2 * 4  # 32 px windows over the first 100 columns


def test_ensembles_turns_and_drawn_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch)
    cube = make_cube((72, 96))
    one, two = Plain(unet(), seed=1), Plain(lively(unet(), seed=5), seed=2)
    both = predict([one, two], cube, outputs=("probability",)).compute()["probability"]
    mean = (whole(one, cube, 4) + whole(two, cube, 4)) / 2
    npt.assert_allclose(np.where(both == 255, np.nan, both / 250), mean, atol=0.5 / 250 + 1e-5)

    turned = predict(one, cube, turning="rotations", outputs=("probability",)).compute()["probability"]
    mirror = cube.copy(deep=True)
    mirror["data"][:] = mirror["data"].to_numpy()[..., ::-1]
    other = predict(one, mirror, turning="rotations", outputs=("probability",)).compute()["probability"]
    inner = np.abs(turned.to_numpy().astype(int) - other.to_numpy()[..., ::-1].astype(int))[:, 20:-20, 30:-30]
    assert inner.max() <= 1, "an average over all turns does not depend on how the scene lies"

    drops = Plain(unet(dropout=0.5))
    drawn = [
        predict(drops, cube.chunk({"y": chunk}), passes=3, tile=tile).compute()
        for chunk, tile in ((72, 90), (13, 32))
    ]
    xr.testing.assert_equal(*drawn)
    plain = predict(drops, cube).compute()
    assert (plain["probability"] != drawn[0]["probability"]).any()


def test_spread_is_the_standard_deviation_of_the_members() -> None:
    class Times(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(factor))

        def forward(self, x: Any) -> Any:
            return self.factor * x[:, 0, :1]

    models = [Plain(Times(factor), kind="value", names=("v",)) for factor in (1.0, 2.0, 6.0)]
    cube = make_cube((30, 30))
    found = predict(models, cube, outputs=("value", "spread")).compute()
    single = predict(models[0], cube).compute()["value"]
    npt.assert_allclose(found["value"], 3 * single, rtol=1e-5)
    npt.assert_allclose(found["spread"], np.std([1, 2, 6]) * np.abs(single), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "convlstm_unet"])
def test_threads_of_a_lone_window_change_no_more_than_rounding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cube = Plain(unet()) if name == "unet" else forecaster(), make_cube((120, 131))
    threads: list[int] = []
    real = type(model.network).forward

    def spy(self: Any, *inputs: Any, **options: Any) -> Any:
        threads.append(torch.get_num_threads())
        return real(self, *inputs, **options)

    monkeypatch.setattr(type(model.network), "forward", spy)
    maps = []
    for workers in (1, 3):
        written = predict(model, cube, out=tmp_path / f"{workers}.zarr", workers=workers, progress=False)
        maps.append(written.load())
        assert threads[-1] == workers
    for layer in maps[0]:
        one, three = (each[layer].to_numpy().astype("float64") for each in maps)
        npt.assert_allclose(
            one, three, rtol=0, atol={"class": 0, "probability": 1, "value": 1e-5}[str(layer)]
        )


def test_temperature_calibrates_probabilities() -> None:
    model, cube = Plain(unet()), make_cube((30, 30))
    plain = predict(model, cube, outputs=("probability",)).compute()["probability"].to_numpy()
    model = Plain(unet())
    model.card.temperature = 4.0
    cool = predict(model, cube, outputs=("probability",)).compute()["probability"].to_numpy()
    p = whole(model, cube, 4) ** 0.25
    npt.assert_allclose(np.where(cool == 255, np.nan, cool / 250), p / p.sum(axis=0), atol=0.5 / 250 + 1e-5)
    assert (plain != cool).any()


def test_ancillary_variables_reach_the_network() -> None:
    class Adds(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, ancillary: Any) -> Any:
            return x[:, 0, 0] * 0 + ancillary

    model = Plain(Adds(), kind="value", names=("height",))
    model.ancillary = ("dem",)  # type: ignore[attr-defined]
    model.reach = Reach(halo=3)  # type: ignore[attr-defined]
    cube = make_cube((60, 80))
    cube["dem"] = (("y", "x"), np.arange(4800, dtype="float32").reshape(60, 80))
    expected = np.where((cube["data"] == 0).all(("time", "band")), np.nan, cube["dem"])
    usable = (cube["data"] != 0).any("time").all("band")
    found = predict(model, cube.chunk({"y": 17})).compute()["value"]
    npt.assert_array_equal(found, np.where(usable, expected, np.nan))


def test_written_shard_by_shard_it_is_the_same_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_windows(monkeypatch)
    model, cube = Plain(unet()), make_cube().chunk({"y": 64, "x": 64})
    picture = tmp_path / "map.png"
    written = predict(model, cube, out=tmp_path / "map.zarr", tile=64, preview=picture, progress=False)
    lazy = predict(model, cube).compute()
    for name in ("class", "probability"):
        npt.assert_array_equal(written[name].to_numpy(), lazy[name].to_numpy())
    import matplotlib.image

    shown = matplotlib.image.imread(picture)
    assert shown.shape == (150, 201, 4)
    npt.assert_array_equal(shown[..., 3] > 0, lazy["class"] != 255)
    with pytest.raises(StoreError, match="another cube"):
        predict(model, cube, out=tmp_path / "map.zarr", tile=64, turning="flips", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ("value",)}, "does not exist for a model that gives 'class'"),
        ({"passes": 4}, "drops nothing"),
        ({"turning": "flip"}, "Did you mean 'flips'"),
        ({"preview": "map.png"}, "give out="),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        predict(Plain(unet()), make_cube((20, 20)), **options)


def test_a_network_that_returns_another_size_is_named() -> None:
    class Shrinks(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.flatten(1, 2)[:, :3, 1:-1, 1:-1]

    model = Plain(Shrinks())
    model.reach = Reach(halo=1)  # type: ignore[attr-defined]
    with pytest.raises(PredictionError, match=r"Block \(0, 0\)"):
        predict(model, make_cube((20, 20))).compute()
