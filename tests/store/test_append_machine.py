"""Dates come, change and get damaged in any order: a store holds what a dictionary says, or says so."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cubekit.errors import StoreError
from cubekit.store.append import append
from cubekit.store.open import open_store
from cubekit.store.repair import repair
from cubekit.store.verify import verify
from cubekit.store.write import write

LAYOUT: dict[str, int | tuple[int, int]] = {"time": 2, "y": (4, 8), "x": (4, 8)}
DATES = st.dictionaries(st.integers(0, 6), st.integers(0, 2), min_size=1, max_size=3)
"""Days with the seeds of their numbers."""


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of errors catches it."""


def numbers(day: int, seed: int) -> np.ndarray[Any, Any]:
    """Return what one date holds."""
    return np.random.default_rng((day, seed)).integers(0, 999, (12, 8)).astype("uint16")


class Dated(RuleBasedStateMachine):
    """A store, and a dictionary of what its dates must hold."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # noqa: S108  # disks take 5 ms to sync a file, and this syncs thousands
        self.folder = Path(mkdtemp(dir=memory if memory.is_dir() else None))
        self.path = self.folder / "a.zarr"
        self.model: dict[int, int] = {}
        self.hurt: set[str] = set()
        self.deadline: int | None = None

    def teardown(self) -> None:
        rmtree(self.folder)

    def cube(self, dates: dict[int, int]) -> xr.Dataset:
        """Return a lazy cube whose computation dies when the deadline has come."""

        def passing(block: Any) -> Any:
            if self.deadline is not None:
                self.deadline -= 1
                if self.deadline < 0:
                    raise KilledError
            return block

        arrays = []
        for day, seed in sorted(dates.items()):
            name = f"day-{day}-{seed}"
            lazy = da.from_array(numbers(day, seed)[None], (1, 4, 8), name=f"n-{name}")  # type: ignore[no-untyped-call]
            arrays.append(lazy.map_blocks(passing, name=name, meta=np.empty((0, 0, 0), "uint16")))
        times = np.datetime64("2021-01-01", "ns") + np.array(sorted(dates)) * np.timedelta64(1, "D")
        joint = da.concatenate(arrays)  # type: ignore[no-untyped-call]
        return xr.Dataset({"data": (("time", "y", "x"), joint)}, coords={"time": times})

    @initialize(dates=DATES)
    def first(self, dates: dict[int, int]) -> None:
        write(self.cube(dates), self.path, layout=LAYOUT, workers=1, progress=False)
        self.model = dict(dates)

    @rule(dates=DATES, killed=st.one_of(st.none(), st.integers(0, 9)))
    def take(self, dates: dict[int, int], killed: int | None) -> None:
        self.deadline = killed
        before = {path: path.stat().st_ino for path in self.path.rglob("data/c/*/*/*")}
        try:
            append(self.cube(dates), self.path, workers=1, progress=False, on_change="replace")
        except KilledError:
            assert before == {path: path.stat().st_ino for path in self.path.rglob("data/c/*/*/*")}
            return
        except StoreError:  # a damaged or missing object is needed
            assert self.hurt
            return
        finally:
            self.deadline = None
        changed = self.model | dates != self.model
        self.model |= dates
        if changed and self.hurt:  # objects that were written anew are whole again
            self.hurt = {what for what in self.hurt if what.split()[1] in self.bad()}

    @rule(dates=DATES)
    def keep(self, dates: dict[int, int]) -> None:
        known = {day: seed for day, seed in dates.items() if day in self.model}
        if known:
            append(self.cube(known), self.path, workers=1, progress=False, on_change="keep")

    @rule()
    def mend(self) -> None:
        report = repair(self.path, self.cube(self.model), progress=False)
        assert report.ok
        assert set(report.mended) == {what.split()[1] for what in self.hurt}
        self.hurt = set()

    @precondition(lambda self: not self.hurt)
    @rule(choice=st.integers(0, 99))
    def delete_chunk(self, choice: int) -> None:
        key = self.pick(choice)
        (self.path / key).unlink()
        self.hurt.add(f"lost {key}")

    @precondition(lambda self: len(self.hurt) < 2)
    @rule(choice=st.integers(0, 999))
    def flip_bit(self, choice: int) -> None:
        key = self.pick(choice)
        if f"flip {key}" not in self.hurt:
            content = bytearray((self.path / key).read_bytes())
            bit = choice * 7919 % (len(content) * 8)
            content[bit // 8] ^= 1 << bit % 8
            (self.path / key).write_bytes(content)
            self.hurt.add(f"flip {key}")

    def pick(self, choice: int) -> str:
        """Choose a chunk that is there."""
        keys = sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("data/c/*/*/*"))
        return keys[choice % len(keys)]

    def bad(self) -> set[str]:
        """Return what verify names."""
        report = verify(self.path, progress=False)
        return {*report.missing, *report.damaged}

    @invariant()
    def verify_names_exactly_what_was_hurt(self) -> None:
        if self.model:
            assert self.bad() == {what.split()[1] for what in self.hurt}

    @invariant()
    def the_store_holds_what_the_dictionary_says(self) -> None:
        if not self.model:
            return
        opened = open_store(self.path)
        days = (opened["time"].to_numpy() - np.datetime64("2021-01-01", "ns")) // np.timedelta64(1, "D")
        assert days.tolist() == sorted(self.model)
        if self.hurt:
            try:
                opened.load()
            except StoreError:
                return
            raise AssertionError(f"damage was not noticed: {self.hurt}")
        expected = np.stack([numbers(day, self.model[day]) for day in sorted(self.model)])
        np.testing.assert_array_equal(opened["data"], expected)


TestDated = Dated.TestCase
TestDated.settings = settings(
    max_examples=8,
    stateful_step_count=10,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would outlast the time limit
)
