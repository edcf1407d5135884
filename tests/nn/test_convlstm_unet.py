from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe  # noqa: E402
from cubekit.nn.convlstm_unet import ConvLSTMUNet  # noqa: E402

pytestmark = pytest.mark.torch

BATCH_NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
CONVOLUTIONS = {
    "enc1.net.0": (32, 1, 3, 3),
    "enc1.net.3": (32, 32, 3, 3),
    "enc2.net.0": (64, 32, 3, 3),
    "enc2.net.3": (64, 64, 3, 3),
    "conv_lstm.cell.conv": (256, 128, 3, 3),
    "up1": (64, 32, 2, 2),
    "dec1.net.0": (32, 96, 3, 3),
    "dec1.net.3": (32, 32, 3, 3),
    "up2": (32, 16, 2, 2),
    "dec2.net.0": (16, 17, 3, 3),
    "dec2.net.3": (16, 16, 3, 3),
    "out_conv": (1, 16, 1, 1),
}


def build() -> ConvLSTMUNet:
    torch.manual_seed(0)
    network = create("convlstm_unet", steps=3)
    assert isinstance(network, ConvLSTMUNet)
    with torch.no_grad():
        network(torch.randn(8, 3, 1, 16, 16))
    return network.eval()


def test_parameters_and_state_are_those_of_the_published_files() -> None:
    network = build()
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 412_753
    assert len(state) == 64
    assert {name: tuple(state[f"{name}.weight"].shape) for name in CONVOLUTIONS} == CONVOLUTIONS
    expected = {f"{name}.{part}" for name in CONVOLUTIONS for part in ("weight", "bias")}
    expected |= {
        f"{b}.net.{i}.{p}" for b in ("enc1", "enc2", "dec1", "dec2") for i in (1, 4) for p in BATCH_NORM
    }
    assert set(state) == expected
    assert describe("convlstm_unet").task == "forecast"


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 18), (19, 5), (4, 7)])
@pytest.mark.parametrize("years", [1, 5])
def test_any_size_and_number_of_years(years: int, height: int, width: int) -> None:
    assert build()(torch.randn(2, years, 1, height, width)).shape == (2, height, width)


@pytest.mark.parametrize("shape", [(2, 3, 1, 3, 16), (2, 3, 2, 16, 16), (2, 0, 1, 16, 16), (2, 3, 16, 16)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"expected \(n, t, 1, h, w\)"):
        build()(torch.zeros(shape))


def test_two_channels_are_refused() -> None:
    with pytest.raises(OptionError, match="bands=2"):
        ConvLSTMUNet(bands=2)


def test_evaluation_is_deterministic_and_each_map_stands_alone() -> None:
    network = build()
    x = torch.randn(3, 4, 1, 18, 21)
    together = network(x)
    assert torch.equal(network(x), together)
    torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-6, rtol=0)


def test_every_year_and_their_order_count() -> None:
    network = build()
    x = torch.randn(1, 4, 1, 16, 16)
    for year in range(4):
        changed = x.clone()
        changed[:, year] += 1.0
        assert (network(changed) - network(x)).abs().max() > 1e-6
    assert not torch.allclose(network(x.flip(1)), network(x))


def test_cell_follows_the_published_gates() -> None:
    network = build()
    cell = network.conv_lstm.cell
    x, h, c = torch.randn(3, 1, 64, 5, 5).unbind(0)
    gates = cell.conv(torch.cat([x, h], dim=1)).view(4, 64, 5, 5)
    memory = gates[1].sigmoid() * c[0] + gates[0].sigmoid() * gates[3].tanh()
    new_h, new_c = cell(x, h, c)
    torch.testing.assert_close(new_c[0], memory)
    torch.testing.assert_close(new_h[0], gates[2].sigmoid() * memory.tanh())


def test_statistics_in_training_are_those_of_the_last_year_seen() -> None:
    network = build()
    norm = network.enc1.net[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    norm.momentum = 1.0
    x = torch.randn(4, 3, 1, 16, 16) * torch.tensor([1.0, 2.0, 5.0]).view(1, 3, 1, 1, 1)
    network.train()(x)
    expected = network.enc1.net[0](x[:, -1]).var(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_var, expected)


def test_gradients_reach_every_parameter() -> None:
    network = build().train()
    torch.autograd.backward(network(torch.randn(4, 3, 1, 16, 16)).square().mean())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        norm_follows = name.endswith("bias") and name.rsplit(".", 1)[0] in {
            f"{block}.net.{i}" for block in ("enc1", "enc2", "dec1", "dec2") for i in (0, 3)
        }
        assert norm_follows or parameter.grad.abs().sum() > 0, name  # a bias before a norm has no effect


def test_a_constant_map_is_learned() -> None:
    network = build().train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    x = torch.full((4, 2, 1, 8, 8), 0.3) + 0.05 * torch.randn(4, 2, 1, 8, 8)
    losses = []
    for _ in range(30):
        loss = (network(x) - 0.7).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_options_keep_the_layout_of_weight_files() -> None:
    plain, other = build(), create("convlstm_unet", dropout=0.5, residual=True)
    other.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 1, 16, 16)
    torch.testing.assert_close(other.eval()(x), plain(x) + x[:, -1, 0])
    assert not torch.equal(other.train()(x), other(x))  # dropout draws anew
    with pytest.raises(OptionError, match="dropout=1"):
        create("convlstm_unet", dropout=1.0)


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_sides_that_do_not_divide_shift_nothing(rest: int) -> None:
    """Only rows that see the zeros below the upsampled maps differ; a shift would be seen everywhere."""
    network = build()
    x = torch.rand(1, 3, 1, 64 + rest, 32)
    grown = torch.nn.functional.pad(x[0], (0, 0, 0, 4 - rest), mode="replicate")[None]
    apart = (network(x) - network(grown)[:, : 64 + rest]).abs().amax(dim=(0, 2))
    assert apart[:36].max() < 1e-5  # farther from the lower edge than the network looks (26 pixels)
    assert apart[-1] > 1e-4


def test_the_reach_grows_by_a_cell_a_year() -> None:
    from cubekit.nn.reach import measure_reach

    network = build()
    found = [measure_reach(network, [(steps, 1)]) for steps in (1, 2)]
    assert [reach.halo for reach in found] == [14 + 4, 14 + 8]
    assert found == [network.reach_over(1), network.reach_over(2)], "what it says of itself"


def test_a_published_file_is_read_and_predicts(tmp_path: Path) -> None:
    from cubekit.training.exchange import import_weights

    source = build()
    path = tmp_path / "best_model.pth"
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, path)
    found = import_weights(path, "convlstm_unet", arguments={"residual": False})
    assert len(found.names) == 64
    x = torch.rand(2, 5, 1, 13, 18)
    torch.testing.assert_close(found.network(x), source(x))
