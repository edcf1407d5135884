"""Each task learns a problem whose answer is known, and its saved model answers the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pystac  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from cubekit.errors import OptionError, TrainingError  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402
from cubekit.nn import register  # noqa: E402
from cubekit.tasks.examples import Examples  # noqa: E402
from cubekit.training.bundle import load_model  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

TWO = ClassTable.of(["dark", "bright"])
MONTHS = np.arange("2022-01", "2022-05", dtype="datetime64[M]").astype("datetime64[ns]")
YEARS = np.arange("2018", "2022", dtype="datetime64[Y]").astype("datetime64[ns]")


def patches(n: int = 12, *, seed: int = 0, side: int = 16) -> Examples:
    """A bright and a dark half; a quarter of the labels and some values are missing."""
    rng = np.random.default_rng(seed)
    y = (np.indices((side, side))[0] >= rng.integers(4, side - 4, n)[:, None, None]).astype("int64")
    x = y[:, None, None] + rng.normal(0, 0.1, (n, 4, 2, side, side))
    x[rng.random((n, 4, 1, side, side)).repeat(2, axis=2) < 0.2] = np.nan
    y[rng.random(y.shape) < 0.25] = -1
    return Examples(arrays={"x": x.astype("float32"), "y": y}, bands=("a", "b"), times=MONTHS, classes=TWO)


def mixtures(n: int = 300, *, seed: int = 0, ancillary: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    y = rng.dirichlet((1, 1), n).astype("float32")
    ends = np.array([[0.1, 0.5], [0.6, 0.2]])
    season = 1 + 0.3 * np.sin(np.arange(4))
    x = np.einsum("nk,kc->nc", y, ends)[:, None] * season[None, :, None] + rng.normal(0, 0.01, (n, 4, 2))
    x[rng.random((n, 4)) < 0.2] = np.nan
    arrays = {"x": x.astype("float32"), "y": y}
    if ancillary:
        arrays["ancillary"] = rng.normal(size=(n, ancillary)).astype("float32")
    return Examples(arrays=arrays, bands=("a", "b"), times=MONTHS, classes=TWO)


def growth(n: int = 16, *, seed: int = 0, side: int = 12) -> Examples:
    """Maps that grow by a tenth a year, with unknown pixels in past and target."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0.2, 0.6, (n, 1, 1, side, side))
    x = first + 0.1 * np.arange(4)[None, :, None, None, None]
    y = first[:, 0, 0] + 0.4
    x[rng.random(x.shape) < 0.1] = np.nan
    y[rng.random(y.shape) < 0.1] = np.nan
    return Examples(arrays={"x": x.astype("float32"), "y": y.astype("float32")}, bands=("fvc",), times=YEARS)


def pairs(n: int = 4, *, seed: int = 0, side: int = 32, bands: int = 2) -> Examples:
    rng = np.random.default_rng(seed)
    coarse = [
        rng.uniform(0.1, 0.5, (n, bands, side // 8, side // 8)).repeat(8, 2).repeat(8, 3) for _ in range(2)
    ]
    detail = rng.normal(0, 0.02, (n, bands, side, side))
    named = {
        "coarse_t1": coarse[0],
        "coarse_t2": coarse[1],
        "fine_t1": coarse[0] + detail,
        "y": coarse[1] + detail,
    }
    return Examples(
        arrays={name: values.astype("float32") for name, values in named.items()},
        bands=tuple(f"b{i}" for i in range(bands)),
    )


class PixelLinear(nn.Module):
    """A network of one's own for patches: one linear layer at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1, 2))  # type: ignore[no-any-return]


def test_patches_are_classified_pixel_by_pixel(tmp_path: Path) -> None:
    model = fit(
        PixelLinear(), patches(), patches(seed=1), epochs=30, batch=4, learning_rate=0.05, progress=False
    )
    test = patches(seed=2)
    assert model.score(test).overall > 0.97
    x = test.arrays["x"].copy()
    x[0, :, 1, 3, 5] = np.nan
    likely = model.probabilities(x)
    assert likely.shape == (12, 2, 16, 16)
    assert np.isnan(likely[0, :, 3, 5]).all()
    model.save(tmp_path)
    again = load_model(tmp_path, network=PixelLinear())
    np.testing.assert_array_equal(again.probabilities(x), likely)
    item = pystac.Item.from_file(tmp_path / "model.json")
    assert item.properties["mlm:output"][0]["result"]["shape"] == [-1, 2, -1, -1]


def test_a_registered_patch_network_brings_its_halo(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "epochs": 1,
        "batch": 4,
        "arguments": {"width": 4, "depth": 1},
        "progress": False,
    }
    model = fit("unet", patches(4), out=tmp_path, **options)
    assert model.card.form == "patches"
    assert model.card.halo == model.network.reach
    assert load_model(tmp_path).card.contract() == model.card.contract()


def test_unlabelled_pixels_have_no_influence() -> None:
    torch.manual_seed(0)
    fixed = PixelLinear()

    def trained(other: float) -> Tensor:
        train = patches(4)
        hidden = train.arrays["y"] == -1
        train.arrays["x"][np.broadcast_to(hidden[:, None, None], train.arrays["x"].shape)] = other
        model = fit(fixed, train, epochs=1, batch=4, normalise="none", progress=False)
        found: Tensor = model.network.state_dict()["head.weight"]
        return found

    assert torch.equal(trained(0.5), trained(100.0))


@pytest.mark.parametrize(("network", "ancillary"), [("rits", 0), ("brits", 3), ("tempcnn", 0)])
def test_fractions_are_learned(network: str, ancillary: int, tmp_path: Path) -> None:
    arguments = {"hidden": 16} if network != "tempcnn" else {"dropout": 0.0}
    fit(
        network,
        mixtures(ancillary=ancillary),
        mixtures(100, seed=1, ancillary=ancillary),
        task="fractions",
        epochs=12,
        batch=50,
        learning_rate=0.02,
        arguments=arguments | ({"ancillary": ancillary} if ancillary else {}),
        out=tmp_path,
        progress=False,
    )
    test = mixtures(100, seed=2, ancillary=ancillary)
    inputs = {name: values for name, values in test.arrays.items() if name != "y"}
    found = load_model(tmp_path).apply(inputs)
    seen = np.isfinite(found["fractions"][:, 0])
    np.testing.assert_allclose(found["fractions"][seen].sum(axis=1), 1, atol=1e-5)
    error = np.sqrt(np.square(found["fractions"] - test.arrays["y"])[seen].mean(axis=0)).mean()
    spread = test.arrays["y"].std(axis=0).mean()
    assert error < spread / 2
    if network != "tempcnn":
        observed = np.isfinite(test.arrays["x"])
        np.testing.assert_allclose(found["imputed"][observed], test.arrays["x"][observed], atol=1e-4)


def test_the_validation_rmse_is_the_mean_over_classes() -> None:
    valid = mixtures(100, seed=1)
    model = fit("rits", mixtures(100), valid, epochs=1, batch=50, arguments={"hidden": 8}, progress=False)
    found = model.apply({"x": valid.arrays["x"]})["fractions"]
    usable = np.isfinite(found[:, 0])
    assert usable.all()
    expected = np.sqrt(np.square(found - valid.arrays["y"]).mean(axis=0)).mean()
    assert model.card.metrics["valid_rmse"] == pytest.approx(expected, rel=1e-4)


class LastPlus(nn.Module):
    """Last map plus one number."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1, 0] + self.step


def test_a_forecast_learns_the_step_from_known_pixels(tmp_path: Path) -> None:
    train = growth()
    train.arrays["x"][:, -1] = np.where(np.isnan(train.arrays["x"][:, -1]), 0.5, train.arrays["x"][:, -1])
    model = fit(
        LastPlus(),
        train,
        growth(seed=1),
        task="forecast",
        epochs=40,
        batch=4,
        learning_rate=0.02,
        normalise="standard",
        out=tmp_path,
        progress=False,
    )
    clean = growth(seed=2)
    x = np.nan_to_num(clean.arrays["x"], nan=0.5)
    found = load_model(tmp_path, network=LastPlus()).apply({"x": x})["predicted"]
    np.testing.assert_allclose(found, x[:, -1, 0] + 0.1, atol=0.03)
    assert model.card.metrics["valid_r2"] > 0.5


def test_unknown_targets_have_no_influence_on_a_forecast() -> None:
    from cubekit.batching.normalise import Normalisation
    from cubekit.tasks.forecast import Forecast, Forecaster
    from cubekit.tasks.series import SeriesInput

    scale = Normalisation(method="standard", bands=("fvc",), mean=(0.3,), std=(0.2,))
    task = Forecast(Forecaster(SeriesInput(YEARS, scale), LastPlus()))
    data = growth(2)
    batch = {name: torch.from_numpy(values) for name, values in data.arrays.items()}
    known = np.isfinite(data.arrays["y"]) & np.isfinite(data.arrays["x"]).any(axis=(1, 2))
    results = task(batch)
    predicted = task.model.outputs(batch)["predicted"].detach().numpy()
    expected = np.square((predicted - data.arrays["y"])[known] / 0.2).mean()
    assert float(task.loss(results, batch).detach()) == pytest.approx(expected, rel=1e-4)
    nothing = batch | {"y": torch.full_like(batch["y"], torch.nan)}
    torch.autograd.backward(task.loss(task(nothing), nothing))
    grad = task.model.network.step.grad
    assert isinstance(grad, Tensor)
    assert float(grad) == 0


def test_the_shipped_forecast_network_trains(tmp_path: Path) -> None:
    model = fit(
        "convlstm_unet", growth(4), growth(2, seed=1), epochs=1, batch=2, out=tmp_path, progress=False
    )
    assert model.card.task == "forecast"
    assert load_model(tmp_path).apply({"x": growth(1).arrays["x"]})["predicted"].shape == (1, 12, 12)


@register("test-plain-fusion", task="fuse", form="image")
class PlainFusion(nn.Module):
    """The fine image plus a share of the coarse change."""

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(bands, 1, 1))

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        return fine_t1 + self.share * (coarse_t2 - coarse_t1)


def test_fusion_learns_to_add_the_change(tmp_path: Path) -> None:
    model = fit(
        "test-plain-fusion",
        pairs(8),
        pairs(4, seed=1),
        epochs=60,
        batch=4,
        learning_rate=0.05,
        out=tmp_path,
        progress=False,
    )
    test = pairs(2, seed=2)
    found = load_model(tmp_path).apply({k: v for k, v in test.arrays.items() if k != "y"})["predicted"]
    np.testing.assert_allclose(found, test.arrays["y"], atol=0.02)
    assert model.card.metrics["valid_rmse"] < 0.02


@pytest.mark.parametrize("network", ["edcstfn", "mlff_gan"])
def test_published_trainings_run(network: str, tmp_path: Path) -> None:
    model = fit(network, pairs(2), pairs(2, seed=1), epochs=1, batch=2, out=tmp_path, progress=False)
    row = model.card.history[0]
    assert ("train_judge_loss" in row) == (network == "mlff_gan")
    assert model.card.settings.get("pretrain") == (1 if network == "edcstfn" else None)
    assert not list(tmp_path.glob(".*"))
    inputs = {k: v for k, v in pairs(1).arrays.items() if k != "y"}
    assert load_model(tmp_path).apply(inputs)["predicted"].shape == (1, 2, 32, 32)


class TinyDiffusion(nn.Module):
    """A denoiser with as few weights as can be."""

    times = 10

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 2, 1)

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        noise = torch.zeros_like(fine_t1)
        return self.denoise(noise, torch.zeros(len(fine_t1)), coarse_t1, coarse_t2, fine_t1)

    def add_noise(self, fine_t2: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return fine_t2 + noise * (t[:, None, None, None] / self.times)

    def denoise(self, noised: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        del t
        return self.mix(torch.cat([noised, *known], dim=1))  # type: ignore[no-any-return]


def test_diffusion_keeps_the_moving_average() -> None:
    from cubekit.tasks.diffusion import FuseDiffusion
    from cubekit.tasks.fuse import Fuser
    from cubekit.tasks.fusion_recipes import PLAIN

    task = FuseDiffusion(Fuser(TinyDiffusion()), how=PLAIN)
    before = task.kept.state_dict()["mix.weight"].clone()
    model = fit(
        TinyDiffusion(), pairs(8), pairs(4, seed=1), task="fuse", epochs=40, batch=4, learning_rate=0.02,
        progress=False,
    )  # fmt: skip
    losses = [row["valid_loss"] for row in model.card.history]
    assert losses[-1] < losses[0] / 2
    network = task.model.network
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(1)
    task.average.update_parameters(network)  # the first update copies
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(1)
    task.average.update_parameters(network)
    assert torch.allclose(task.kept.state_dict()["mix.weight"], before + 1 + 0.005, atol=1e-6)


def test_shipped_diffusion_pads_and_takes_a_step() -> None:
    from cubekit.nn import create
    from cubekit.tasks.diffusion import FuseDiffusion
    from cubekit.tasks.fuse import Fuser
    from cubekit.training.setup import fusion_recipe

    torch.manual_seed(0)
    task = FuseDiffusion(Fuser(create("stfdiff", bands=2)), how=fusion_recipe("stfdiff"))
    data = pairs(1, side=16)
    batch = {name: torch.from_numpy(values)[..., :14, :15] for name, values in data.arrays.items()}
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = task.training_step(batch, 0)
    torch.autograd.backward(loss)
    assert float(loss.detach()) > 0
    assert all(w.grad is not None for w in task.model.network.parameters())


@pytest.mark.parametrize(
    ("network", "task", "data", "match"),
    [
        ("unet", None, mixtures(8), "not to classify series"),
        ("tempcnn", "fuse", pairs(2), "is for task 'classify' on series, not to fuse image"),
        ("edcstfn", "classify", pairs(2), "is for task 'fuse', not for 'classify'"),
        ("edcstfn", None, mixtures(8), "lack .*coarse_t1"),
        ("brits", "fractons", mixtures(8), "Did you mean 'fractions'"),
    ],
)
def test_networks_of_another_task_are_refused(network: str, task: Any, data: Examples, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        fit(network, data, task=task, epochs=1, batch=2, progress=False)


def test_wrong_targets_are_named() -> None:
    gappy = pairs(3)
    gappy.arrays["fine_t1"][1, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match=r"1 training examples \(fine_t1 of 1\) hold gaps"):
        fit("edcstfn", gappy, epochs=1, batch=2, progress=False)
    heavy = mixtures(60)
    heavy.arrays["y"][4] *= 2
    with pytest.raises(TrainingError, match=r"\(y of 4\) hold shares .* divide by their sum"):
        fit("rits", heavy, epochs=1, batch=2, progress=False)
    beyond = patches(4)
    beyond.arrays["y"][0, 0, 0] = 7
    with pytest.raises(TrainingError, match="up to 7; expected integers from 0 to 1"):
        fit(PixelLinear(), beyond, epochs=1, batch=2, progress=False)
    alone = patches(4)
    alone.arrays["y"][:] = 1
    with pytest.raises(TrainingError, match="class 'bright': a classifier needs at least two"):
        fit(PixelLinear(), alone, epochs=1, batch=2, progress=False)
    with pytest.raises(OptionError, match="need y and as many entries"):
        Examples(arrays={"x": np.zeros((2, 4, 2)), "y": np.zeros(3)}, bands=("a", "b"), times=MONTHS)


class Stream:
    """Batches from elsewhere that say what they hold."""

    def __init__(self, data: Examples) -> None:
        from cubekit.tasks.examples import ExampleStream

        self.bands, self.times, self.classes = data.bands, data.times, data.classes
        self._inner = ExampleStream(data, batch=4)

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Any:
        for batch in self._inner:
            yield {name: values for name, values in batch.items() if name != "index"}


def test_a_stream_of_patches_trains_as_the_examples_do() -> None:
    options: dict[str, Any] = {"epochs": 20, "learning_rate": 0.05, "progress": False}
    model = fit(PixelLinear(), Stream(patches()), Stream(patches(seed=1)), **options)
    assert model.card.form == "patches"
    assert model.score(patches(seed=2)).overall > 0.95
    with pytest.raises(OptionError, match="a list, expected Samples, Examples or a stream"):
        fit(PixelLinear(), [{}], **options)
