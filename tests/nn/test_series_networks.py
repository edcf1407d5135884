import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe  # noqa: E402
from cubekit.nn.conv1d import PixelConv1d  # noqa: E402
from cubekit.nn.lstm import LSTMClassifier  # noqa: E402
from cubekit.nn.ltae import LTAE  # noqa: E402

pytestmark = pytest.mark.torch

BANDS, STEPS, CLASSES = 10, 13, 10
NETWORKS = [LSTMClassifier, PixelConv1d, LTAE]


def build(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = kind(bands=BANDS, steps=STEPS, classes=CLASSES)
    with torch.no_grad():  # running statistics away from their initial values, as after training
        network(torch.randn(64, STEPS, BANDS))
    return network.eval()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def series(n: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, STEPS, BANDS, generator=generator)
    mask = torch.rand(n, STEPS, generator=generator) > 0.4
    mask[:, 5] = True
    return x, mask


def test_parameter_counts_are_those_of_the_specification() -> None:
    assert count(LSTMClassifier(bands=20, steps=12, classes=5)) == 209_541
    assert count(LSTMClassifier(bands=20, steps=12, classes=5, layers=1)) == 77_445
    assert count(PixelConv1d(bands=10, steps=13, classes=10)) == 138_654
    assert count(LTAE(bands=10, steps=13, classes=10, norm="paper")) == 126_634
    assert count(LTAE(bands=20, steps=12, classes=5, norm="paper")) == 126_597
    assert count(LTAE(bands=10, classes=10)) == 100_224 + 9_408 + 10_858


@pytest.mark.parametrize("kind", NETWORKS)
def test_evaluation_is_deterministic_and_each_series_stands_alone(kind: type[nn.Module]) -> None:
    network = build(kind)
    x, mask = series()
    together = network(x, mask)
    assert together.shape == (6, CLASSES)
    assert torch.equal(network(x, mask), together)
    alone = torch.cat([network(x[i : i + 1], mask[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("per_value", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_masked_values_have_no_influence(
    kind: type[nn.Module], *, junk: float, training: bool, per_value: bool
) -> None:
    network = build(kind).train(training)
    x, mask = series()
    if per_value:
        mask = mask.unsqueeze(-1) & (torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.3)
    spoiled = torch.where(mask if per_value else mask.unsqueeze(-1), x, junk)
    torch.manual_seed(3)
    expected = network(x, mask)
    torch.manual_seed(3)
    assert torch.equal(network(spoiled, mask), expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_observed_values_have_influence_and_a_full_mask_is_no_mask(kind: type[nn.Module]) -> None:
    network = build(kind)
    x, mask = series()
    changed = x.clone()
    changed[:, 5] += 1.0
    assert (network(changed, mask) - network(x, mask)).abs().amax(dim=1).gt(1e-4).all()
    torch.testing.assert_close(network(x, torch.ones_like(mask)), network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", NETWORKS)
def test_series_without_any_date_give_finite_logits_and_gradients(kind: type[nn.Module]) -> None:
    network = build(kind)
    x = torch.full((2, STEPS, BANDS), torch.nan, requires_grad=True)
    logits = network(x, torch.zeros(2, STEPS, dtype=torch.bool))
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_reach_every_parameter(kind: type[nn.Module]) -> None:
    network = build(kind).train()
    x, mask = series(32)
    loss = nn.functional.cross_entropy(network(x, mask), torch.arange(32) % CLASSES)
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", NETWORKS)
def test_wrong_shapes_are_refused(kind: type[nn.Module]) -> None:
    network = build(kind)
    with pytest.raises(OptionError, match=r"\(2, 13, 9\)"):
        network(torch.zeros(2, STEPS, BANDS - 1))
    with pytest.raises(OptionError, match="mask has shape"):
        network(torch.zeros(2, STEPS, BANDS), torch.ones(2, STEPS - 1, dtype=torch.bool))


def test_lstm_skips_masked_dates_as_if_they_were_not_there() -> None:
    network = build(LSTMClassifier)
    x, mask = series(1)
    torch.testing.assert_close(network(x, mask), network(x[:, mask[0]]), atol=1e-6, rtol=0)


def test_conv1d_fixes_the_number_of_dates() -> None:
    with pytest.raises(OptionError, match=r"expected \(n, 13, 10\)"):
        build(PixelConv1d)(torch.zeros(2, 12, BANDS))
    with pytest.raises(OptionError, match="steps=1"):
        PixelConv1d(bands=1, steps=1, classes=2)


def test_conv1d_input_statistics_leave_masked_dates_out() -> None:
    network = build(PixelConv1d)
    assert isinstance(network, PixelConv1d)
    network.scale.reset_running_stats()
    network.scale.momentum = 1.0
    x, mask = series(16)
    network.train()(x, mask)
    expected = x[mask].mean(dim=0)
    torch.testing.assert_close(network.scale.running_mean, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("with_doy", [False, True])
def test_ltae_padding_with_masked_dates_changes_nothing(*, with_doy: bool) -> None:
    network = build(LTAE)
    x, mask = series()
    doy = torch.arange(STEPS).mul(16).add(290).fmod(365).expand(6, -1) if with_doy else None
    padded = torch.cat([x, torch.full((6, 4, BANDS), 7.0)], dim=1)
    longer = torch.cat([mask, torch.zeros(6, 4, dtype=torch.bool)], dim=1)
    days = None if doy is None else torch.cat([doy, torch.full((6, 4), -50)], dim=1)
    torch.testing.assert_close(network(padded, longer, days), network(x, mask, doy), atol=1e-5, rtol=0)


def test_ltae_positions_are_days_since_the_first_observed_date_across_years() -> None:
    network = build(LTAE)
    x, mask = series(2)
    mask[:, 0] = False
    days = torch.arange(STEPS) * 30 + 305
    wrapped = (days - 1) % 365 + 1
    junk = torch.where(mask, wrapped, torch.tensor(-1000))
    expected = network(x, mask, days.expand(2, -1))
    torch.testing.assert_close(network(x, mask, wrapped.expand(2, -1)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x, mask, junk), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x, mask, days.add(40).expand(2, -1)), expected, atol=1e-5, rtol=0)
    assert (network(x, mask) - expected).abs().max() > 1e-4


def test_ltae_attention_follows_the_published_equations() -> None:
    network = build(LTAE)
    assert isinstance(network, LTAE)
    x, mask = series(1)
    logits, weights = network.attend(x, mask)
    assert torch.equal(logits, network(x, mask))
    assert torch.equal(weights == 0, (~mask).unsqueeze(1).expand_as(weights))
    joined = torch.zeros(256)
    dates = mask[0].nonzero()[:, 0]
    for head in range(16):  # one head and one date after the other, as the paper writes it
        scores, values = [], []
        for date in dates:
            angles = torch.tensor([(date + 1) / 1000 ** (2 * (j // 2) / 16) for j in range(16)])
            code = torch.where(torch.arange(16) % 2 == 0, angles.sin(), angles.cos()).repeat(16)
            embedded = network.embed(x[:, date])[0]
            value = network.norm_model(network.project(network.norm_in(embedded))) + code
            scores.append(network.key(value)[8 * head : 8 * head + 8] @ network.query[head] / 8**0.5)
            values.append(value[16 * head : 16 * head + 16])
        attention = torch.stack(scores).softmax(0)
        torch.testing.assert_close(weights[0, head, dates], attention, atol=1e-6, rtol=1e-4)
        joined[16 * head : 16 * head + 16] = attention @ torch.stack(values)
    torch.testing.assert_close(network.decode(network.mlp(joined[None])), logits, atol=1e-5, rtol=1e-4)


def test_ltae_paper_norm_needs_and_fixes_the_dates() -> None:
    with pytest.raises(OptionError, match="steps="):
        LTAE(bands=3, classes=2, norm="paper")
    with pytest.raises(OptionError, match="expected"):
        LTAE(bands=3, classes=2, steps=4, norm="paper").eval()(torch.zeros(2, 5, 3))


@pytest.mark.parametrize(
    ("name", "kind"), [("lstm", LSTMClassifier), ("conv1d", PixelConv1d), ("ltae", LTAE)]
)
def test_networks_are_built_by_name(name: str, kind: type[nn.Module]) -> None:
    assert type(create(name, bands=BANDS, steps=STEPS, classes=CLASSES, dropout=0.1)) is kind
    info = describe(name)
    assert (info.task, info.form) == ("classify", "series")
    assert "doi.org" in str(info.paper)
