"""Faults of disks and machines that no other file covers; the numbers are those of the fault table."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import xarray as xr

import cubekit
from cubekit.errors import CubeError, IncompleteStoreError, StoreError
from cubekit.store import lock
from cubekit.store.append import append
from cubekit.store.open import open_store
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]
Digest = Callable[[Path], str]

LAYOUT: dict[str, int | tuple[int, int]] = {"time": 2, "y": (24, 48), "x": (24, 48)}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc")
@pytest.mark.parametrize("how", ["write", "append"])
def test_23_the_mark_never_precedes_the_data(
    how: str, make_cube: CubeMaker, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut only what was synced is there: at the moment of the mark that is everything."""
    path, synced, lost = memory_path / "a.zarr", set[str](), list[set[str]]()
    cube = make_cube(times=4, side=(48, 60), chunk=None)
    if how == "append":
        write(cube.isel(time=[0, 1, 2]), path, layout=LAYOUT)
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def renamed(source: Path, target: Path) -> Path:
        complete = target.name == "zarr.json" and '"state": "complete"' in source.read_text("utf-8")
        if complete:
            files = [
                file for file in target.parent.rglob("*") if file.is_file() and file not in {source, target}
            ]
            lost.append({str(f) for f in files if not {str(f), str(f.parent)} <= synced})
            assert len(files) > 20
            assert str(source) in synced
        if str(source) in synced:
            synced.add(str(target))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", renamed)
    if how == "append":
        append(cube, path)
    else:
        write(cube, path, layout=LAYOUT)
    assert lost == [set()]
    assert (
        str(path if how == "write" else memory_path / ".a.zarr.next") in synced
    )  # the name of the mark itself


def test_26_a_store_of_format_1_opens_verifies_and_takes_dates(memory_path: Path) -> None:
    """Written by the code of commit e0316b5, before stores kept where their pixels are from."""
    with ZipFile(Path(__file__).with_name("fixtures") / "store-format-1.zip") as archive:
        archive.extractall(memory_path)
    path = memory_path / "store.zarr"
    assert verify(path).ok
    stored = open_store(path)
    expected = (np.arange(3 * 2 * 20 * 24).reshape(3, 2, 20, 24) % 9000).astype("uint16")
    np.testing.assert_array_equal(stored["data"], expected)
    later = stored.load().assign_coords(time=stored["time"] + np.timedelta64(100, "D"))
    np.testing.assert_array_equal(append(later, path)["data"], np.concatenate([expected, expected]))
    assert verify(path).ok
    with pytest.raises(CubeError, match="an older version wrote it"):
        cubekit.why(path, x=500_005, y=4_006_995, time="2020-01-01")


def test_09_a_full_disk_is_said_and_the_append_goes_on_when_there_is_room(
    make_cube: CubeMaker, memory_path: Path
) -> None:
    """On a file system of one megabyte."""
    disk = memory_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs rights that this process does not have")
    try:
        cube = make_cube(times=8, side=(96, 120), chunk=None)[["data"]]
        first = write(cube.isel(time=[0, 1, 2]), disk / "a.zarr", layout=LAYOUT)["data"].values
        with pytest.raises(StoreError, match=r"No space left|make room"):
            append(cube, disk / "a.zarr")
        np.testing.assert_array_equal(open_store(disk / "a.zarr")["data"], first)
        assert not list(disk.rglob("data/**/*.partial"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        np.testing.assert_array_equal(append(cube, disk / "a.zarr")["data"], cube["data"])
        assert verify(disk / "a.zarr").ok
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_10_a_read_only_place_is_said_before_anything_is_read(
    make_cube: CubeMaker, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = memory_path / "a.zarr"
    cube = make_cube(times=3, side=(48, 60), chunk=None)
    write(cube.isel(time=[0]), path, layout=LAYOUT)

    def refused(*_: object, **__: object) -> None:  # root writes into folders of any mode
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lock, "write_atomically", refused)
    for work in (lambda: append(cube, path), lambda: cubekit.repair(damaged(path))):
        with pytest.raises(
            StoreError, match=f"Cannot write in {memory_path}: Read-only file system. Nothing was read"
        ):
            work()


def damaged(path: Path) -> Path:
    """Remove one chunk."""
    (path / "data/c/0/0/0/0").unlink()
    return path


def test_12_a_successor_removed_while_it_is_built_leaves_the_old_cube(
    make_cube: CubeMaker, memory_path: Path, digest: Digest
) -> None:
    from shutil import rmtree

    path = memory_path / "a.zarr"
    cube = make_cube(times=4, side=(48, 60), chunk=None)
    write(cube.isel(time=[0, 1]), path, layout=LAYOUT)
    before = digest(path)

    def removing(block: np.ndarray) -> np.ndarray:
        rmtree(memory_path / ".a.zarr.next", ignore_errors=True)
        return block

    lazy = cube.chunk({"time": 1})
    lazy["data"] = lazy["data"].copy(
        data=lazy["data"].data.map_blocks(removing, meta=np.empty((0,) * 4, "uint16"))
    )
    with pytest.raises(StoreError):
        append(lazy, path, source="removing")
    assert digest(path) == before
    np.testing.assert_array_equal(append(cube, path, on_change="keep")["data"], cube["data"])


def test_13_a_second_append_is_refused_and_names_the_first(make_cube: CubeMaker, memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    cube = make_cube(times=2, side=(48, 60), chunk=None)
    write(cube.isel(time=[0]), path, layout=LAYOUT)
    with lock.locked(memory_path / ".a.zarr.lock"), pytest.raises(StoreError, match="is writing this store"):
        append(cube, path)
    append(cube, path)


def test_24_a_clock_that_jumps_back_changes_no_byte(
    make_cube: CubeMaker, memory_path: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    cube = make_cube(times=3, side=(48, 60), chunk=None)
    found = []
    for shift in (0, -3600):
        real = time.time
        monkeypatch.setattr(time, "time", lambda real=real, shift=shift: real() + shift)
        path = memory_path / str(shift) / "a.zarr"
        write(cube.isel(time=[0, 2]), path, layout=LAYOUT)
        append(cube, path)
        found.append(digest(path))
    assert found[0] == found[1]


def test_25_the_number_of_workers_changes_no_byte_of_an_append(
    make_cube: CubeMaker, memory_path: Path, digest: Digest
) -> None:
    cube = make_cube(times=5, side=(48, 60), chunk=None)
    found = set()
    for workers in (1, 2, 4):
        path = memory_path / str(workers) / "a.zarr"
        write(cube.isel(time=[0, 3]), path, layout=LAYOUT)
        append(cube, path, workers=workers)
        found.add(digest(path))
    assert len(found) == 1


def test_an_unfinished_store_is_neither_appended_to_nor_repaired(
    memory_path: Path, make_cube: CubeMaker
) -> None:
    path = memory_path / "a.zarr"
    (path / ".cubekit").mkdir(parents=True)
    (path / ".cubekit/plan.json").write_text("{}")
    with pytest.raises(IncompleteStoreError):
        append(make_cube(times=1), path)
    with pytest.raises(StoreError, match="not a finished store"):
        cubekit.repair(path)
