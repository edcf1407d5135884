"""Writers killed with SIGKILL, at chosen operations and at random moments, then run again."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import xarray as xr

import cubekit
from cubekit.errors import IncompleteStoreError, StoreError
from cubekit.store.open import open_store
from cubekit.store.verify import verify

Digest = Callable[[Path], str]
Say = Callable[..., str]


@contextmanager
def writer(folder: Path, seed: int = 0) -> Iterator[Say]:
    """Start a process that writes into a folder when told, and gets killed when told."""
    script = Path(__file__).with_name("killed_writer.py")
    root = str(Path(cubekit.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(command: str, number: float = 0, *, overwrite: bool = False, append: bool = False) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{command} {number} {2 if append else int(overwrite)}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield say
        process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digest: Digest) -> tuple[str, int]:
    """Return the digest of a clean run, and the number of its file operations."""
    folder = tmp_path_factory.mktemp("clean")
    with writer(folder) as say:
        answer = say("whole")
    assert answer.startswith("done"), answer
    assert verify(folder / "a.zarr").ok
    return digest(folder / "a.zarr"), int(answer.split()[1])


def refused_or_whole(path: Path) -> bool:
    """Tell whether a store opens; if so it must be whole."""
    if not path.exists():
        return False
    try:
        open_store(path).load()
    except IncompleteStoreError:
        return False
    return True


@pytest.mark.slow
def test_killed_at_every_stage_and_resumed_is_byte_equal(
    undisturbed: tuple[str, int], memory_path: Path, digest: Digest
) -> None:
    expected, operations = undisturbed
    assert operations > 60
    steps = sorted(np.random.default_rng(1).choice(range(1, operations + 1), 10, replace=False))
    with writer(memory_path) as say:
        for step in steps:
            if say("step", step) == "killed":
                assert not refused_or_whole(memory_path / "a.zarr") or verify(memory_path / "a.zarr").ok
                assert say("whole").startswith("done")
            assert digest(memory_path / "a.zarr") == expected, f"killed before operation {step}"
            assert [path.name for path in memory_path.iterdir()] == ["a.zarr"]
            rmtree(memory_path / "a.zarr")


@pytest.mark.slow
def test_killed_again_and_again_is_byte_equal(
    undisturbed: tuple[str, int], memory_path: Path, digest: Digest
) -> None:
    moments = np.random.default_rng(2)
    killed = 0
    with writer(memory_path) as say:
        for late in np.arange(40) / 100:  # ever later, as nobody knows how fast the machine is
            answer = say("after", moments.uniform(0.01, 0.02) + late)
            killed += answer == "killed"
            if answer != "killed":
                break
            refused_or_whole(memory_path / "a.zarr")
        answer = say("whole")
    assert killed >= 3
    assert answer.startswith("done"), answer
    assert digest(memory_path / "a.zarr") == undisturbed[0]
    assert [path.name for path in memory_path.iterdir()] == ["a.zarr"]


@pytest.mark.slow
def test_a_killed_replacement_keeps_the_old_cube_or_has_the_new(
    memory_path: Path, tmp_path_factory: pytest.TempPathFactory, digest: Digest
) -> None:
    path, kept = memory_path / "a.zarr", tmp_path_factory.mktemp("old") / "a.zarr"
    with writer(memory_path, seed=2) as say:
        assert say("whole").startswith("done")
    copytree(path, kept)
    old, seen = digest(path), set()
    with writer(memory_path, seed=1) as say:
        operations = int(say("whole", overwrite=True).split()[1])
        new = digest(path)
        for step in [
            *np.random.default_rng(3).choice(range(1, operations), 5, replace=False),
            *range(operations - 60, operations, 8),
        ]:
            rmtree(path)
            copytree(kept, path)
            answer = say("step", step, overwrite=True)
            if path.exists():
                seen.add(digest(path))
                assert seen <= {old, new}, f"killed before operation {step}"
                open_store(path).load()
            else:
                with pytest.raises(StoreError, match="interrupted between two renames"):
                    open_store(path)
            if answer == "killed":
                assert say("whole", overwrite=True).startswith("done")
            assert digest(path) == new
            assert [found.name for found in memory_path.iterdir()] == ["a.zarr"]
    assert seen == {old, new}


@pytest.mark.slow
def test_a_killed_append_keeps_the_old_cube_until_it_has_the_new(
    memory_path: Path, tmp_path_factory: pytest.TempPathFactory, digest: Digest
) -> None:
    """Ten seeded moments, operations around the swap among them: always whole, always resumed."""
    path, kept = memory_path / "a.zarr", tmp_path_factory.mktemp("old") / "a.zarr"
    seen = set()
    draw = np.random.default_rng(6)
    with writer(memory_path) as say:
        assert say("whole").startswith("done")
        copytree(path, kept)
        old = digest(path)
        operations = int(say("whole", append=True).split()[1])
        new = digest(path)
        steps = [("step", n) for n in draw.choice(range(1, operations), 5, replace=False)]
        steps += [("step", n) for n in range(operations - 6, operations, 2)]
        for command, number in [*steps, *(("after", n) for n in draw.uniform(0.02, 0.4, 2))]:
            rmtree(path)
            copytree(kept, path)
            killed = say(command, number, append=True) == "killed"
            seen.add(digest(path))
            assert seen <= {old, new}, f"{command} {number}"
            open_store(path).load()
            assert not killed or say("whole", append=True).startswith("done")
            assert digest(path) == new
            assert [found.name for found in memory_path.iterdir()] == ["a.zarr"]
    assert seen == {old, new}
    assert verify(path).ok


@pytest.mark.slow
def test_a_killed_append_is_forgotten_by_another_one(memory_path: Path, digest: Digest) -> None:
    with writer(memory_path) as say:
        assert say("whole").startswith("done")
        old = digest(memory_path / "a.zarr")
        assert say("step", 60, append=True) == "killed"
    assert digest(memory_path / "a.zarr") == old
    with writer(memory_path, seed=4) as say:
        assert "done" in say("whole", append=True)
    stored = open_store(memory_path / "a.zarr")
    expected = np.random.default_rng(14).integers(0, 5000, (2, 2, 120, 160)).astype("uint16")
    np.testing.assert_array_equal(stored["data"][[2, 4]], expected)
    assert [path.name for path in memory_path.iterdir()] == ["a.zarr"]


def test_a_half_written_store_is_refused_and_says_what_to_do(
    undisturbed: tuple[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "a.zarr"
    with writer(tmp_path) as say:
        assert say("step", undisturbed[1] - 30) == "killed"
    with pytest.raises(IncompleteStoreError, match="Run the same write or build again"):
        open_store(path)
    part = open_store(path, allow_incomplete=True)
    assert part["data"].shape == (3, 2, 120, 160)
    assert not verify(path).ok
    xr.testing.assert_equal(part["time"], part["time"])
    assert np.asarray(part["data"]).dtype == "uint16"


def test_another_plan_does_not_go_on(undisturbed: tuple[str, int], tmp_path: Path) -> None:
    with writer(tmp_path) as say:
        assert say("step", undisturbed[1] - 30) == "killed"
    with writer(tmp_path, seed=5) as say:
        assert "begun with another plan" in say("whole")
        assert say("whole", overwrite=True).startswith("done")
    assert verify(tmp_path / "a.zarr").ok


def test_a_full_disk_is_said_and_leaves_no_torn_chunk(
    undisturbed: tuple[str, int], tmp_path: Path, digest: Digest
) -> None:
    path = tmp_path / "a.zarr"
    with writer(tmp_path) as say:
        assert "StoreError: Cannot write to" in say("limit", 1_000)
        answer = say("limit", 20_000)
        assert "StoreError: Cannot write data, time 0:3, y" in answer
        assert "make room" in answer
        assert not list(path.rglob("*.partial"))
        assert verify(path).damaged == ()
        with pytest.raises(IncompleteStoreError):
            open_store(path)
        assert say("whole").startswith("done")
    assert digest(path) == undisturbed[0]
