"""Tests of the training of jobs: done once for a recipe, and never mistaken for another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from cubekit.labels import ClassTable
from cubekit.pipeline import training
from cubekit.pipeline.training import train_into
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model

pytestmark = pytest.mark.torch

OPTIONS: dict[str, Any] = {"epochs": 1, "batch": 8, "arguments": {"hidden": 4}, "progress": False}


def samples(seed: int) -> Examples:
    random = np.random.default_rng(seed)
    y = np.arange(24, dtype="int16") % 2
    x = (y[:, None, None] + random.normal(0, 0.1, (24, 4, 2))).astype("float32")
    return Examples(
        arrays={"x": x, "y": y},
        bands=("red", "nir"),
        times=np.arange(4).astype("datetime64[M]"),
        classes=ClassTable.of(["a", "b"]),
    )


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the digest of the weights of every training that is really done."""
    done: list[str] = []
    real = training.save_with_curves

    def noted(model: Model, folder: Path) -> None:
        real(model, folder)
        done.append(folder.name)

    monkeypatch.setattr(training, "save_with_curves", noted)
    monkeypatch.chdir(tmp_path)
    return done


def test_equal_recipes_train_once(trained: list[str]) -> None:
    parts = samples(0), samples(1)
    first, seconds = train_into(Path("m"), "lstm", parts, OPTIONS)
    again, told = train_into(Path("m"), "lstm", parts, OPTIONS)
    assert (trained, seconds) == (["m"], told)
    for name, values in first.network.state_dict().items():
        np.testing.assert_array_equal(again.network.state_dict()[name], values)
    train_into(Path("m"), "lstm", (samples(2), parts[1]), OPTIONS)
    train_into(Path("m"), "lstm", parts, OPTIONS | {"epochs": 2})
    assert trained == ["m"] * 3


def test_other_weights_at_the_same_path_are_another_recipe(trained: list[str]) -> None:
    parts = samples(0), samples(1)
    train_into(Path("start"), "lstm", parts, OPTIONS)
    options = OPTIONS | {"weights": "start"}
    train_into(Path("m"), "lstm", parts, options)
    train_into(Path("m"), "lstm", parts, options)
    train_into(Path("start"), "lstm", parts, OPTIONS | {"seed": 1})
    train_into(Path("m"), "lstm", parts, options)
    assert trained == ["start", "m", "start", "m"]


def test_a_training_killed_after_it_replaced_a_model_is_neither(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = samples(0), samples(1)
    train_into(Path("m"), "lstm", parts, OPTIONS)

    def killed(model: Model, folder: Path) -> None:
        del model, folder
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_with_curves", killed)
        with pytest.raises(KeyboardInterrupt):
            train_into(Path("m"), "lstm", parts, OPTIONS | {"seed": 1})
    model, _ = train_into(Path("m"), "lstm", parts, OPTIONS)
    assert model.card.settings["seed"] == 0
    assert trained == ["m"] * 2
