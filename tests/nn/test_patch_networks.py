import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe  # noqa: E402
from cubekit.nn.deeplabv3plus import DeepLabV3Plus  # noqa: E402
from cubekit.nn.unet import UNet  # noqa: E402

pytestmark = pytest.mark.torch

NAMES = ["unet", "deeplabv3plus"]
SMALL = {"bands": 3, "steps": 2, "classes": 4, "width": 8}


def build(name: str, **arguments: float | bool) -> nn.Module:
    torch.manual_seed(0)
    network = create(name, **{**SMALL, **arguments})
    with torch.no_grad():
        network(torch.randn(4, 6, 32, 32))
    return network.eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (16, 5), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_comes_back_in_that_size(name: str, height: int, width: int) -> None:
    network = build(name)
    x = torch.randn(2, 2, 3, height, width)
    logits = network(x)
    assert logits.shape == (2, 4, height, width)
    assert torch.equal(network(x.flatten(1, 2)), logits)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_each_patch_stands_alone(name: str) -> None:
    network = build(name, dropout=0.5)
    x = torch.randn(3, 2, 3, 33, 40)
    together = network(x)
    assert torch.equal(network(x), together)
    torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name).train()
    loss = nn.functional.cross_entropy(network(torch.randn(4, 6, 32, 32)), torch.randint(4, (4, 32, 32)))
    torch.autograd.backward(loss)
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_wrong_channels_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="6 channels"):
        build(name)(torch.zeros(1, 5, 32, 32))
    assert (describe(name).task, describe(name).form) == ("classify", "patches")


def test_unet_has_the_size_of_the_classic_one() -> None:
    network = UNet(bands=3, classes=2, width=64)
    assert sum(p.numel() for p in network.parameters()) == 31_037_698


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unet_depends_on_nothing_beyond_its_reach(depth: int) -> None:
    network = build("unet", depth=depth)
    assert isinstance(network, UNet)
    side = 2 * network.reach + 3 * network.multiple
    side += -side % network.multiple
    x = torch.randn(1, 6, side, side, requires_grad=True)
    touched = 0
    for row in range(side // 2, side // 2 + network.multiple):  # every phase of the pooling grid
        (gradient,) = torch.autograd.grad(network(x)[..., row, row].sum(), x)
        rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
        touched = max(touched, int((rows - row).abs().max()))
    assert touched <= network.reach
    assert touched >= network.reach - network.multiple


def test_deeplab_without_image_pooling_has_a_bounded_reach_and_trains_on_one_patch() -> None:
    bounded, whole = build("deeplabv3plus", image_pooling=False), build("deeplabv3plus")
    assert isinstance(bounded, DeepLabV3Plus)
    far = torch.randn(1, 6, 16, 1600)
    moved = far.clone()
    moved[..., -16:] += 1.0
    assert torch.equal(bounded(far)[..., :16], bounded(moved)[..., :16])
    assert not torch.equal(whole(far)[..., :16], whole(moved)[..., :16])
    assert bounded.train()(torch.randn(1, 6, 32, 32)).isfinite().all()


def test_deeplab_encoder_has_the_size_of_an_18_layer_residual_network() -> None:
    network = DeepLabV3Plus(bands=3, classes=2)
    encoder = [network.stem, network.low, network.deep]
    assert sum(p.numel() for part in encoder for p in part.parameters()) == 11_689_512 - (512 * 1000 + 1000)
