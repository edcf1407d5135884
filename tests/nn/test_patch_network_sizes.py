"""Parameters of networks on patches, counted layer by layer from their descriptions, not from the code."""

from itertools import pairwise

import pytest

pytest.importorskip("torch")

from torch import nn

from cubekit.nn.deeplabv3plus import DeepLabV3Plus
from cubekit.nn.unet import UNet
from cubekit.nn.utae import UTAE

pytestmark = pytest.mark.torch


def normed(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> int:
    """Count a convolution, and the scale and shift of the norm behind it."""
    return inputs * outputs * kernel**2 + (outputs if bias else 0) + 2 * outputs


def unet(channels: int, classes: int, width: int, depth: int) -> int:
    def double(inputs: int, outputs: int) -> int:
        return normed(inputs, outputs, 3) + normed(outputs, outputs, 3)

    total = double(channels, width)
    for level in range(depth):
        fine, coarse = width * 2**level, width * 2 ** (level + 1)
        total += double(fine, coarse)  # down
        total += 4 * coarse * fine + fine + double(2 * fine, fine)  # up, and the join
    return total + width * classes + classes


def deeplabv3plus(channels: int, classes: int, width: int, *, image_pooling: bool) -> int:
    def residual(inputs: int, outputs: int) -> int:
        shortcut = normed(inputs, outputs, 1) if inputs != outputs else 0
        return normed(inputs, outputs, 3) + normed(outputs, outputs, 3) + shortcut

    stages = [width, width, 2 * width, 4 * width, 8 * width]
    encoder = normed(channels, width, 7)
    for inputs, outputs in pairwise(stages):  # two blocks a stage
        encoder += residual(inputs, outputs) + residual(outputs, outputs)
    deep = stages[-1]
    pyramid = normed(deep, 256, 1) + 3 * normed(deep, 256, 3) + image_pooling * normed(deep, 256, 1)
    pyramid += normed((4 + image_pooling) * 256, 256, 1)
    decoder = normed(width, 48, 1) + normed(256 + 48, 256, 3) + normed(256, 256, 3)
    return encoder + pyramid + decoder + 256 * classes + classes


def utae(bands: int, classes: int) -> int:
    def three(inputs: int, outputs: int) -> int:
        return normed(inputs, outputs, 3, bias=True)

    total = three(bands, 64) + three(64, 64)
    for inputs, outputs in [(64, 64), (64, 64), (64, 128)]:
        total += normed(inputs, inputs, 4, bias=True) + three(inputs, outputs) + three(outputs, outputs)
    total += 2 * 128 + (128 * 256 + 256)  # norm, projection
    total += (256 * 16 * 4 + 16 * 4) + 16 * 4  # keys and queries of 16 heads
    total += (256 * 128 + 128) + 2 * 128 + 2 * 128  # 256 to 128, batch norm, group norm
    for inputs, outputs in [(128, 64), (64, 32), (32, 32)]:
        total += normed(64, 64, 1, bias=True) + normed(inputs, outputs, 4, bias=True)
        total += three(outputs + 64, outputs) + three(outputs, outputs)
    return total + three(32, 32) + 32 * classes * 9 + classes


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("width", "depth"), [(16, 2), (16, 3), (32, 4)])
def test_unet(width: int, depth: int) -> None:
    network = UNet(bands=10, steps=13, classes=10, width=width, depth=depth)
    assert size(network) == unet(130, 10, width, depth)


@pytest.mark.parametrize("image_pooling", [True, False])
@pytest.mark.parametrize("width", [16, 64])
def test_deeplabv3plus(width: int, image_pooling: bool) -> None:  # noqa: FBT001
    network = DeepLabV3Plus(bands=10, steps=13, classes=10, width=width, image_pooling=image_pooling)
    assert size(network) == deeplabv3plus(130, 10, width, image_pooling=image_pooling)


def test_utae() -> None:
    assert size(UTAE(bands=10, classes=10)) == utae(10, 10)
    assert utae(10, 20) == 1_087_260 - 2 * 20  # published, but for the norm after the last layer


def test_the_figures_of_the_docs() -> None:
    """Sixteen dates of ten bands and four classes, as in docs/systems/land_cover.md."""
    assert unet(160, 4, 16, 2) == 140_020
    assert deeplabv3plus(160, 4, 16, image_pooling=False) == 3_300_548
    assert utae(10, 4) == 1_082_596
