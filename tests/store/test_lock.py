import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import xarray as xr

from cubekit.errors import StoreError
from cubekit.store import lock
from cubekit.store.lock import locked
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat faster than in earnest."""
    monkeypatch.setattr(lock, "BEAT", 0.1)


def test_a_second_writer_is_refused_and_names_the_first(make_cube: CubeMaker, tmp_path: Path) -> None:
    begun, go_on = Event(), Event()

    def waiting(block: np.ndarray) -> np.ndarray:
        begun.set()
        assert go_on.wait(30)
        return block

    cube = make_cube()
    cube["data"] = cube["data"].copy(
        data=cube["data"].data.map_blocks(waiting, name="waiting", meta=np.empty((0,) * 4, "uint16"))
    )
    first = Thread(target=write, args=(cube, tmp_path / "a.zarr"))
    first.start()
    try:
        assert begun.wait(30)
        with pytest.raises(StoreError, match=f"process {os.getpid()} on .* is writing this store"):
            write(cube, tmp_path / "a.zarr")
    finally:
        go_on.set()
        first.join()
    assert verify(tmp_path / "a.zarr").ok


def test_the_lock_of_a_dead_process_is_taken_over_at_once(make_cube: CubeMaker, tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from cubekit.store.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    root = str(Path(lock.__file__).parents[2])
    record = tmp_path / ".a.zarr.lock"
    subprocess.run([sys.executable, "-c", script, str(record), root], check=False)
    assert record.exists()
    begin = time.monotonic()
    write(make_cube(), tmp_path / "a.zarr")
    assert time.monotonic() - begin < lock.BEAT * lock.PATIENCE
    assert verify(tmp_path / "a.zarr").ok


def test_a_reused_process_number_does_not_keep_a_lock(tmp_path: Path) -> None:
    record = tmp_path / "lock"
    with locked(record):
        content = json.loads(record.read_bytes())
    record.write_text(json.dumps(content | {"born": "1"}))
    with locked(record):
        assert json.loads(record.read_bytes())["token"] != content["token"]


def test_a_silent_lock_of_another_host_is_taken_over(quick: None, tmp_path: Path) -> None:
    record = tmp_path / "lock"
    record.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x", "beat": 7}))
    with locked(record):
        assert json.loads(record.read_bytes())["pid"] == os.getpid()


def test_a_beating_lock_of_another_host_is_respected(quick: None, tmp_path: Path) -> None:
    record, stop = tmp_path / "lock", Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.03):
            count += 1
            unfinished = tmp_path / "unfinished"
            unfinished.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x", "beat": count}))
            unfinished.replace(record)

    beating = Thread(target=beat)
    beating.start()
    try:
        time.sleep(0.2)
        with pytest.raises(StoreError, match="process 1 on elsewhere"), locked(record):
            pass
    finally:
        stop.set()
        beating.join()


def test_losing_the_lock_stops_the_writer(quick: None, tmp_path: Path) -> None:
    record = tmp_path / "lock"
    with locked(record) as held:
        held.check()
        record.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
        time.sleep(0.5)
        with pytest.raises(StoreError, match="taken over by process 1 on elsewhere"):
            held.check()
    assert record.exists()  # it is not ours to remove


def test_the_heart_beats_and_the_lock_goes_away(quick: None, tmp_path: Path) -> None:
    record = tmp_path / "lock"
    with locked(record):
        time.sleep(0.5)
        assert json.loads(record.read_bytes())["beat"] >= 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_does_not_lock_for_ever(tmp_path: Path) -> None:
    record = tmp_path / "lock"
    record.write_bytes(b"\x00")
    with locked(record):
        pass
    assert not record.exists()


def test_many_contenders_have_one_winner_at_a_time(tmp_path: Path) -> None:
    inside, most, wins = 0, 0, 0

    def contend() -> None:
        nonlocal inside, most, wins
        for _ in range(20):
            try:
                with locked(tmp_path / "lock"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.002)
                    inside -= 1
                    wins += 1
            except StoreError:
                time.sleep(0.001)

    threads = [Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert wins > 0
