"""Several networks on the same samples."""

import csv
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import cubekit as ck  # noqa: E402
from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.errors import OptionError  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402
from cubekit.pipeline.training import save_with_curves, tell_scores  # noqa: E402
from cubekit.tasks.examples import Examples  # noqa: E402
from cubekit.training.bundle import Model  # noqa: E402
from cubekit.training.scores import score_beside_baselines  # noqa: E402

pytestmark = pytest.mark.torch


def samples(n: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = y[:, None, None] * 0.2 + rng.normal(0, 0.1, (n, 8, 2))
    return Samples(
        x=x.astype("float32"),
        y=y.astype("int16"),
        bands=("red", "nir"),
        times=np.arange("2022-01", "2022-09", dtype="datetime64[M]").astype("datetime64[ns]"),
        classes=ClassTable.of(["bare", "crop"]),
        group=np.arange(n),
        position=np.full((n, 2), np.nan),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype="float32", nodata=float("nan")),
    )


def test_networks_models_and_baselines_stand_in_one_table(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train, valid, test = samples(128, 0), samples(40, 1), samples(60, 2)
    trained = ck.fit("lstm", train, epochs=1, batch=32, progress=False)
    result = ck.compare(
        ["conv1d", trained], train, valid, test, seeds=(0, 1), out=tmp_path,
        settings={"epochs": 2, "batch": 32, "progress": False},
    )  # fmt: skip
    rows = {row.name: row for row in result.rows}
    assert {"conv1d", "random forest", "majority class"} < set(rows)
    conv = rows["conv1d"]
    models = [ck.load_model(tmp_path / f"conv1d-{seed}") for seed in (0, 1)]
    each = [model.score(test).overall for model in models]
    assert conv.scores["overall accuracy"] == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert (conv.runs, conv.parameters) == (2, models[0].card.parameters)
    assert conv.samples_per_second is not None
    assert conv.samples_per_second > 0
    means = [row.scores["overall accuracy"][0] for row in result.rows]
    assert means == sorted(means, reverse=True)
    records = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    assert [record["method"] for record in records] == [row.name for row in result.rows]
    assert "±" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OptionError, match="which compare decides itself"):
        ck.compare(["conv1d"], train, valid, test, settings={"seed": 1})
    with pytest.raises(OptionError, match="found 0 and 1"):
        ck.compare([], train, valid, test)


class Keep(nn.Module):
    """The last map."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1, 0] * self.share


def test_forecasts_stand_beside_persistence_climatology_and_trend() -> None:
    years = np.arange("2018", "2022", dtype="datetime64[Y]").astype("datetime64[ns]")
    x = np.random.default_rng(0).random((8, 1, 1, 6, 6)) + 0.1 * np.arange(4)[None, :, None, None, None]
    data = Examples(
        arrays={"x": x.astype("float32"), "y": (x[:, -1, 0] + 0.1).astype("float32")}, bands=("ndvi",),
        times=years,
    )  # fmt: skip
    model = ck.fit(Keep(), data, task="forecast", epochs=1, batch=4, learning_rate=1e-9, progress=False)
    found = score_beside_baselines(model, data, data)
    assert list(found)[1:] == ["persistence", "climatology", "linear trend"]
    own, *others = (score.overall for score in found.values())
    assert own == pytest.approx(others[0], abs=1e-5)
    np.testing.assert_allclose(others, [0.1, 0.25, 0], atol=1e-5)
    assert "RMSE on the test samples" in tell_scores(model, data, data)
    result = ck.compare([model], data, None, data)
    assert result.rows[0].name == "linear trend"


def test_the_card_shows_the_curves(tmp_path: Path) -> None:
    model = ck.fit("conv1d", samples(64, 0), samples(32, 1), epochs=2, batch=32, out=tmp_path, progress=False)
    save_with_curves(model, tmp_path)
    assert "![curves](curves.png)" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert ck.load_model(tmp_path).card.pictures == ("curves.png",)
    told = tell_scores(model, samples(64, 0), samples(40, 2))
    assert "expected calibration error" in told
    assert "majority class" in told


def test_calibration_lowers_the_error_of_a_model_that_is_too_sure() -> None:
    from cubekit.training.scores import calibration_of

    rng = np.random.default_rng(5)
    noisy = [samples(n, seed) for n, seed in ((60, 0), (200, 1), (400, 2))]
    for part in noisy:
        flipped = rng.random(len(part)) < 0.3
        part.y[flipped] = 1 - part.y[flipped]
    options = {"epochs": 12, "batch": 30, "learning_rate": 0.03, "progress": False}
    train, valid, test = noisy
    plain = ck.fit("conv1d", train, valid, calibrate=False, **options)  # type: ignore[arg-type]
    honest = ck.fit("conv1d", train, valid, **options)  # type: ignore[arg-type]
    assert honest.card.temperature != 1
    np.testing.assert_array_equal(honest.classify(test.physical()), plain.classify(test.physical()))

    def surprise(model: Model) -> float:
        likely = model.probabilities(valid.physical())[np.arange(len(valid)), valid.y]
        return float(-np.log(likely).mean())

    assert surprise(honest) < surprise(plain)
    assert calibration_of(honest, test).counts.sum() == 400
