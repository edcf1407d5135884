"""The seven published trainings: they learn, in the published order, and go on where they were killed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.errors import OptionError  # noqa: E402
from cubekit.nn import create, register  # noqa: E402
from cubekit.nn.fusion.edcstfn import EDCSTFNAutoencoder  # noqa: E402
from cubekit.tasks.adversarial import FuseAdversarial  # noqa: E402
from cubekit.tasks.diffusion import FuseDiffusion  # noqa: E402
from cubekit.tasks.examples import Examples  # noqa: E402
from cubekit.tasks.fuse import Fuser  # noqa: E402
from cubekit.tasks.fusion_recipes import RECIPES, TERMS  # noqa: E402
from cubekit.tasks.task import Recipe, Task, adam, scheduler_of  # noqa: E402
from cubekit.training import setup  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

SMALL: dict[str, dict[str, int]] = {"swinstfm": {"side": 64}, "stfdiff": {"times": 6}}


def pairs(n: int = 2, *, seed: int = 0, side: int = 16) -> Examples:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.1, 0.5, (2, n, 2, side // 8, side // 8)).repeat(8, 3).repeat(8, 4)
    detail = rng.normal(0, 0.02, (n, 2, side, side))
    arrays = {"coarse_t1": coarse[0], "coarse_t2": coarse[1], "fine_t1": coarse[0] + detail,
              "y": coarse[1] + detail}  # fmt: skip
    return Examples(arrays={name: a.astype("float32") for name, a in arrays.items()}, bands=("a", "b"))


@pytest.mark.parametrize("network", sorted(RECIPES))
def test_a_single_batch_is_learned(network: str) -> None:
    big = network == "swinstfm"  # ten times as slow, and too large for the learning rate of the others
    model = fit(
        network, pairs(1 if big else 2), epochs=4 if big else 7, batch=1 if big else 2, pretrain=1,
        schedule="constant", learning_rate=1e-4 if big else 1e-3, arguments=SMALL.get(network, {}),
        progress=False,
    )  # fmt: skip
    losses = [row["train_loss"] for row in model.card.history]
    assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])
    judged = RECIPES[network].judge is not None
    assert all(("train_judge_loss" in row) == judged for row in model.card.history)
    assert (model.card.settings.get("pretrain") == 1) == (RECIPES[network].features is not None)


class _Killed(Exception):  # noqa: N818 - stands for a signal
    """What a kill looks like from inside: nothing more is saved."""


def killed(monkeypatch: pytest.MonkeyPatch, at: int, **options: Any) -> None:
    """Train until a batch begins, counted over both stages, and die there."""
    seen = 0

    def die(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > at:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", die)
        with pytest.raises(_Killed):
            fit(**options)


class Judged(nn.Module):
    """A network with dropout, so that a fresh pass differs."""

    def __init__(self, bands: int = 2) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.ones(bands, 1, 1))
        self.drop = nn.Dropout(0.5)
        self.passes = 0

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        self.passes += 1
        return fine_t1 + self.share * self.drop(coarse_t2 - coarse_t1)  # type: ignore[no-any-return]


class Judge(nn.Module):
    """Looks at one number."""

    def __init__(self, bands: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(bands, 1, 1))

    def forward(self, image: Tensor, coarse: Tensor | None = None) -> Tensor:
        said: Tensor = (self.weight * image).mean()
        return said if coarse is None else said + torch.mean(coarse)


class Denoiser(nn.Module):
    """A diffusion network with as few weights as can be."""

    times = 10

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * bands, bands, 1)

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        return self.denoise(fine_t1, torch.zeros(len(fine_t1)), coarse_t1, coarse_t2, fine_t1)

    def add_noise(self, fine_t2: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return fine_t2 + noise * (t[:, None, None, None] / self.times)

    def denoise(self, noised: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        del t
        return self.mix(torch.cat([noised, *known], dim=1))  # type: ignore[no-any-return]


TINY = replace(RECIPES["gan_stfm"], judge=Judge, features=EDCSTFNAutoencoder, schedule="step")


@pytest.mark.parametrize(
    ("network", "deaths"),
    [
        ("test-judged", (1, 3, 5)),  # in the first stage, in the second, and in its second epoch
        ("test-denoiser", (3,)),  # with the moving average half way
    ],
)
def test_a_killed_training_ends_in_equal_weights(
    network: str, deaths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kind in (("test-judged", Judged), ("test-denoiser", Denoiser)):
        register(name, task="fuse", form="image")(kind)
    monkeypatch.setattr(setup, "RECIPES", {"test-judged": TINY})
    options: dict[str, Any] = {
        "network": network, "train": pairs(4), "valid": pairs(2, seed=1), "epochs": 2, "batch": 2,
        "pretrain": 1, "checkpoint_minutes": 0, "progress": False,
    }  # fmt: skip
    whole = fit(**options).network.state_dict()
    for death in deaths:
        options["out"] = tmp_path / str(death)
        killed(monkeypatch, death, **options)
        again = fit(**options)
        assert all(torch.equal(again.network.state_dict()[name], value) for name, value in whole.items())
        assert [row["epoch"] for row in again.card.history] == [1, 2]


@pytest.mark.parametrize(("network", "passes"), [("gan_stfm", 1), ("srsf_gan", 1), ("mlff_gan", 2)])
def test_the_judge_moves_first_and_neither_moves_the_other(
    network: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FuseAdversarial(Fuser(Judged()), Judge(), how=RECIPES[network], recipe=Recipe(clip=None))
    own, judging = task.configure_optimizers()[0]
    assert judging.param_groups[0]["lr"] == RECIPES[network].judge_rate
    monkeypatch.setattr(task, "optimizers", lambda: [own, judging])
    monkeypatch.setattr(task, "manual_backward", torch.autograd.backward)
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    moves: list[tuple[bool, ...]] = []
    step: Any = torch.optim.Adam.step

    def watched(optimizer: Any) -> None:
        watch = (*task.model.network.parameters(), *task.judge.parameters())
        before = [p.detach().clone() for p in watch]
        step(optimizer)
        moves.append(tuple(not torch.equal(a, b) for a, b in zip(before, watch, strict=True)))

    for optimizer in (own, judging):
        monkeypatch.setattr(optimizer, "step", lambda optimizer=optimizer: watched(optimizer))
    task.train()
    batch = {name: torch.from_numpy(values) for name, values in pairs().arrays.items()}
    task.training_step(batch, 0)
    assert moves == [(False, True), (True, False)]
    assert task.model.network.passes == passes
    assert all(weights.requires_grad for weights in task.judge.parameters())


def test_a_rest_of_one_image_trains_too() -> None:
    model = fit("srsf_gan", pairs(3), epochs=1, batch=2, progress=False)
    assert np.isfinite(model.card.history[0]["train_loss"])


def test_the_moving_average_follows_every_step() -> None:
    torch.manual_seed(0)
    network = create("stfdiff", bands=1, times=4)
    task = FuseDiffusion(Fuser(network), how=RECIPES["stfdiff"])
    weights, mean = network.get_parameter("head.bias"), task.kept.get_parameter("head.bias")
    optimizer = torch.optim.SGD([weights], lr=0)
    expected = 0.0
    for step in range(4):
        with torch.no_grad():
            weights.fill_(float(step + 1))
        task.optimizer_step(0, step, optimizer, lambda: None)
        share = min(0.995, (1 + step) / (10 + step)) if step else 0.0  # the first update copies
        expected = share * expected + (1 - share) * (step + 1)
        assert float(mean.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_cosine_schedule_ends_where_the_recipe_says() -> None:
    recipe = Recipe(epochs=4, learning_rate=1e-4, schedule="cosine", lowest_rate=1e-7)
    optimizer = adam([nn.Parameter(torch.zeros(1))], recipe)
    scheduler = scheduler_of(optimizer, recipe)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-7)
    assert RECIPES["swinstfm"].lowest_rate == 1e-7


def test_the_published_form_of_the_structure_term_differs_and_can_be_asked_for() -> None:
    a, b = torch.rand(2, 1, 2, 32, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert TERMS["msssim_published"](a, b) > TERMS["msssim"](a, b)
    for name, term in TERMS.items():
        assert float(term(a, a)) == pytest.approx(0.001 if name == "charbonnier" else 0, abs=1e-6)


def test_validation_can_be_rare_and_the_best_epoch_is_a_validated_one(tmp_path: Path) -> None:
    model = fit(
        "edcstfn", pairs(), pairs(seed=1), epochs=5, batch=2, pretrain=1, valid_every=2, out=tmp_path,
        progress=False,
    )  # fmt: skip
    seen = [row["epoch"] for row in model.card.history if "valid_loss" in row]
    assert seen == [2, 4]
    assert model.card.metrics["epoch"] in seen
    with pytest.raises(OptionError, match="valid_every=0"):
        fit("edcstfn", pairs(), batch=2, valid_every=0, progress=False)
