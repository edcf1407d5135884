"""Folded networks against the networks they were made from."""

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from cubekit.nn.fold import SeriesConvolution, fold_norms, quick_series  # noqa: E402
from cubekit.nn.registry import create  # noqa: E402

NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("unet", {"bands": 2, "classes": 3, "width": 4, "depth": 2}, (1, 1, 2, 32, 32)),
        ("deeplabv3plus", {"bands": 2, "classes": 3, "width": 4}, (1, 1, 2, 64, 64)),
        ("convlstm_unet", {}, (1, 3, 1, 20, 24)),
        ("tempcnn", {"bands": 2, "steps": 12, "classes": 3}, (5, 12, 2)),
        ("utae", {"bands": 2, "classes": 3}, (1, 3, 2, 32, 32)),
    ],
)
def test_folding_changes_nothing_but_the_work(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = create(name, **arguments)
    norms = [m for m in network.modules() if isinstance(m, NORMS)]
    for norm in norms:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.1, 3)
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.uniform_(norm.bias, -1, 1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_norms(network.train())
    left = [m for m in folded.modules() if isinstance(m, NORMS)]
    assert len(left) < len(norms) / 3
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    x = torch.rand(shape)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tempcnn", "conv1d", "lstm", "ltae"])
@pytest.mark.parametrize("steps", [12, 23])
def test_series_networks_are_quicker_and_the_same(name: str, steps: int) -> None:
    torch.manual_seed(0)
    network = create(name, bands=10, steps=steps, classes=10)
    for norm in (m for m in network.modules() if isinstance(m, NORMS)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.3, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    quick = quick_series(network)
    assert not any(isinstance(m, torch.nn.Conv1d) for m in quick.modules())
    assert any(isinstance(m, SeriesConvolution) for m in quick.modules()) == (name in {"tempcnn", "conv1d"})
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    x = torch.rand(64, steps, 10)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), network.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"dilation": 2, "padding": 3}, {"groups": 2}, {"padding": "same"}]
)
def test_a_convolution_of_any_kind_is_the_same(options: dict[str, Any]) -> None:
    convolution = torch.nn.Conv1d(4, 6, 3, **options)
    x = torch.rand(5, 4, 11)
    with torch.inference_mode():
        torch.testing.assert_close(SeriesConvolution(convolution)(x), convolution(x), rtol=0, atol=1e-6)
