import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from cubekit.nn import create  # noqa: E402
from cubekit.nn.tempcnn import TempCNN  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("bands", "steps", "classes", "count"),
    [(10, 13, 10, 261_066), (20, 12, 5, 246_597), (10, 12, 10, 244_682)],
)
def test_parameter_counts(bands: int, steps: int, classes: int, count: int) -> None:
    network = create("tempcnn", bands=bands, steps=steps, classes=classes)
    assert sum(weights.numel() for weights in network.parameters()) == count
    assert network(torch.zeros(4, steps, bands)).shape == (4, classes)


def test_dropout_works_in_training_only() -> None:
    network, x = create("tempcnn", bands=2, steps=6, classes=3), torch.rand(8, 6, 2)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_weights_start_he_normal() -> None:
    torch.manual_seed(0)
    network = create("tempcnn", bands=10, steps=24, classes=6)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_neighbouring_dates_reach_six_steps_far() -> None:
    network = create("tempcnn", bands=1, steps=20, classes=2).eval()
    assert isinstance(network, TempCNN)
    x = torch.rand(1, 20, 1, requires_grad=True)
    network.convolutions(x.transpose(1, 2))[0, :, 10].sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0].nonzero()[:, 0].tolist() == list(range(4, 17))
