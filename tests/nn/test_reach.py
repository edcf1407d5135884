"""How far networks look, against what their layers say and against images cut apart."""

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from cubekit.nn.reach import Reach, measure_reach  # noqa: E402
from cubekit.nn.registry import create  # noqa: E402


def conv(kernel: int, dilation: int = 1, stride: int = 1) -> Any:
    return torch.nn.Conv2d(1, 1, kernel, stride, dilation * (kernel // 2), dilation)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([conv(1)], Reach(halo=0)),
        ([conv(3)], Reach(halo=1)),
        ([conv(3), torch.nn.ReLU(), conv(5, dilation=3)], Reach(halo=7)),
        ([torch.nn.MaxPool2d(4), torch.nn.Upsample(scale_factor=4)], Reach(halo=0, multiple=4)),
        ([torch.nn.MaxPool2d(4), conv(3), torch.nn.Upsample(scale_factor=4)], Reach(halo=4, multiple=4)),
        ([conv(3), torch.nn.InstanceNorm2d(1)], Reach(halo=None)),
        ([torch.nn.AdaptiveAvgPool2d(1), torch.nn.Upsample(size=(32, 32))], Reach(halo=None)),
    ],
)
def test_layers_reach_as_far_as_arithmetic_says(layers: list[Any], expected: Reach) -> None:
    torch.manual_seed(0)
    if isinstance(layers[-1], torch.nn.Upsample) and layers[-1].size is not None:

        class Mean(torch.nn.Module):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                return x - x.mean(dim=(2, 3), keepdim=True)

        layers = [Mean()]
    assert measure_reach(torch.nn.Sequential(*layers), [(1,)]) == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_unet_is_measured_within_what_it_declares(depth: int) -> None:
    torch.manual_seed(0)
    network: Any = create("unet", bands=1, classes=2, width=4, depth=depth)
    reach = measure_reach(network, [(1, 1)])
    assert reach.multiple == 2**depth
    assert reach.halo is not None
    # The declared reach counts from any pixel, the halo from the edge of a whole cell of the pooling grid.
    assert network.reach - 2**depth < reach.halo <= network.reach
    assert network.reach_over(1) == reach, "what it says of itself"


def test_shipped_networks() -> None:
    assert measure_reach(create("edcstfn", bands=1), [(1,)] * 3) == Reach(halo=5)
    assert measure_reach(create("convlstm_unet"), [(2, 1)]).multiple == 4
    bounded = create("deeplabv3plus", bands=1, classes=2, width=2, image_pooling=False)
    assert measure_reach(bounded, [(1, 1)]).bounded
    assert not measure_reach(create("deeplabv3plus", bands=1, classes=2, width=2), [(1, 1)]).bounded
    assert not measure_reach(create("gan_stfm", bands=1), [(1,)] * 3).bounded


def test_hidden_bad_values_are_found_by_gradient() -> None:
    class Hides(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(9)

        def forward(self, x: Any) -> Any:
            return self.conv(torch.nan_to_num(x))

    assert measure_reach(Hides(), [(1,)]) == Reach(halo=4)


def test_measuring_leaves_network_and_chance_alone() -> None:
    network = create("unet", bands=1, classes=2, width=2, depth=1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measure_reach(network, [(1, 1)])
    assert torch.rand(1) == expected
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
