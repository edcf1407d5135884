from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, describe, names  # noqa: E402
from cubekit.nn.fusion.ecpw_stfn import ECPWSTFNAutoencoder, haar, inverse_haar  # noqa: E402
from cubekit.nn.fusion.edcstfn import EDCSTFN, EDCSTFNAutoencoder  # noqa: E402
from cubekit.nn.fusion.gan_stfm import GANSTFMAutoencoder, GANSTFMDiscriminator, SwitchableNorm  # noqa: E402
from cubekit.nn.fusion.mlff_gan import MLFFGANDiscriminator  # noqa: E402
from cubekit.nn.fusion.srsf_gan import SRSFGAN, SRSFGANDiscriminator  # noqa: E402
from cubekit.nn.fusion.stfdiff import STFDiff, cosine_schedule  # noqa: E402
from cubekit.nn.fusion.swinstfm import SwinSTFM, _CrossBlock, _CrossLayer, _Level  # noqa: E402
from cubekit.nn.fusion.windows import WindowBias, join_windows, shift_of, split_windows  # noqa: E402

pytestmark = pytest.mark.torch

COUNTS = {
    "ecpw_stfn": {6: 471_954, 4: 469_518},
    "edcstfn": {6: 284_134, 4: 281_764},
    "gan_stfm": {6: 578_130, 4: 577_660},
    "mlff_gan": {6: 5_925_285, 4: 5_922_115},
    "srsf_gan": {6: 3_866_084 - 320, 4: 3_865_826 - 320},  # the rest never takes part in a prediction
    "stfdiff": {6: 7_482_054 - 3_520, 4: 7_476_164 - 2_368},  # as above
    "swinstfm": {6: 37_535_290, 4: 37_533_112},
}
SMALL: dict[str, dict[str, int]] = {"swinstfm": {"side": 64}, "stfdiff": {"times": 6}}
NAMES = sorted(COUNTS)
IGNORE_FIRST_COARSE = {"ecpw_stfn", "gan_stfm", "srsf_gan"}
BANDS = 4


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = create(name, bands=BANDS, **SMALL.get(name, {}))
    with torch.no_grad():  # running statistics away from their initial values, as after training
        network(*images(2, 16))
    return network.eval()


def predict(network: nn.Module, three: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Run what training runs."""
    if isinstance(network, STFDiff):
        t = torch.arange(len(three[2])) % network.times
        noised = network.add_noise(three[2], t, torch.ones_like(three[2]))
        return network.denoise(noised, t, *three)
    predicted: Tensor = network(*three)
    return predicted


def images(n: int, height: int, width: int | None = None, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second, fine = torch.rand(3, n, BANDS, height, width or height, generator=generator).unbind(0)
    return first, second, fine


@pytest.mark.parametrize("bands", [6, 4])
@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_are_those_of_the_specification(name: str, bands: int) -> None:
    assert count(create(name, bands=bands)) == COUNTS[name][bands]
    info = describe(name)
    assert (info.task, info.form) == ("fuse", "image")
    assert "doi.org" in str(info.paper)
    assert name in names("fuse")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (EDCSTFNAutoencoder, 481_734),
        (GANSTFMAutoencoder, 217_990),
        (ECPWSTFNAutoencoder, 217_990),
        (GANSTFMDiscriminator, 3_665_959),
        (MLFFGANDiscriminator, 2_775_745),
        (SRSFGANDiscriminator, 956_497 - 369_792),
    ],
)
def test_companions_have_the_specified_size(kind: type[nn.Module], expected: int) -> None:
    assert count(kind(bands=6)) == expected


@pytest.mark.shared
def test_edcstfn_gives_the_published_answer(shared: Path) -> None:
    with np.load(shared / "parity" / "edcstfn_example.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    network = EDCSTFN(bands=6).eval()
    assert list(network.state_dict()) == list(arrays["state_order"])
    network.load_state_dict(
        {k: torch.from_numpy(arrays[f"state/{k}"]).float() for k in arrays["state_order"]}
    )
    inputs = (torch.from_numpy(arrays[f"in/{k}"]) for k in ("coarse_t1", "coarse_t2", "fine_t1"))
    np.testing.assert_allclose(network(*inputs).detach(), arrays["out/pred"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_stands_alone_and_answers_are_repeatable(name: str) -> None:
    network = build(name)
    three = images(2, 16)
    together = network(*three)
    assert together.shape == three[2].shape
    assert torch.equal(network(*three), together)
    alone = network(*(image[1:2] for image in three))
    torch.testing.assert_close(alone, together[1:2], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(17, 23), (9, 34)])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_comes_back_in_that_size(name: str, height: int, width: int) -> None:
    predicted = build(name)(*images(1, height, width))
    assert predicted.shape == (1, BANDS, height, width)
    assert predicted.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_images_that_count_are_those_documented(name: str) -> None:
    network = build(name).double()  # fresh weights shrink a change a lot: look for it far above rounding
    three = tuple(image.double() for image in images(1, 16))
    base = network(*three)
    for i in range(3):
        changed = network(*(image + 0.2 * torch.rand_like(image) * (i == j) for j, image in enumerate(three)))
        if i == 0 and name in IGNORE_FIRST_COARSE:
            assert torch.equal(changed, base)
        else:
            assert (changed - base).abs().max() > 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name).train()
    three = images(2, 16)
    if isinstance(network, SRSFGAN):
        predicted, auxiliary = network.forward_with_auxiliary(*three)
        loss = (predicted - 0.5).abs().mean() + (auxiliary - 0.5).abs().mean()
    else:
        loss = (predict(network, three) - torch.rand(2, BANDS, 16, 16)).square().mean()
    torch.autograd.backward(loss)
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # A bias right before a normalisation moves nothing.
        assert parameter.grad.abs().sum() > 0 or parameter_name.endswith("bias"), parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_images_that_do_not_fit_are_refused(name: str) -> None:
    network = build(name)
    first, second, fine = images(1, 32)
    with pytest.raises(OptionError, match="resample the coarse images"):
        network(first[..., ::2, ::2], second, fine)
    with pytest.raises(OptionError, match=r"three times \(n, 4, h, w\)"):
        network(first[:, :3], second[:, :3], fine[:, :3])


@pytest.mark.parametrize("kind", [EDCSTFNAutoencoder, GANSTFMAutoencoder, ECPWSTFNAutoencoder])
def test_autoencoders_keep_the_size_and_give_features(kind: type[nn.Module]) -> None:
    network = kind(bands=BANDS).eval()
    image = images(2, 33, 46)[2]
    assert network(image).shape == image.shape
    assert isinstance(network, EDCSTFNAutoencoder | GANSTFMAutoencoder | ECPWSTFNAutoencoder)
    scale = 2 if kind is EDCSTFNAutoencoder else 8
    assert network.encode(image).shape == (2, 128, -(-33 // scale), -(-46 // scale))


def test_discriminators_judge_each_image_by_itself() -> None:
    first, second, _ = images(2, 64)
    scores = GANSTFMDiscriminator(bands=BANDS).eval()
    assert scores(first, second).shape == (2,)
    torch.testing.assert_close(scores(first[:1], second[:1]), scores(first, second)[:1])
    patches = MLFFGANDiscriminator(bands=BANDS).eval()(first, second)
    assert patches.shape[:2] == (2, 1)
    pixels = SRSFGANDiscriminator(bands=BANDS).eval()(first[..., :37, :])
    assert pixels.shape == (2, 1, 37, 64)
    assert (pixels > 0).all()
    assert (pixels < 1).all()


def test_edcstfn_depends_on_nothing_beyond_its_reach() -> None:
    network = build("edcstfn")
    assert isinstance(network, EDCSTFN)
    three = tuple(image.requires_grad_() for image in images(1, 31))
    gradients = torch.autograd.grad(network(*three)[..., 15, 15].sum(), three)
    seen = sum(g.abs().sum(dim=(0, 1)) for g in gradients) > 0
    rows = torch.as_tensor(seen).nonzero()
    assert (rows - 15).abs().max() == network.reach


def test_edcstfn_with_the_same_pair_twice_is_edcstfn_with_one() -> None:
    network = build("edcstfn")
    assert isinstance(network, EDCSTFN)
    first, second, fine = images(2, 16)
    both = network.forward_pairs(second, (first, fine), (first, fine))
    torch.testing.assert_close(both, network(first, second, fine), atol=1e-5, rtol=1e-4)
    other = images(2, 16, seed=5)
    forth = network.forward_pairs(second, (first, fine), (other[0], other[2]))
    back = network.forward_pairs(second, (other[0], other[2]), (first, fine))
    torch.testing.assert_close(forth, back, atol=1e-5, rtol=1e-4)


def test_haar_is_orthonormal_and_inverts() -> None:
    image = torch.rand(2, 3, 8, 12)
    split = haar(image)
    assert split.shape == (4, 2, 3, 4, 6)
    torch.testing.assert_close(inverse_haar(split), image)
    torch.testing.assert_close(split.square().sum(), image.square().sum())
    cell = torch.tensor([[1.0, 2.0], [3.0, 5.0]]).view(1, 1, 2, 2)
    assert haar(cell).flatten().tolist() == [5.5, -2.5, -1.5, 0.5]


def test_switchable_norm_mixes_library_norms() -> None:
    torch.manual_seed(0)
    norm, x = SwitchableNorm(5), torch.randn(4, 5, 6, 7) * 3 + 1
    with torch.no_grad():
        for choice, library in ((0, nn.InstanceNorm2d(5)), (1, nn.GroupNorm(1, 5)), (2, nn.BatchNorm2d(5))):
            for weight in (norm.mean_weight, norm.var_weight):
                weight.copy_(torch.eye(3)[choice] * 100)
            # Spread is over the image without Bessel's correction in the library: 42 pixels, a percent apart.
            torch.testing.assert_close(norm(x), library(x), atol=0.03, rtol=0.03)
    expected = x.mean(dim=(0, 2, 3)) * (1 - 0.9**3)
    torch.testing.assert_close(norm.running_mean.flatten(), expected)


def test_windows_are_cut_and_joined_again() -> None:
    image = torch.arange(2 * 16 * 24 * 64, dtype=torch.float32).view(2, 16, 24, 64)
    for shift in (0, 4):
        windows = split_windows(image, 8, shift)
        assert windows.shape == (2, 6, 2, 64, 32)
        assert torch.equal(join_windows(windows, 16, 24, shift), image)
    second = split_windows(image, 8, 0)[0, 1, 1]
    assert torch.equal(second.view(8, 8, 32), image[0, :8, 8:16, 32:])
    assert (shift_of(8, 16, 24), shift_of(8, 8, 24)) == (4, 0)


def test_window_bias_depends_on_offsets_and_shifted_windows_see_neighbours_only() -> None:
    bias = WindowBias(4, 3)
    plain = bias(8, 12, 0)
    assert plain.shape == (1, 3, 16, 16)
    offsets: dict[tuple[int, int], Tensor] = {}
    for a in range(16):
        for b in range(16):
            value = offsets.setdefault((a // 4 - b // 4, a % 4 - b % 4), plain[0, :, a, b])
            assert torch.equal(plain[0, :, a, b], value)
    assert len({tuple(value.tolist()) for value in offsets.values()}) == 49
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).repeat(1, 1, 16)[None]
    place = split_windows(places, 4, 2)[0, :, 0, :, :2]  # where each pixel of a shifted window came from
    near = (place[:, :, None] - place[:, None]).abs().amax(dim=-1) < 4
    assert torch.equal(bias(8, 12, 2)[:, 0] - plain[:, 0] > -50, near)


def test_swinstfm_windows_shrink_with_the_image() -> None:
    assert count(SwinSTFM(bands=6, side=128)) == 37_532_474
    with pytest.raises(OptionError, match="side=100"):
        SwinSTFM(bands=6, side=100)


def test_swinstfm_takes_tiles_of_several_sides() -> None:
    network = build("swinstfm")
    with torch.no_grad():
        assert network(*images(1, 64, 100)).shape == (1, BANDS, 64, 100)


def test_diffusion_keeps_less_and_less_of_the_image() -> None:
    kept = cosine_schedule(100)
    assert kept.dtype == torch.float32
    assert (kept.diff() < 0).all()
    u = np.arange(100) + 1
    exact = np.cos((u / 100 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(kept[:-1], exact[:-1], rtol=1e-5)  # the last step is clipped
    network = STFDiff(bands=1)
    visits = [now for now, _ in network._visits(50)]  # noqa: SLF001 - the specification lists them
    assert visits == list(range(99, 0, -2))
    assert network._visits(50)[-1] == (1, -1)  # noqa: SLF001


def test_diffusion_noise_follows_the_schedule_and_a_perfect_network_returns_the_image() -> None:
    network = build("stfdiff")
    assert isinstance(network, STFDiff)
    truth = images(2, 16)[2]
    noise = torch.randn(truth.shape)
    t = torch.tensor([0, 5])
    kept = network.kept[t][:, None, None, None]
    torch.testing.assert_close(
        network.add_noise(truth, t, noise), kept**0.5 * truth + (1 - kept) ** 0.5 * noise
    )
    network.denoise = lambda *_: truth  # type: ignore[method-assign]
    assert torch.equal(network(*images(2, 16)), truth)


def test_diffusion_is_repeatable_by_seed_and_refuses_too_many_steps() -> None:
    network = build("stfdiff")
    assert isinstance(network, STFDiff)
    three = images(1, 16)
    drawn = network.sample(*three, seed=3, steps=3)
    assert torch.equal(network.sample(*three, seed=3, steps=3), drawn)
    assert not torch.equal(network.sample(*three, seed=4, steps=3), drawn)
    with pytest.raises(OptionError, match="steps=7"):
        network.sample(*three, steps=7)


def test_swinstfm_cross_attention_follows_the_published_equations() -> None:
    torch.manual_seed(0)
    layer = _CrossLayer(64, 4, depth=1).eval()
    block = layer.blocks[0]
    assert isinstance(block, _CrossBlock)
    before, after, fine = torch.randn(3, 1, 4, 4, 64).unbind(0)  # one window: plain attention over 16 pixels
    found = layer(_Level(before, after, fine))
    norm = [n(image).view(16, 64) for n, image in zip(layer.norms, (before, after, fine), strict=True)]
    bias, difference = block.bias(4, 4, 0)[0], (after - before).view(16, 64)
    heads = []
    for head in range(2):
        part = slice(32 * head, 32 * head + 32)

        def attention(query: nn.Module, key: nn.Module, seen: Tensor, at: int, cut: slice) -> Tensor:
            scores = query(norm[0])[:, cut] @ key(seen)[:, cut].T / 32**0.5 + bias[at]
            weights: Tensor = scores.softmax(dim=1)
            return weights

        both = attention(block.ask_fine, block.key_fine, norm[2], head, part)
        both = both * attention(block.ask_after, block.key_after, norm[1], head, part) + 1e-6
        both = both / both.sum(dim=1, keepdim=True)
        heads.append(both @ block.value(block.norm1(difference))[:, part])
    difference = difference + block.project(torch.cat(heads, dim=1))
    difference = difference + block.mlp(block.norm2(difference))
    torch.testing.assert_close(found.view(16, 64), difference + fine.view(16, 64), atol=1e-5, rtol=1e-4)
