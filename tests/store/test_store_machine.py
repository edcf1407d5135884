"""Anything may happen to a store, in any order: what opens as finished is what was written."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cubekit.errors import IncompleteStoreError, StoreError
from cubekit.store.ledger import LEDGER
from cubekit.store.objects import Objects
from cubekit.store.open import open_store
from cubekit.store.place import beside
from cubekit.store.verify import verify
from cubekit.store.write import write

LAYOUT: dict[str, int | tuple[int, int]] = {"y": (8, 16), "x": (8, 16)}


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of errors catches it."""


def numbers(seed: int) -> np.ndarray[Any, Any]:
    """Return what cube number ``seed`` holds."""
    return np.random.default_rng(seed).integers(0, 999, (2, 40, 24)).astype("uint16")


class Store(RuleBasedStateMachine):
    """A store at one path, and a model of it."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # noqa: S108  # disks take 5 ms to sync a file, and this syncs thousands
        self.folder = Path(mkdtemp(dir=memory if memory.is_dir() else None))
        self.path = self.folder / "a.zarr"
        self.finished: int | None = None  # the cube that the path must hold, if a write has finished
        self.begun: int | None = None  # else the cube that is unfinished there
        self.hurt: set[str] = set()  # objects that were damaged since
        self.deadline: int | None = None

    def teardown(self) -> None:
        rmtree(self.folder)

    def cube(self, seed: int) -> xr.Dataset:
        """Return a lazy cube whose computation dies when the deadline has come."""

        def passing(block: Any) -> Any:
            if self.deadline is not None:
                self.deadline -= 1
                if self.deadline < 0:
                    raise KilledError
            return block

        lazy = da.from_array(numbers(seed), (2, 8, 8), name=f"n{seed}")  # type: ignore[no-untyped-call]
        lazy = lazy.map_blocks(passing, name=f"passing-{seed}", meta=np.empty((0, 0, 0), "uint16"))
        return xr.Dataset({"data": (("time", "y", "x"), lazy)})

    def write(self, seed: int, *, overwrite: bool) -> None:
        write(self.cube(seed), self.path, layout=LAYOUT, overwrite=overwrite, workers=1, progress=False)

    @initialize(seed=st.integers(0, 2))
    def first(self, seed: int) -> None:
        self.write(seed, overwrite=False)
        self.finished = seed

    @rule(seed=st.integers(0, 2), overwrite=st.booleans())
    def write_whole(self, seed: int, overwrite: bool) -> None:  # noqa: FBT001
        if overwrite or seed in {self.finished, self.begun}:
            self.write(seed, overwrite=overwrite)
            self.done(seed, overwrite=overwrite)
        else:
            with pytest.raises(StoreError, match="another"):
                self.write(seed, overwrite=False)

    @rule(seed=st.integers(0, 2), after=st.integers(0, 14))
    def write_killed(self, seed: int, after: int) -> None:
        self.deadline = after
        try:
            self.write(seed, overwrite=True)
        except KilledError:
            if seed == self.finished:  # it was being mended in place
                assert self.hurt
                self.finished, self.begun, self.hurt = None, seed, set()
        else:
            self.done(seed, overwrite=True)
        finally:
            self.deadline = None

    def done(self, seed: int, *, overwrite: bool) -> None:
        """Note that a write has finished; it looks for flipped bits where asked, or where chunks are lost."""
        left_alone = seed == self.finished and not overwrite and not any("lost" in what for what in self.hurt)
        self.finished, self.begun, self.hurt = seed, None, self.hurt if left_alone else set()

    @precondition(lambda self: self.finished is not None)
    @rule(choice=st.integers(0, 999))
    def delete_chunk(self, choice: int) -> None:
        key = self.pick(choice)
        if key:
            (self.path / key).unlink()
            self.hurt.discard(f"flip {key}")
            self.hurt.add(f"lost {key}")

    @precondition(lambda self: self.finished is not None)
    @rule(choice=st.integers(0, 999))
    def flip_bit(self, choice: int) -> None:
        key = self.pick(choice)
        if key and f"flip {key}" not in self.hurt:
            content = bytearray((self.path / key).read_bytes())
            bit = choice * 7919 % (len(content) * 8)
            content[bit // 8] ^= 1 << bit % 8
            (self.path / key).write_bytes(content)
            self.hurt.add(f"flip {key}")

    def pick(self, choice: int) -> str | None:
        """Choose an object that is there."""
        keys = sorted(
            p.relative_to(self.path).as_posix() for p in (self.path / "data/c").rglob("*") if p.is_file()
        )
        return keys[choice % len(keys)] if keys else None

    @invariant()
    def verify_finds_exactly_what_was_hurt(self) -> None:
        if self.finished is None:
            return
        report = verify(self.path, progress=False)
        assert {f"lost {key}" for key in report.missing} | {
            f"flip {key}" for key in report.damaged
        } == self.hurt

    @invariant()
    def what_opens_is_what_was_written(self) -> None:
        if self.finished is None:
            if self.path.exists():
                try:
                    open_store(self.path)
                except IncompleteStoreError:
                    return
                raise AssertionError("an unfinished store was opened")
            return
        opened = open_store(self.path)
        if not self.hurt:
            np.testing.assert_array_equal(opened["data"], numbers(self.finished))
            return
        try:
            opened.load()
        except StoreError:
            return
        raise AssertionError(f"damage was not noticed: {self.hurt}")

    @invariant()
    def no_lock_stays(self) -> None:
        assert not beside(self.path, "lock").exists()
        assert self.finished is None or Objects.at(self.path).read(LEDGER)


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would outlast the time limit
)
