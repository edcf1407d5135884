import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from cubekit.cube.contract import geobox_of
from cubekit.errors import OptionError, StoreError
from cubekit.store.objects import Objects
from cubekit.store.open import open_store
from cubekit.store.overviews import add_overviews, halve
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]


def gdal_overview(values: np.ndarray, nodata: float, how: Resampling) -> np.ndarray:
    """Return what GDAL makes of a single image."""
    with MemoryFile() as memory:
        profile: Any = {
            "driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1,
            "dtype": values.dtype, "nodata": nodata, "crs": "EPSG:32630",
            "transform": rasterio.transform.from_origin(500_000, 4_000_000, 10, 10),
        }  # fmt: skip
        with memory.open(**profile) as file:
            file.write(values, 1)
        with rasterio.open(memory.name, "r+") as file:
            file.build_overviews([2], how)
        with rasterio.open(memory.name, overview_level=0) as file:
            return np.asarray(file.read(1))


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
def test_means_and_nearest_are_those_of_gdal(kind: str) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(1, 200, (64, 80)).astype(kind)
    values[rng.random(values.shape) < 0.4] = 0
    mean = halve(values, how="mean", nodata=0)
    expected = gdal_overview(values, 0, Resampling.average)
    assert (
        np.abs(mean.astype(float) - expected) <= (0 if kind == "float32" else 1)
    ).all()  # halves round apart
    assert (mean == expected).mean() > 0.85
    assert ((mean == 0) == (expected == 0)).all()
    np.testing.assert_array_equal(halve(values, how="nearest", nodata=0), values[::2, ::2])


def test_modes() -> None:
    values = np.array([[1, 2, 0, 0], [2, 3, 0, 7], [5, 5, 4, 9], [6, 6, 0, 4]], "uint8")
    np.testing.assert_array_equal(halve(values, how="mode", nodata=0), [[2, 7], [5, 4]])
    odd = np.array([[1, 1, 9], [2, 2, 9], [4, 3, 0]], "uint8")
    np.testing.assert_array_equal(halve(odd, how="mode", nodata=0), [[1, 9], [4, 0]])


def test_edges_count_once_and_all_nodata_stays() -> None:
    values = np.array([[2.0, 4.0, 6.0], [np.nan, np.nan, 8.0], [1.0, np.nan, np.nan]])
    np.testing.assert_array_equal(halve(values, how="mean", nodata=None), [[3, 7], [1, np.nan]])


def test_levels_open_everywhere(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube, path = make_cube(times=2, bands=2), tmp_path / "a.zarr"
    cube["filled"].attrs["flag_values"] = [0, 1]
    write(cube, path)
    levels = add_overviews(path, levels=2)
    assert list(levels) == [2, 4]
    expected = halve(cube["data"].to_numpy(), how="mean", nodata=0)
    np.testing.assert_array_equal(levels[2]["data"], expected)
    np.testing.assert_array_equal(
        levels[2]["filled"], halve(cube["filled"].to_numpy(), how="mode", nodata=None)
    )
    assert levels[4]["data"].shape == (2, 2, 23, 28)
    box = geobox_of(cube)
    for opened in (levels[4], xr.open_zarr(path, group="overviews/4"), xr.open_zarr(path / "overviews/4")):
        assert opened["data"].rio.crs.to_epsg() == 32630
        assert opened["data"].rio.transform() == box.affine * box.affine.scale(4)
    xr.testing.assert_identical(open_store(path).compute(), cube.compute())
    assert set(xr.open_zarr(path).data_vars) == set(cube.data_vars)
    groups = xr.open_groups(path, engine="zarr")
    assert groups["/overviews/4"]["data"].shape == (2, 2, 23, 28)
    assert verify(path).ok
    attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
    conventions = pytest.importorskip("zarr_cm")
    conventions.validate_many(attributes, ["proj", "spatial", "multiscales"])
    assert dict(conventions.convention_metadata("multiscales")) in attributes["zarr_conventions"]


def test_only_what_changed_is_written_again(make_cube: CubeMaker, tmp_path: Path) -> None:
    """A part of the cube is replaced in place, as replacing a scene does; the overviews follow."""
    cube, path = make_cube(times=2, bands=1, side=(96, 96))[["data"]], tmp_path / "a.zarr"
    changed = cube.compute()
    changed["data"][1, :, :20, :20] = 77
    layout = {"time": 1, "y": 32, "x": 32}
    write(cube, path, layout=layout)
    write(changed, tmp_path / "b.zarr", layout=layout)
    add_overviews(path, levels=2)
    before = {found: found.stat().st_mtime_ns for found in (path / "overviews").rglob("c/*/*/*/*")}
    ours, theirs = Objects.at(path), Objects.at(tmp_path / "b.zarr")
    for key in theirs.keys():  # noqa: SIM118
        if theirs.read(key) != ours.read(key):
            ours.write(key, theirs.read(key) or b"")
    levels = add_overviews(path, levels=2)
    np.testing.assert_array_equal(levels[2]["data"], halve(changed["data"].to_numpy(), how="mean", nodata=0))
    written = {found for found, when in before.items() if found.stat().st_mtime_ns != when}
    assert {found.relative_to(path / "overviews").parts[0] for found in written} == {"2", "4"}
    assert len(written) < len(before)
    add_overviews(path, levels=2)
    assert {f: f.stat().st_mtime_ns for f in before} == {f: f.stat().st_mtime_ns for f in before}


def test_wrong_wishes(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    with pytest.raises(OptionError, match="'mean'"):
        add_overviews(tmp_path / "a.zarr", how={"data": "meen"}, levels=1)  # type: ignore[dict-item]
    with pytest.raises(OptionError, match="'data'"):
        add_overviews(tmp_path / "a.zarr", how={"dota": "mean"}, levels=1)
    with pytest.raises(OptionError, match="needs no overviews"):
        add_overviews(tmp_path / "a.zarr")
    write(xr.Dataset({"data": (("y", "x"), np.zeros((8, 8)))}), tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="no CRS"):
        add_overviews(tmp_path / "b.zarr", levels=1)
