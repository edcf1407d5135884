"""The rules of object stores, on the one in memory; tests/services runs the same on a real S3 API."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr

from cubekit.cube.eager import load
from cubekit.errors import IncompleteStoreError, OptionError, StoreError
from cubekit.store import lock
from cubekit.store.lease import hold
from cubekit.store.objects import LEASE, ROOT
from cubekit.store.open import open_store
from cubekit.store.place import beside, look, replace_store, settle
from cubekit.store.remote import Remote, RemoteObjects
from cubekit.store.verify import verify
from cubekit.store.write import write

pytest.importorskip("obstore")

CubeMaker = Callable[..., xr.Dataset]
LAYOUT = {"y": (16, 32), "x": (16, 32)}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Remote:
    return Remote.at(f"memory://cubes/{request.node.name}.zarr")


def contents(place: Remote) -> dict[str, bytes | None]:
    objects = RemoteObjects(place)
    return {key: objects.read(key) for key in objects.keys()}  # noqa: SIM118


def test_what_is_written_is_read(place: Remote, make_cube: CubeMaker) -> None:
    cube = make_cube()
    opened = write(cube, place.url, layout=LAYOUT)
    xr.testing.assert_identical(opened.compute(), cube.compute())
    report = verify(Path(place.url))  # as the command line gives it
    assert report.ok
    assert report.chunks > 10
    assert not list(RemoteObjects(beside(place, "next")).keys())
    ledger = [key for key in contents(place) if "ledger" in key]
    assert ledger == [".cubekit/ledger.jsonl"], "the lines of the log are gathered at the end"


def test_parts_and_loaded_wholes_are_what_was_written(place: Remote, make_cube: CubeMaker) -> None:
    cube = make_cube()
    opened = write(cube, place.url, layout=LAYOUT)
    xr.testing.assert_identical(load(opened, progress=False), cube.compute())
    for rows, columns in (
        (slice(3, 9), slice(40, 50)),
        (slice(30, 70), slice(0, 40)),
        (slice(64, 90), slice(96, 110)),
    ):
        part = opened["data"].isel(y=rows, x=columns).to_numpy()
        np.testing.assert_array_equal(part, cube["data"].isel(y=rows, x=columns))


def test_plain_xarray_opens_it(place: Remote, make_cube: CubeMaker) -> None:
    cube = make_cube()
    write(cube, place.url)
    plain = xr.open_zarr(place.zarr_store(read_only=True))
    assert int(np.isnan(plain["data"]).sum()) == int((cube["data"] == 0).sum()) > 0
    assert plain["data"].rio.crs.to_epsg() == 32630


def test_a_failed_write_is_refused_and_goes_on(place: Remote, make_cube: CubeMaker) -> None:
    cube, calls, broken = make_cube(), [0], [True]

    def failing(block: np.ndarray) -> np.ndarray:
        calls[0] += 1
        if broken[0] and calls[0] > 8:
            raise RuntimeError("no more")
        return block

    lazy = cube["data"].data.map_blocks(failing, dtype="uint16", name="failing")
    fragile = cube.assign(data=cube["data"].copy(data=lazy))
    with pytest.raises(StoreError, match="no more"):
        write(fragile, place.url, layout=LAYOUT, workers=1, source="fixed")
    with pytest.raises(IncompleteStoreError, match="not finished"):
        open_store(place.url)
    assert not verify(place.url).ok
    done = [key for key in contents(place) if key.startswith("data/c/")]
    broken[0], calls[0] = False, 0
    write(fragile, place.url, layout=LAYOUT, workers=1, source="fixed")
    assert done
    assert calls[0] < 12, "finished regions are not computed again"
    resumed = contents(place)
    RemoteObjects(place).delete(*resumed)
    write(fragile, place.url, layout=LAYOUT, workers=2, source="fixed")
    assert contents(place) == resumed


def test_damage_is_found_and_mended(place: Remote, make_cube: CubeMaker) -> None:
    cube, objects = make_cube(), RemoteObjects(place)
    write(cube, place.url, layout=LAYOUT)
    data = objects.read("data/c/0/0/0/0") or b""
    objects.write("data/c/0/0/0/0", data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    objects.delete("elevation/c/0/0")
    report = verify(place.url)
    assert report.damaged == ("data/c/0/0/0/0",)
    assert report.missing == ("elevation/c/0/0",)
    write(cube, place.url, layout=LAYOUT, overwrite=True)
    assert verify(place.url).ok


def test_a_replacement_that_stops_half_way_shows_the_new_cube(
    place: Remote, make_cube: CubeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_cube(), make_cube(seed=1, times=5)
    stale = write(old, place.url, layout=LAYOUT)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cubekit.store.place.copy_objects", stop)
    with pytest.raises(KeyboardInterrupt):
        write(new, place.url, layout=LAYOUT, overwrite=True)
    assert look(place).state == "moved"
    xr.testing.assert_identical(open_store(place.url).compute(), new.compute())
    assert verify(place.url).ok
    plain = xr.open_zarr(place.zarr_store(read_only=True))
    assert not plain.variables, "plain readers see nothing rather than a mixture"
    with pytest.raises(StoreError, match="has been replaced"):
        stale["data"].load()
    monkeypatch.undo()
    settle(place)
    assert look(place).state == "complete"
    xr.testing.assert_identical(open_store(place.url).compute(), new.compute())
    assert not contents(beside(place, "next"))


def test_the_old_cube_stays_until_the_new_is_finished(place: Remote, make_cube: CubeMaker) -> None:
    old, new = make_cube(), make_cube(seed=1)
    write(old, place.url, layout=LAYOUT)
    before = contents(place)

    def failing(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("no more")

    broken = new.assign(data=new["data"].copy(data=new["data"].data.map_blocks(failing, dtype="uint16")))
    with pytest.raises(StoreError, match="no more"):
        write(broken, place.url, layout=LAYOUT, overwrite=True)
    assert contents(place) == before
    write(new, place.url, layout=LAYOUT, overwrite=True)
    xr.testing.assert_identical(open_store(place.url).compute(), new.compute())
    assert set(contents(place)) == set(before)


def test_a_finished_successor_is_taken_from_where_it_lies(place: Remote, make_cube: CubeMaker) -> None:
    write(make_cube(), place.url)
    write(make_cube(seed=1), beside(place, "next").url)
    replace_store(place)
    xr.testing.assert_identical(open_store(place.url).compute(), make_cube(seed=1).compute())


def test_one_writer_at_a_time(place: Remote) -> None:
    with (
        hold(place),
        pytest.raises(StoreError, match=r"process \d+ on .* is writing this store"),
        hold(place),
    ):
        pass
    assert RemoteObjects(place).read(LEASE) == b"{}"
    assert look(place).state == "absent", "a lock alone is no store"
    with hold(place):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(place: Remote) -> None:
    RemoteObjects(place).write(LEASE, json.dumps(lock.new_record() | {"pid": 2**22, "born": "1"}).encode())
    with hold(place) as held:
        held.check()


def test_a_lock_from_another_host_is_taken_over_without_a_heartbeat(
    place: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with hold(place) as first:
        RemoteObjects(place).write(LEASE, json.dumps(lock.new_record() | {"host": "elsewhere"}).encode())
        with hold(place):
            sleep(0.2)
            with pytest.raises(StoreError, match="was taken over by process"):
                first.check()


def test_a_living_lock_from_another_host_is_respected(place: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    here = lock.owner_is_gone
    monkeypatch.setattr(lock, "owner_is_gone", lambda record: here({**record, "host": "elsewhere"}))
    with hold(place), pytest.raises(StoreError, match="is writing this store"), hold(place):
        pass


def test_another_thing_at_the_address_is_left_alone(place: Remote, make_cube: CubeMaker) -> None:
    RemoteObjects(place).write("notes.txt", b"mine")
    with pytest.raises(StoreError, match="not a Zarr store; it is left alone"):
        write(make_cube(), place.url, overwrite=True)
    with pytest.raises(StoreError, match="no Zarr store"):
        open_store(place.url)
    with pytest.raises(StoreError, match="there is nothing"):
        open_store(f"{place.url}-other")


def test_memory_is_not_handed_to_other_processes(place: Remote, make_cube: CubeMaker) -> None:
    with pytest.raises(StoreError, match="scheduler='threads'"):
        write(make_cube(), place.url, scheduler="processes", workers=1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:verysecret@bucket/a.zarr", "must not carry credentials"),
        ("az://box/a.zarr?sv=1&sig=verysecret", "must not carry credentials"),
        ("s3://bucket", r"expected s3://bucket/name\.zarr"),
        ("s3://bucket/a/../b.zarr", "expected"),
        ("ftp://host/a.zarr", "ftp:// is not supported"),
    ],
)
def test_addresses_are_checked_and_secrets_not_repeated(url: str, message: str, make_cube: CubeMaker) -> None:
    for work in (lambda: write(make_cube(), url), lambda: open_store(url), lambda: verify(url)):
        with pytest.raises(StoreError, match=message) as caught:
            work()
        assert "verysecret" not in str(caught.value)


def test_options_are_checked_and_never_shown(tmp_path: object, make_cube: CubeMaker) -> None:
    place = Remote.at("s3://bucket/a.zarr", {"nonsense": "verysecret"})
    assert "verysecret" not in f"{place!r} {place} {RemoteObjects.__repr__}"
    with pytest.raises(OptionError, match="'nonsense'") as caught:
        open_store(place)
    assert "verysecret" not in str(caught.value)
    with pytest.raises(OptionError, match="for object stores"):
        open_store(f"{tmp_path}/a.zarr", storage_options={"region": "eu"})
    with pytest.raises(OptionError, match="plain"):
        Remote.at("s3://bucket/a.zarr", {"region": object()})


def test_credentials_of_the_environment_do_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "verysecret")
    objects = RemoteObjects(Remote.at("s3://bucket/a.zarr"))
    assert objects.place.service is not None
    assert b"verysecret" not in pickle.dumps(objects)
    assert pickle.loads(pickle.dumps(objects)).place == objects.place  # noqa: S301


def test_lines_of_another_log_are_not_taken_up(place: Remote) -> None:
    objects = RemoteObjects(place)
    objects.write_log("side/log", b"first\n")
    objects.append("side/log", "one")
    objects.append("side/log", "two")
    assert sorted((objects.read_log("side/log") or b"").splitlines()) == [b"first", b"one", b"two"]
    objects.write("side/log", b"second\n")  # killed before the lines of the first were removed
    assert objects.read_log("side/log") == b"second\n"
    objects.write_log("side/log", b"second\n")
    assert list(objects.keys()) == ["side/log"]
    assert objects.read_log(ROOT) is None
