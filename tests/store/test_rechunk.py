import tracemalloc
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from cubekit.cli import main
from cubekit.errors import StoreError
from cubekit.store.open import open_store
from cubekit.store.rechunk import plan_rechunk, rechunk
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]
IMAGES = {"time": 1, "y": 64, "x": 64}
PIXELS = {"y": (16, 48), "x": (16, 48)}


@pytest.mark.parametrize(
    ("before", "after", "memory"),
    [
        (IMAGES, PIXELS, "900kB"),
        (IMAGES, PIXELS, "2GB"),
        (PIXELS, IMAGES, "900kB"),
        (PIXELS, "maps", "900kB"),
    ],
)
def test_numbers_and_attributes_stay(
    before: Any, after: Any, memory: str, make_cube: CubeMaker, tmp_path: Path
) -> None:
    cube = make_cube(times=12, bands=2)
    write(cube, tmp_path / "a.zarr", layout=before)
    opened = rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", layout=after, memory=memory, workers=2)
    xr.testing.assert_identical(opened.compute(), cube.compute())
    assert verify(tmp_path / "b.zarr").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
    stored = zarr.open_array(tmp_path / "b.zarr", path="data", mode="r")
    if after == PIXELS:
        assert (stored.chunks, stored.shards) == ((12, 2, 16, 16), (12, 2, 48, 48))
    if after == IMAGES:
        assert stored.chunks == (1, 2, 64, 64)


def test_the_command(make_cube: CubeMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    paths = [str(tmp_path / "a.zarr"), "--out", str(tmp_path / "b.zarr")]
    assert main(["rechunk", *paths, "--layout", "maps", "--memory", "100MB"]) == 0
    assert "one pass" in capsys.readouterr().out
    xr.testing.assert_identical(open_store(tmp_path / "b.zarr").compute(), make_cube().compute())


def test_the_plan_is_said_before(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(times=12, bands=2), tmp_path / "a.zarr", layout=IMAGES)
    wide = plan_rechunk(tmp_path / "a.zarr", PIXELS, memory="2GB", workers=2)
    tight = plan_rechunk(tmp_path / "a.zarr", PIXELS, memory="900kB", workers=2)
    assert wide.between is None
    assert "one pass" in str(wide)
    assert tight.between is not None
    assert tight.reads <= 2
    assert tight.memory <= 900_000
    assert "two passes" in str(tight)
    with pytest.raises(StoreError, match="Give more memory"):
        plan_rechunk(tmp_path / "a.zarr", PIXELS, memory="20kB")


@pytest.mark.parametrize("version", [2, 3])
def test_plain_zarr_stores(version: Any, make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube(times=6).drop_vars(["filled", "band"])
    decoded = xr.decode_cf(cube.drop_encoding())
    decoded["data"].encoding |= {"chunks": (1, 1, 64, 64)}
    decoded.chunk({"time": 1, "band": 1, "y": 64, "x": 64}).to_zarr(
        tmp_path / "a.zarr", zarr_format=version, consolidated=version == 2
    )
    rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", layout=PIXELS, memory="500kB")
    before, after = (
        xr.open_zarr(tmp_path / name, consolidated=name == "b.zarr" or version == 2)
        for name in ("a.zarr", "b.zarr")
    )
    xr.testing.assert_equal(before.compute(), after.compute())
    assert after["data"].encoding["dtype"] == before["data"].encoding["dtype"]


def test_netcdf(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(-200, 3000, (9, 40, 50)).astype("int16")
    cube = xr.Dataset(
        {
            "t2m": (
                ("time", "lat", "lon"),
                values,
                {"scale_factor": 0.1, "_FillValue": np.int16(-200), "units": "K"},
            )
        },
        coords={
            "time": xr.date_range("2020-01-01", periods=9),
            "lat": np.linspace(42, 38, 40),
            "lon": np.linspace(-5, 0, 50),
        },
    )
    cube.to_netcdf(tmp_path / "a.nc", encoding={"t2m": {"chunksizes": (1, 40, 50)}})
    opened = rechunk(tmp_path / "a.nc", tmp_path / "b.zarr", layout={"y": 10, "x": 10}, memory="30kB")
    np.testing.assert_array_equal(opened["t2m"], values)
    with xr.open_dataset(tmp_path / "a.nc") as original:
        decoded = xr.open_zarr(tmp_path / "b.zarr")
        np.testing.assert_array_equal(decoded["t2m"], original["t2m"])
        assert (decoded["time"].data == original["time"].data).all()
        np.testing.assert_array_equal(decoded["y"], original["lat"])


def test_an_interrupted_one_goes_on(
    make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: Callable[[Path], str]
) -> None:
    from cubekit.store import open as opening

    write(make_cube(times=12, bands=2), tmp_path / "a.zarr", layout=IMAGES)
    copytree(tmp_path / "a.zarr", tmp_path / "c" / "a.zarr")
    read, count, limit = opening.StoredArray.__getitem__, [0], [12]

    def failing(self: Any, window: Any) -> Any:
        count[0] += 1
        if count[0] > limit[0]:
            raise StoreError("the network is away")
        return read(self, window)

    monkeypatch.setattr(opening.StoredArray, "__getitem__", failing)
    options: Any = {"layout": PIXELS, "memory": "900kB", "workers": 1}
    failures = 0
    for _ in range(40):
        count[0] = 0
        try:
            rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", **options)
            break
        except StoreError:
            failures += 1
    assert failures > 2
    limit[0] = 10_000
    rechunk(tmp_path / "a.zarr", tmp_path / "d.zarr", **options)
    assert digest(tmp_path / "b.zarr") == digest(tmp_path / "d.zarr")


def test_a_changed_source_and_wrong_paths_are_refused(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", layout=PIXELS)
    write(make_cube(seed=1), tmp_path / "a.zarr", overwrite=True)
    with pytest.raises(StoreError, match="holds another cube"):
        rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", layout=PIXELS)
    rechunk(tmp_path / "a.zarr", tmp_path / "b.zarr", layout=PIXELS, overwrite=True)
    xr.testing.assert_equal(open_store(tmp_path / "b.zarr").compute(), make_cube(seed=1).compute())
    with pytest.raises(StoreError, match="onto itself"):
        rechunk(tmp_path / "a.zarr", tmp_path / "x/../a.zarr")
    with pytest.raises(StoreError, match="there is nothing"):
        rechunk(tmp_path / "none.zarr", tmp_path / "c.zarr")


def test_memory_stays_below_what_was_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 5000, (24, 512, 512)).astype("uint16")  # 13 MB
    write(
        xr.Dataset({"data": (("time", "y", "x"), values)}),
        tmp_path / "a.zarr",
        layout={"time": 1, "y": 512, "x": 512},
    )
    del values
    plan = plan_rechunk(tmp_path / "a.zarr", {"y": (32, 128), "x": (32, 128)}, memory="6MB", workers=2)
    assert plan.between is not None
    tracemalloc.start()
    rechunk(
        tmp_path / "a.zarr",
        tmp_path / "b.zarr",
        layout={"y": (32, 128), "x": (32, 128)},
        memory="6MB",
        workers=2,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < plan.memory + 6e6  # what does not grow: graphs, metadata, buffers of the codec
