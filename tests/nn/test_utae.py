import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe  # noqa: E402
from cubekit.nn.utae import UTAE  # noqa: E402

pytestmark = pytest.mark.torch

STEPS = 4


def build() -> UTAE:
    torch.manual_seed(0)
    network = create("utae", bands=3, classes=5, steps=STEPS)
    assert isinstance(network, UTAE)
    with torch.no_grad():
        network(torch.randn(2, STEPS, 3, 16, 16))
    return network.eval()


def batch(n: int = 2, height: int = 16, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True, False, True, True], [False, True, False, True]])
    return torch.randn(n, STEPS, 3, height, width, generator=generator), mask[:n]


def test_it_has_the_published_size_but_for_the_last_norm() -> None:
    network = UTAE(bands=10, classes=20)
    assert sum(p.numel() for p in network.parameters()) == 1_087_260 - 2 * 20
    assert (describe("utae").task, describe("utae").form) == ("classify", "patches")


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 30), (3, 9)])
def test_any_size_comes_back_in_that_size(height: int, width: int) -> None:
    x, mask = batch(2, height, width)
    assert build()(x, mask).shape == (2, 5, height, width)


def test_evaluation_is_deterministic_and_each_patch_stands_alone() -> None:
    network = build()
    x, mask = batch()
    together = network(x, mask)
    assert torch.equal(network(x, mask), together)
    torch.testing.assert_close(network(x[1:], mask[1:]), together[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_masked_dates_have_no_influence(*, training: bool) -> None:
    network = build().train(training)
    x, mask = batch()
    spoiled = torch.where(mask[:, :, None, None, None], x, torch.nan)
    torch.manual_seed(3)
    expected = network(x, mask)
    torch.manual_seed(3)
    assert torch.equal(network(spoiled, mask), expected)


def test_padding_with_masked_dates_changes_nothing_and_days_count() -> None:
    network = build()
    x, mask = batch()
    days = torch.tensor([[10, 50, 90, 130], [10, 50, 90, 130]])
    expected = network(x, mask, days)
    longer = torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    padded = torch.cat([x, torch.randn(2, 2, 3, 16, 16)], dim=1)
    found = network(padded, longer, torch.cat([days, torch.zeros(2, 2, dtype=torch.long)], dim=1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network(x, mask, days + 100), expected, atol=1e-5, rtol=1e-4)
    assert (network(x, mask, days * 2) - expected).abs().max() > 1e-5
    torch.testing.assert_close(network(x, torch.ones_like(mask)), network(x), atol=1e-5, rtol=1e-4)


def test_one_date_gets_all_the_attention() -> None:
    network = build()
    x, _ = batch()
    only = torch.tensor([[False, True, False, False]] * 2)
    coarse = torch.randn(2, STEPS, 128, 2, 2)
    _, weights = network.attention(coarse, only, torch.zeros(2, STEPS))
    assert torch.equal(weights, only[:, :, None, None, None].float().expand_as(weights))
    assert network(x, only).isfinite().all()


def test_gradients_reach_every_parameter() -> None:
    network = build().train()
    x, mask = batch()
    loss = nn.functional.cross_entropy(network(x, mask), torch.randint(5, (2, 16, 16)))
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        norm_follows = name.endswith("bias")  # a bias right before a norm moves nothing
        assert parameter.grad.abs().sum() > 0 or norm_follows, name


def test_what_does_not_fit_is_refused() -> None:
    x, mask = batch()
    with pytest.raises(OptionError, match=r"expected \(n, t, 3, h, w\)"):
        build()(x[:, :, :2])
    with pytest.raises(OptionError, match="one observed date"):
        build()(x, torch.zeros_like(mask))
