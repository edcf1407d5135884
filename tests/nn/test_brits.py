from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe  # noqa: E402
from cubekit.nn.brits import BRITS, RITS, brits_loss, time_gaps  # noqa: E402

pytestmark = pytest.mark.torch

BANDS, STEPS, CLASSES, ANCILLARY = 7, 12, 4, 5


def build(**arguments: int) -> BRITS:
    torch.manual_seed(0)
    network = create("brits", **{"bands": BANDS, "classes": CLASSES, "ancillary": ANCILLARY, **arguments})
    assert isinstance(network, BRITS)
    return network.eval()


def batch(n: int = 6, steps: int = STEPS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, steps, BANDS, generator=generator)
    mask = torch.rand(n, steps, BANDS, generator=generator) > 0.3
    return x, mask, torch.randn(n, ANCILLARY, generator=generator)


@pytest.mark.parametrize(
    ("classes", "ancillary", "count"),
    [(4, 0, 97_056), (4, 5, 127_856), (4, 9, 128_256), (10, 0, 98_268), (10, 5, 129_068), (10, 9, 129_468)],
)
def test_parameter_counts_are_those_of_the_specification(classes: int, ancillary: int, count: int) -> None:
    sizes = {"bands": BANDS, "classes": classes, "ancillary": ancillary}
    assert sum(p.numel() for p in BRITS(**sizes).parameters()) == count
    assert 2 * sum(p.numel() for p in RITS(**sizes).parameters()) == count


@pytest.mark.shared
def test_published_weights_give_the_published_answers(shared: Path) -> None:
    with np.load(shared / "parity" / "brits_example.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    network = build()
    assert list(network.state_dict()) == list(arrays["state_order"])
    network.load_state_dict(
        {k: torch.from_numpy(arrays[f"state/{k}"]).float() for k in arrays["state_order"]}
    )
    x, mask, ancillary = (
        torch.from_numpy(arrays[f"in/{k}"]) for k in ("forward_values", "forward_masks", "ancillary")
    )
    output = network(x, mask, ancillary)
    losses = brits_loss(output, torch.from_numpy(arrays["in/probs"]))
    found = {
        "predictions": output["fractions"],
        "predictions_f": output["fractions_forward"],
        "predictions_b": output["fractions_backward"],
        "imputations": output["imputed"],
        "loss": losses.total,
        "x_loss": losses.imputation,
        "y_loss": losses.labels,
    }
    for name, value in found.items():
        np.testing.assert_allclose(value.detach(), arrays[f"out/{name}"], atol=1e-5, rtol=0, err_msg=name)
    np.testing.assert_array_equal(time_gaps(mask), arrays["in/forward_deltas"])
    np.testing.assert_array_equal(time_gaps(mask.flip(1)), arrays["in/backward_deltas"])


def plain_rits(net: RITS, x: Tensor, m: Tensor, ancillary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the equations of the specification literally, one step after the other."""
    h = c = torch.zeros(len(x), 100)
    gap = torch.ones(len(x), BANDS)
    loss, imputed = torch.zeros(()), []
    eye = torch.eye(BANDS)
    for t in range(x.shape[1]):
        if t > 0:
            gap = 1 + (1 - m[:, t - 1]) * gap
        decay_h, decay_x = net.temp_decay_h, net.temp_decay_x
        h = h * torch.exp(-torch.relu(gap @ decay_h.W.T + decay_h.b))
        gamma_x = torch.exp(-torch.relu(gap @ (decay_x.W * eye).T + decay_x.b))
        xh = net.hist_reg(h)
        xc = m[:, t] * x[:, t] + (1 - m[:, t]) * xh
        zh = xc @ (net.feat_reg.W * (1 - eye)).T + net.feat_reg.b
        alpha = net.weight_combine(torch.cat([gamma_x, m[:, t]], dim=1))
        ch = alpha * zh + (1 - alpha) * xh
        cc = m[:, t] * x[:, t] + (1 - m[:, t]) * ch
        h, c = net.rnn_cell(torch.cat([cc, m[:, t]], dim=1), (h, c))
        for guess in (xh, zh, ch):
            loss = loss + ((x[:, t] - guess).abs() * m[:, t]).sum() / (m[:, t].sum() + 1e-5)
        imputed.append(cc)
    if ancillary is not None and net.ancillary_embed is not None and net.concat is not None:
        h = torch.relu(net.concat(torch.cat([h, torch.relu(net.ancillary_embed(ancillary))], dim=1)))
    return torch.softmax(net.out(h), dim=1), torch.stack(imputed, dim=1), loss


@pytest.mark.parametrize("steps", [1, 5, 30])
@pytest.mark.parametrize("ancillary", [0, ANCILLARY])
def test_fast_form_is_the_step_by_step_form(ancillary: int, steps: int) -> None:
    network = build(ancillary=ancillary).rits_f
    x, mask, extra = batch(steps=steps)
    given = extra if ancillary else None
    fractions, imputed, loss = plain_rits(network, x, mask.float(), given)
    output = network(x, mask, given)
    torch.testing.assert_close(output["fractions"], fractions, atol=2e-6, rtol=0)
    torch.testing.assert_close(output["imputed"], imputed, atol=1e-5, rtol=0)
    torch.testing.assert_close(output["imputation_error"], loss, atol=1e-5, rtol=1e-5)


def test_a_batch_is_ten_times_faster_a_sample_than_single_samples_step_by_step() -> None:
    network = build()
    x, mask, ancillary = batch(256)

    def seconds(work: Callable[[], object]) -> float:
        spent = []
        for _ in range(3):
            start = process_time()
            work()
            spent.append(process_time() - start)
        return min(spent)

    def alone() -> None:
        for net, way in ((network.rits_f, 1), (network.rits_b, -1)):
            one, seen = (part[:1] if way == 1 else part[:1].flip(1) for part in (x, mask.float()))
            plain_rits(net, one, seen, ancillary[:1])

    with torch.inference_mode():
        together = seconds(lambda: network(x, mask, ancillary)) / 256
        assert seconds(alone) > 10 * together  # some 90 times


@pytest.mark.parametrize("junk", [1e9, float("nan"), float("-inf")])
def test_masked_values_have_exactly_no_influence(junk: float) -> None:
    network = build()
    x, mask, ancillary = batch()
    expected = network(x, mask, ancillary)
    spoiled = network(torch.where(mask, x, junk), mask, ancillary)
    assert all(torch.equal(spoiled[name], expected[name]) for name in expected)
    if junk != 1e9:  # gaps are read from what is not finite
        unmasked = network(torch.where(mask, x, junk), None, ancillary)
        assert all(torch.equal(unmasked[name], expected[name]) for name in expected)
    target = torch.full((len(x), CLASSES), 1 / CLASSES)
    torch.autograd.backward(brits_loss(spoiled, target).total)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_observed_values_stay_and_gaps_are_filled() -> None:
    x, mask, ancillary = batch()
    output = build()(x, mask, ancillary)
    torch.testing.assert_close(output["imputed"][mask], x[mask], atol=1e-6, rtol=0)
    assert not torch.isclose(output["imputed"][~mask], x[~mask]).any()
    torch.testing.assert_close(output["fractions"].sum(dim=1), torch.ones(len(x)))


def test_gaps_follow_the_recurrence() -> None:
    _, mask, _ = batch(steps=20)
    expected = np.ones(mask.shape)
    observed = mask.numpy().astype(float)
    for t in range(1, 20):
        expected[:, t] = 1 + (1 - observed[:, t - 1]) * expected[:, t - 1]
    np.testing.assert_array_equal(time_gaps(mask), expected)
    assert (time_gaps(torch.ones(2, 5, 3)) == 1).all()


def test_each_series_stands_alone_and_answers_are_repeatable() -> None:
    network = build()
    x, mask, ancillary = batch()
    together = network(x, mask, ancillary)
    alone = network(x[2:3], mask[2:3], ancillary[2:3])
    assert torch.equal(network(x, mask, ancillary)["fractions"], together["fractions"])
    for name in ("fractions", "imputed"):
        torch.testing.assert_close(alone[name], together[name][2:3], atol=1e-6, rtol=0)


def test_direction_of_time_and_ancillary_variables_count() -> None:
    network = build()
    x, mask, ancillary = batch()
    fractions = network(x, mask, ancillary)["fractions"]
    assert (network(x.flip(1), mask.flip(1), ancillary)["fractions"] - fractions).abs().max() > 1e-4
    assert (network(x, mask, ancillary + 1)["fractions"] - fractions).abs().max() > 1e-4


def test_gradients_reach_every_parameter() -> None:
    network = build().train()
    x, mask, ancillary = batch()
    target = torch.rand(len(x), CLASSES).softmax(dim=1)
    torch.autograd.backward(brits_loss(network(x, mask, ancillary), target).total)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    for net in (network.rits_f, network.rits_b):  # the documented exceptions
        for layer, dead in ((net.temp_decay_x, 1 - torch.eye(BANDS)), (net.feat_reg, torch.eye(BANDS))):
            assert layer.W.grad is not None
            assert (layer.W.grad * dead == 0).all()


def test_a_month_that_nobody_observed_adds_nothing() -> None:
    network = build().rits_f
    x, mask, ancillary = batch()
    mask[:, 4] = False
    assert network(x, mask, ancillary)["imputation_error"].isfinite()
    mask[:] = False
    assert network(x, mask, ancillary)["imputation_error"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ancillary": None}, "ancillary has shape"),
        ({"ancillary": torch.zeros(6, 4)}, "ancillary has shape"),
        ({"mask": torch.ones(6, 3)}, "mask has shape"),
        ({"x": torch.zeros(6, STEPS, 6)}, "samples, dates, bands"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    x, mask, ancillary = batch()
    with pytest.raises(OptionError, match=message):
        build()(**{"x": x, "mask": mask, "ancillary": ancillary, **change})


def test_loss_of_one_direction_has_no_disagreement() -> None:
    network = build().rits_f
    x, mask, ancillary = batch()
    output = network(x, mask, ancillary)
    losses = brits_loss(output, output["fractions"].detach())
    assert losses.labels == 0
    torch.testing.assert_close(losses.total, 0.25 * output["imputation_error"])
    assert (describe("rits").task, describe("brits").form) == ("fractions", "series")
