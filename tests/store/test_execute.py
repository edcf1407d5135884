"""Threads, processes and a cluster do the same; a dead worker is replaced, a region that kills is named."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cubekit.errors import OptionError, SourceError, StoreError
from cubekit.store.execute import RETRIES, Crew, run
from cubekit.store.open import open_store
from cubekit.store.regions import Region
from cubekit.store.verify import verify
from cubekit.store.write import write

Digest = Callable[[Path], str]

LAYOUT: dict[str, int | tuple[int, int]] = {"y": (10, 20), "x": (10, 20)}


def lazy_cube(change: Callable[[Any], Any] | None = None, side: int = 80) -> xr.Dataset:
    """Return a cube of 16 regions that any process can compute."""
    numbers = (
        da.arange(3 * side * side, dtype="uint16", chunks=-1).reshape(3, side, side).rechunk((3, 20, 20))
    )
    if change is not None:
        numbers = numbers.map_blocks(change, name=f"changed-{side}", meta=np.empty((0, 0, 0), "uint16"))
    return xr.Dataset({"data": (("time", "y", "x"), numbers), "first": (("y", "x"), numbers[0] + 1)})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two worker processes."""
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
    ):
        yield cluster


def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path, digest: Digest) -> None:
    found = set()
    for workers in (1, 2, 5):
        path = tmp_path / f"{workers}.zarr"
        write(lazy_cube(), path, layout=LAYOUT, scheduler="threads", workers=workers)
        found.add(digest(path))
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_and_cluster_give_the_same_bytes(tmp_path: Path, digest: Digest, cluster: Any) -> None:
    from distributed import Client

    write(lazy_cube(), tmp_path / "t.zarr", layout=LAYOUT)
    write(lazy_cube(), tmp_path / "p.zarr", layout=LAYOUT, scheduler="processes", workers=2)
    write(lazy_cube(), tmp_path / "a.zarr", layout=LAYOUT, scheduler=cluster.scheduler_address)
    with Client(cluster, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        write(lazy_cube(), tmp_path / "c.zarr", layout=LAYOUT, scheduler=client)
    with Client(cluster):  # type: ignore[no-untyped-call]  # the active cluster is taken by itself
        write(lazy_cube(), tmp_path / "d.zarr", layout=LAYOUT)
    assert len({digest(tmp_path / f"{name}.zarr") for name in "tpacd"}) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_numbers_in_memory_reach_other_processes(tmp_path: Path, cluster: Any) -> None:
    numbers = np.random.default_rng(0).integers(0, 99, (20, 10, 160, 160)).astype("uint16")
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), numbers)})
    for name, scheduler in (("p", "processes"), ("c", cluster.scheduler_address)):
        opened = write(
            cube, tmp_path / f"{name}.zarr", layout={"y": 80, "x": 80}, scheduler=scheduler, workers=1
        )
        np.testing.assert_array_equal(opened["data"], numbers)


@pytest.mark.slow
def test_a_cube_persisted_on_the_cluster_is_written(tmp_path: Path, cluster: Any) -> None:
    from distributed import Client

    with Client(cluster):  # type: ignore[no-untyped-call]
        opened = write(lazy_cube().persist(), tmp_path / "a.zarr", layout=LAYOUT)
    np.testing.assert_array_equal(opened["data"], lazy_cube()["data"])


@pytest.mark.slow
def test_workers_of_a_cluster_get_strips(tmp_path: Path, cluster: Any) -> None:
    def name_of_worker(block: Any) -> Any:
        return np.full_like(block, os.getpid() % 50_000) if block.size else block

    opened = write(
        lazy_cube(name_of_worker), tmp_path / "a.zarr", layout=LAYOUT, scheduler=cluster.scheduler_address
    )
    found = opened["data"].to_numpy()[0]
    firsts = found[:20, :40], found[40:60, :40]  # what the two begin with
    assert [len(np.unique(first)) for first in firsts] == [1, 1]
    assert len(np.unique(found)) == 2


def killing(marker: Path, *, always: bool) -> Callable[[Any], Any]:
    """Return a function that kills its process once, or whenever it sees the last block."""

    def kill(block: Any) -> Any:
        if always and int(block[0, -1, -1]) == 80 * 80 - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if not always and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    return kill


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_a_worker_killed_once_is_healed(kind: str, tmp_path: Path, digest: Digest, cluster: Any) -> None:
    scheduler = "processes" if kind == "processes" else cluster.scheduler_address
    cube = lazy_cube(killing(tmp_path / "killed", always=False))
    write(cube, tmp_path / "a.zarr", layout=LAYOUT, scheduler=scheduler, workers=2)
    assert (tmp_path / "killed").exists()
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a.zarr")["data"], lazy_cube()["data"])
    report = verify(tmp_path / "a.zarr")
    assert report.ok
    write(cube, tmp_path / "b.zarr", layout=LAYOUT)  # the marker exists now: an undisturbed run
    assert digest(tmp_path / "a.zarr") == digest(tmp_path / "b.zarr")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["processes", "cluster"])
@pytest.mark.filterwarnings("ignore:Worker .* failed:UserWarning")
def test_a_region_that_always_kills_is_named_and_the_rest_kept(
    kind: str, tmp_path: Path, cluster: Any
) -> None:
    scheduler = "processes" if kind == "processes" else cluster.scheduler_address
    cube = lazy_cube(killing(tmp_path / "killed", always=True))
    with pytest.raises(StoreError, match=r"Region time 0:3, y 60:80, x 60:80 failed"):
        write(cube, tmp_path / "a.zarr", layout=LAYOUT, scheduler=scheduler, workers=2)
    report = verify(tmp_path / "a.zarr")
    assert report.state == "building"
    assert {key for key in report.missing if key.startswith("data/")} == {"data/c/0/3/3"}


def failing(times: int, error: Exception) -> tuple[Callable[[Any], Any], list[int]]:
    """Return a function that fails some times at one block, and its count of calls there."""
    calls, guard = [0], Lock()

    def fail(block: Any) -> Any:
        if block.size and int(block[0, 0, 0]) == 0:
            with guard:
                calls[0] += 1
            if calls[0] <= times:
                raise error
        return block

    return fail, calls


def test_a_read_that_fails_in_passing_is_tried_again(tmp_path: Path) -> None:
    change, calls = failing(RETRIES, SourceError("the server said 503"))
    opened = write(lazy_cube(change), tmp_path / "a.zarr", layout=LAYOUT)
    assert calls == [RETRIES + 1]
    np.testing.assert_array_equal(opened["data"], lazy_cube()["data"])


def test_a_read_that_keeps_failing_keeps_its_type_and_names_the_region(tmp_path: Path) -> None:
    change, calls = failing(99, SourceError("scene-7, asset red: gone"))
    with pytest.raises(SourceError, match="scene-7") as caught:
        write(lazy_cube(change), tmp_path / "a.zarr", layout=LAYOUT)
    assert calls == [RETRIES + 1]
    assert "Region time 0:3, y 0:20, x 0:20 failed" in caught.value.__notes__[0]


def test_a_mistake_is_not_tried_again(tmp_path: Path) -> None:
    change, calls = failing(99, ZeroDivisionError("oh"))
    with pytest.raises(StoreError, match="ZeroDivisionError: oh"):
        write(lazy_cube(change), tmp_path / "a.zarr", layout=LAYOUT)
    assert calls == [1]


def test_what_was_done_before_a_failure_is_not_done_again(tmp_path: Path) -> None:
    change, _ = failing(1, ZeroDivisionError("once"))
    computed = [0]

    def counted(block: Any) -> Any:
        computed[0] += 1
        return change(block)

    cube = lazy_cube(counted)
    with pytest.raises(StoreError, match="once"):
        write(cube, tmp_path / "a.zarr", layout=LAYOUT, workers=1)
    before = computed[0]
    write(cube, tmp_path / "a.zarr", layout=LAYOUT, workers=1)
    assert computed[0] == 16 + 1
    assert before > 1


def test_a_store_removed_while_it_is_written_is_an_error_and_can_be_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    removed: list[bool] = []

    def remove(block: Any) -> Any:
        if int(block[0, -1, -1]) > 80 * 40 and not removed:
            rmtree(path)
            removed.append(True)
        return block

    cube = lazy_cube(remove)
    with pytest.raises(StoreError, match=r"Cannot write|vanished"):
        write(cube, path, layout=LAYOUT, workers=1)
    with pytest.raises(StoreError):
        open_store(path)
    rmtree(path, ignore_errors=True)  # what was being written when it vanished
    np.testing.assert_array_equal(write(cube, path, layout=LAYOUT)["data"], lazy_cube()["data"])


def test_an_interrupt_leaves_a_store_to_go_on_with(tmp_path: Path) -> None:
    change, _ = failing(1, KeyboardInterrupt())  # type: ignore[arg-type]
    cube = lazy_cube(change)
    with pytest.raises(KeyboardInterrupt):
        write(cube, tmp_path / "a.zarr", layout=LAYOUT, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]  # the lock is gone
    write(cube, tmp_path / "a.zarr", layout=LAYOUT)
    assert verify(tmp_path / "a.zarr").ok


@pytest.mark.parametrize("scheduler", ["thread", 7])
def test_unknown_schedulers(scheduler: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="scheduler="):
        write(lazy_cube(), tmp_path / "a.zarr", scheduler=scheduler)
    with pytest.raises(OptionError, match="workers=0"):
        write(lazy_cube(), tmp_path / "a.zarr", workers=0)


def test_each_lane_gets_neighbours_and_idle_ones_help() -> None:
    regions = [Region(((0, 1), (row, row + 1), (0, 1))) for row in range(12)]
    lanes: dict[int, list[int]] = {0: [], 1: [], 2: []}
    running: deque[tuple[Future[dict[str, Any]], int]] = deque()

    def submit(task: Any, lane: int) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        lanes[lane].append(task.bounds[1][0])
        running.append((future, lane))
        if len(running) == 6:  # the slowest lane never gets on until the others have nothing left
            done = next((pair for pair in running if pair[1] != 2), running[0])
            running.remove(done)
            done[0].set_result({})
        if sum(map(len, lanes.values())) == len(regions):
            for left, _ in running:
                left.set_result({})
        return future

    crew = Crew(submit, window=6, lanes=3)
    found = {region for region, _ in run(regions, lambda region: region, crew)}  # type: ignore[arg-type,return-value]
    assert found == set(regions)
    assert sorted(chain(*lanes.values())) == list(range(12))
    assert lanes[0][:4] == [0, 1, 2, 3]
    assert lanes[1][:4] == [4, 5, 6, 7]
    assert lanes[2] == [8, 9]  # the others took its last ones
