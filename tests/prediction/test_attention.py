"""Which dates a network with attention looks at."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cubekit as ck  # noqa: E402
from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.errors import ModelMismatchError, OptionError  # noqa: E402
from cubekit.exports.figures import attention_figure, png_bytes  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402
from cubekit.training.bundle import Model  # noqa: E402

pytestmark = pytest.mark.torch

DECIDES = 5


def samples(n: int, seed: int) -> Samples:
    """Two classes that differ at one date of eight, and a third that nobody has."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(0.3, 0.02, (n, 8, 2))
    x[:, DECIDES] += y[:, None] * 0.4
    x[rng.random((n, 8)) < 0.1] = np.nan
    return Samples(
        x=x.astype("float32"),
        y=y.astype("int16"),
        bands=("red", "nir"),
        times=np.arange("2022-01", "2022-09", dtype="datetime64[M]").astype("datetime64[ns]"),
        classes=ClassTable.of(["bare", "crop", "water"]),
        group=np.arange(n),
        position=np.full((n, 2), np.nan),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype="float32", nodata=float("nan")),
    )


@pytest.fixture(scope="module")
def ltae() -> Model:
    return ck.fit("ltae", samples(400, 0), epochs=8, batch=50, learning_rate=3e-3, progress=False)


def test_the_means_are_those_of_the_weights_of_every_sample(ltae: Model) -> None:
    test = samples(70, 1)
    seen = ck.date_attention(ltae, test, batch=16)
    whole = ck.date_attention(ltae, test)
    for name in ("weight", "spread", "by_head"):
        np.testing.assert_allclose(seen[name], whole[name], atol=1e-5)
    assert seen["samples"].to_numpy().tolist() == [*np.bincount(test.y), 0]
    np.testing.assert_allclose(seen["weight"].sum("time")[:2], 1, atol=1e-5)
    assert np.isnan(seen["weight"][2]).all()
    predictor: Any = ltae.predictor
    ready = predictor.inputs(torch.from_numpy(test.physical()))
    network: Any = ltae.network
    _, each = network.attend(ready["x"], None, ready["doy"])
    own = each.detach().numpy()[test.y == 1].mean(axis=1)
    np.testing.assert_allclose(seen["weight"].sel(category="crop"), own.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(seen["spread"].sel(category="crop"), own.std(axis=0), atol=1e-5)


def test_the_date_that_tells_the_classes_apart_is_looked_at_most(ltae: Model) -> None:
    seen = ck.date_attention(ltae, samples(200, 2))
    assert seen["by_head"].sel(category="crop").max("head").argmax("time") == DECIDES
    assert png_bytes(attention_figure(seen))[:4] == b"\x89PNG"


def test_networks_without_attention_and_foreign_samples_are_refused(ltae: Model) -> None:
    test = samples(40, 3)
    with pytest.raises(OptionError, match="'conv1d' has no attention"):
        ck.date_attention(ck.fit("conv1d", test, epochs=1, batch=20, progress=False), test)
    with pytest.raises(ModelMismatchError, match="bands"):
        ck.date_attention(ltae, Samples(**{**vars(test), "bands": ("red", "swir")}))
