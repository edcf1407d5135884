"""A training that is killed goes on as if nothing had happened."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from cubekit.errors import MissingDependencyError, OptionError, TrainingError  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

SCRIPT = Path(__file__).with_name("killed_training.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("killed_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def undisturbed(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    script.train(folder)
    return folder


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def scores(folder: Path) -> list[str]:
    """Rows of the table without the seconds."""
    return [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]


def test_a_killed_process_leaves_a_state_that_ends_in_equal_weights(
    script: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    code = "import sys, pathlib, killed_training; killed_training.train(pathlib.Path(sys.argv[1]), 8)"
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[2])])},
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not (tmp_path / "model.json").exists()
    assert (tmp_path / "last.ckpt").is_file()
    assert script.train(tmp_path) == 15 - 7  # the batch it died in is done again
    assert same(tmp_path, undisturbed)
    assert scores(tmp_path) == scores(undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "metrics.csv", "model.json", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("after", [1, 5, 6, 9, 10, 15])
def test_ctrl_c_at_any_batch_keeps_everything(
    after: int, script: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        script.train(tmp_path, after, signal.SIGINT)
    assert not (tmp_path / "model.json").exists()
    again = after % 5 == 0  # after the last batch of an epoch comes its validation, which Ctrl-C stops
    assert script.train(tmp_path) == 15 - after + again
    assert same(tmp_path, undisturbed)
    assert scores(tmp_path) == scores(undisturbed)


def test_the_state_of_another_training_is_not_gone_on_from(
    script: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        script.train(tmp_path, 7, signal.SIGINT)
    other = fit(
        script.Noisy(),
        script.data(80, 5),
        script.data(40, 1),
        epochs=1,
        batch=16,
        out=tmp_path,
        progress=False,
    )
    assert len(other.card.history) == 1
    assert not (tmp_path / "last.ckpt").exists()
    (tmp_path / "last.ckpt").write_bytes(b"no state")
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be read .* Delete it to start anew"):
        script.train(tmp_path)
    fit(
        script.Noisy(), script.data(80, 0), script.data(40, 1), epochs=3, batch=16, learning_rate=0.01,
        schedule="cosine", out=tmp_path, resume=False, progress=False,
    )  # fmt: skip
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau", "step"])
def test_schedules_move_the_learning_rate(schedule: str, script: ModuleType) -> None:
    from cubekit.tasks.task import Recipe, adam, scheduler_of

    recipe = Recipe(epochs=10, learning_rate=1.0, schedule=schedule)  # type: ignore[arg-type]
    optimizer = adam(script.Noisy().parameters(), recipe)
    scheduler = scheduler_of(optimizer, recipe)
    for _ in range(10):
        optimizer.step()
        if scheduler is not None:
            scheduler.step(1.0) if schedule == "plateau" else scheduler.step()
    expected = {"constant": 1, "cosine": 0, "plateau": 0.1, "step": 0.8**5}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected[schedule], abs=1e-6)


def test_options_of_a_run_are_checked(script: ModuleType, tmp_path: Path) -> None:
    train = script.data(40, 0)
    with pytest.raises(OptionError, match="Did you mean 'cosine'"):
        fit(script.Noisy(), train, batch=16, schedule="cosin")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'plateau' needs validation"):
        fit(script.Noisy(), train, batch=16, schedule="plateau")
    with pytest.raises(TrainingError, match="needs a folder"):
        fit(script.Noisy(), train, batch=16, epochs=1, log=["tensorboard"], progress=False)
    pytest.importorskip("tensorboard")
    fit(script.Noisy(), train, batch=16, epochs=1, log=["tensorboard"], precision="bf16", out=tmp_path,
        progress=False)  # fmt: skip
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_logger_that_is_not_installed_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        fit(script.Noisy(), script.data(40, 0), batch=16, log=["wandb"], out=tmp_path, progress=False)


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(script: ModuleType, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "two"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    alone = script.train_plain(tmp_path / "one", devices=1, batch=32)
    together = load_file(tmp_path / "two" / "weights.safetensors")
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(together[name], value, atol=1e-6, rtol=1e-4)
    assert float(together["head.weight"].abs().max()) > 0.01


def test_every_batch_goes_to_one_process_and_a_resume_leaves_out_what_was_given() -> None:
    from cubekit.training.devices import RankShare

    share = RankShare(list(range(7)), 2)
    assert len(share) == 3
    iterator = iter(share)
    assert [next(iterator), next(iterator)] == [0, 2]
    again = RankShare(list(range(7)), 2)
    again.load_state_dict(share.state_dict())
    assert list(again) == [4]
    assert list(again) == [0, 2, 4]
