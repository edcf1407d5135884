"""Two stores compared: what differs is found, counted and named; what does not is not."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cubekit
from cubekit.cli import main
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]


@pytest.fixture
def cube(make_cube: CubeMaker) -> xr.Dataset:
    """Return a small cube in memory."""
    return make_cube(times=3, side=(40, 50), chunk=None)


def test_layouts_do_not_count(
    cube: xr.Dataset, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(cube, memory_path / "a.zarr", layout={"time": 1, "y": 16, "x": 16})
    write(cube, memory_path / "b.zarr", layout="series")
    found = cubekit.diff(memory_path / "a.zarr", memory_path / "b.zarr")
    assert found.equal
    assert {entry.variable for entry in found.pixels} == {"data", "observations", "filled", "elevation"}
    assert main(["diff", str(memory_path / "a.zarr"), str(memory_path / "b.zarr")]) == 0
    assert "the same cube" in capsys.readouterr().out


def test_pixels_are_counted_and_the_first_is_named(
    cube: xr.Dataset, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cube.copy(deep=True)
    cube["elevation"].values[0, 0] = np.nan
    other["elevation"].values[0, 0] = np.nan  # missing in both: equal
    other["elevation"].values[0, 1] = np.nan
    draw = np.random.default_rng(5)
    values = other["data"].values
    for place in draw.integers(0, values.size, 25):
        values.flat[place] ^= 3
    expected = values != cube["data"].values
    write(cube, memory_path / "a.zarr", layout={"time": 1, "y": 16, "x": 16})
    write(other, memory_path / "b.zarr")
    found = cubekit.diff(memory_path / "a.zarr", memory_path / "b.zarr")
    pixels = {entry.variable: entry for entry in found.pixels}
    assert not found.equal
    assert pixels["data"].different == int(expected.sum())
    assert pixels["data"].compared == expected.size
    gaps = np.abs(values.astype(int) - cube["data"].values.astype(int))
    assert pixels["data"].largest == gaps.max()
    assert len(pixels["data"].dates) == int(expected.any(axis=(1, 2, 3)).sum())
    assert pixels["elevation"].different == 1
    assert pixels["elevation"].first == {"y": float(cube.y[0]), "x": float(cube.x[1])}
    assert pixels["observations"].different == 0
    assert main(["diff", str(memory_path / "a.zarr"), str(memory_path / "b.zarr")]) == 1
    assert f"data: {int(expected.sum())} of {expected.size:,} numbers differ" in capsys.readouterr().out


def test_dates_bands_and_grids(cube: xr.Dataset, memory_path: Path) -> None:
    write(cube.isel(time=[0, 1]), memory_path / "a.zarr")
    write(cube.isel(time=[1, 2]), memory_path / "b.zarr")
    found = cubekit.diff(memory_path / "a.zarr", memory_path / "b.zarr")
    assert (found.only_a, found.only_b) == ((cube.time.values[0],), (cube.time.values[2],))
    assert all(entry.different == 0 for entry in found.pixels)
    assert found.pixels[0].compared == cube["data"][0].size
    assert "1 dates only in the first: 2020-01-01" in str(found)
    write(cube.isel(band=[0, 2, 1]).drop_vars("wavelength"), memory_path / "c.zarr")
    write(cube.assign_coords(x=cube.x + 5), memory_path / "d.zarr")
    bands = cubekit.diff(memory_path / "a.zarr", memory_path / "c.zarr")
    assert bands.metadata == ("band: is [B00, B01, B02], the second's [B00, B02, B01]",)
    assert bands.pixels == ()
    assert "grid: is" in str(cubekit.diff(memory_path / "a.zarr", memory_path / "d.zarr"))
    static = cube[["elevation"]]
    write(static, memory_path / "e.zarr")
    assert cubekit.diff(memory_path / "e.zarr", memory_path / "e.zarr").equal
    assert cubekit.diff(memory_path / "a.zarr", memory_path / "e.zarr").metadata == (
        "time: only one of them has dates",
    )


def test_memory_is_that_of_two_blocks(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen times the pixels take no more memory, beyond the list of blocks."""
    monkeypatch.setattr("cubekit.store.open._READ_BYTES", 1e5)
    peaks = []
    for side in (256, 256, 1024):  # the first pays for what is loaded once
        big = xr.Dataset(
            {"data": (("y", "x"), np.ones((side, side)))},
            coords={"y": np.arange(float(side)), "x": np.arange(float(side))},
        )
        path = memory_path / f"{side}.zarr"
        write(big, path, layout={"y": 128, "x": 128})
        tracemalloc.start()
        found = cubekit.diff(path, path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.pixels[0].compared == side**2
    assert peaks[2] < peaks[1] + 2e6  # the larger array alone is 8 MB, the pair 16
