"""Write, kill, resume, replace and verify on the real APIs of S3 and Azure."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import CubeError, IncompleteStoreError, StoreError
from cubekit.store.compare import diff
from cubekit.store.lease import hold
from cubekit.store.objects import ROOT
from cubekit.store.open import open_store
from cubekit.store.place import beside
from cubekit.store.remote import Remote, RemoteObjects
from cubekit.store.verify import verify
from cubekit.store.why import why
from cubekit.store.write import write
from tests.services.buckets import Service, run_azure, run_s3

pytest.importorskip("obstore")
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def s3(tools: Path) -> Iterator[Service]:
    with run_s3(tools) as service:
        yield service


@pytest.fixture(scope="module")
def azure(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_azure(tools, tmp_path_factory.mktemp("azurite")) as service:
        yield service


def make_cube(seed: int = 0) -> xr.Dataset:
    data = np.random.default_rng(seed).integers(0, 5000, (3, 2, 120, 160)).astype("uint16")
    times = np.array(["2020-01-01", "2020-02-01", "2020-03-01"], dtype="datetime64[ns]")
    return xr.Dataset({"data": (("time", "band", "y", "x"), data)}, coords={"time": times})


def contents(place: Remote) -> dict[str, bytes | None]:
    objects = RemoteObjects(place)
    return {key: objects.read(key) for key in objects.keys()}  # noqa: SIM118


@pytest.fixture(params=["s3", "azure"])
def service(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_a_cube_goes_there_and_back(
    service: Any, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    caplog.set_level(logging.DEBUG)
    url, options = f"{service.url}/{request.node.originalname}.zarr", service.options
    layout = {"y": (15, 60), "x": (20, 40)}
    opened = write(make_cube(), url, layout=layout, storage_options=options)
    xr.testing.assert_identical(opened.compute(), make_cube())
    write(make_cube(1), url, layout=layout, storage_options=options, overwrite=True)
    place = Remote.at(url, options)
    xr.testing.assert_identical(open_store(url, storage_options=options).compute(), make_cube(1))
    xr.testing.assert_equal(xr.open_zarr(place.zarr_store(read_only=True)).compute(), make_cube(1))
    assert verify(url, storage_options=options).ok
    assert not contents(beside(place, "next"))
    stored = b"".join(data or b"" for data in contents(place).values())
    assert service.secret.encode() not in stored
    assert service.secret not in caplog.text
    with pytest.raises(StoreError, match="holds another cube"):
        write(make_cube(), url, layout=layout, storage_options=options)


def test_stores_are_compared_with_the_credentials_given(
    service: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url, options = f"{service.url}/{request.node.originalname}.zarr", service.options
    space = xr_coords(GeoBox((120, 160), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633"), dims=("y", "x"))
    write(make_cube().assign_coords(space), url, storage_options=options)
    write(make_cube().assign_coords(space), tmp_path / "local.zarr")
    write(make_cube(1).assign_coords(space), tmp_path / "other.zarr")
    assert diff(url, tmp_path / "local.zarr", storage_options=options).equal
    assert not diff(tmp_path / "other.zarr", url, storage_options=options).equal
    with pytest.raises(CubeError, match="not opened from items"):  # the store was read: it knows no scenes
        why(url, x=5, y=-5, time="2020-02", storage_options=options)


def test_one_writer_at_a_time(service: Any, request: pytest.FixtureRequest) -> None:
    place = Remote.at(f"{service.url}/{request.node.originalname}.zarr", service.options)
    with hold(place), pytest.raises(StoreError, match="is writing this store"), hold(place):
        pass
    with hold(place) as again:
        again.check()


def test_a_missing_bucket_is_said_without_secrets(s3: Any) -> None:
    def begin() -> None:
        write(make_cube(), "s3://absent/a.zarr", storage_options=s3.options)

    def look() -> None:
        open_store("s3://absent/a.zarr", storage_options=s3.options)

    for work in (begin, look):
        with pytest.raises(StoreError, match=r"s3://absent/a\.zarr") as caught:
            work()
        assert s3.secret not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_processes_write_what_threads_write(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    layout = {"y": (15, 60), "x": (20, 40)}
    write(make_cube(), "s3://cubes/threads.zarr", layout=layout)
    write(make_cube(), "s3://cubes/processes.zarr", layout=layout, scheduler="processes", workers=2)
    places = [Remote.at(f"s3://cubes/{name}.zarr") for name in ("threads", "processes")]
    assert contents(places[0]) == contents(places[1])


def test_killed_again_and_again_is_byte_equal(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = "s3://cubes/killed.zarr"
    place, moments = Remote.at(url), np.random.default_rng(4)
    with writer(url) as say:
        assert say(0, 1) == "done "
        first = contents(place)
        assert say(0, 2) == "done "
        second = contents(place)
        RemoteObjects(place).delete(*second)
        killed = 0
        for _ in range(12):
            if say(moments.uniform(0.1, 0.6), 1) != "killed":
                break
            killed += 1
            try:
                open_store(url).load()
            except (IncompleteStoreError, StoreError):
                continue
            break  # killed after the mark: all is there
        assert say(0, 1) == "done "
        assert contents(place) == first
        assert killed
        seen = set()
        for _ in range(8):  # a replacement, killed: always one of the two cubes, whole
            answer = say(moments.uniform(0.3, 1.6), 2)
            values = open_store(url).load()
            seen |= {seed for seed in (1, 2) if (values["data"] == expected(seed)).all()}
            assert verify(url).ok
            if answer != "killed":
                break
        assert say(0, 2) == "done "
        assert contents(place) == second
        assert seen
    assert not contents(beside(place, "next"))
    assert b'"complete"' in (RemoteObjects(place).read(ROOT) or b"")


def expected(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5000, (3, 2, 120, 160)).astype("uint16")


class writer:  # noqa: N801  (reads as a function)
    """Start the forking writer; call it with seconds to live and a seed."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> Callable[[float, int], str]:
        script = Path(__file__).with_name("killed_remote_writer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=os.environ,
        )  # fmt: skip
        return self.say

    def say(self, seconds: float, seed: int) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{seconds} {seed}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
