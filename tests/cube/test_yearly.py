"""Year-per-file archives, zones, and the published files, against rasterio and NumPy."""

import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

import cubekit as ck
from cubekit.cube.contract import geobox_of
from cubekit.cube.yearly import (
    fill_nearest,
    open_yearly,
    read_mask,
    read_yearly_npz,
    with_zones,
    zone_mask,
    zones_of,
)
from cubekit.errors import ArchiveError, CubeError, OptionError, SecurityError
from cubekit.typing import Array


def write(path: Path, values: Array, **options: Any) -> Path:
    """Write a GeoTIFF of one band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": values.dtype,
        "crs": "EPSG:32650", "transform": from_origin(500_000, 4_400_000, 30, 30), **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two indices and two zones, four years; the mine is the left half of the buffer."""
    dice = np.random.default_rng(0)
    for index in ("NDVI", "EVI"):
        for zone in ("buffer", "mine"):
            for year in range(2001, 2005):
                values = dice.uniform(0.1, 0.9, (6, 8)).astype("float32")
                values[0, 0] = -9999
                values[5] = 0
                if zone == "mine":
                    values[:, 4:] = 0
                write(tmp_path / zone / index / f"Landsat_{index}_{year}.tif", values, nodata=-9999)
    return tmp_path


def test_years_indices_and_zones_are_told_apart(archive: Path) -> None:
    cube = open_yearly(archive, ["NDVI", "EVI"], zone="buffer", outside=0)
    assert cube["band"].to_numpy().tolist() == ["NDVI", "EVI"]
    assert cube["time"].dt.year.to_numpy().tolist() == [2001, 2002, 2003, 2004]
    for place, index in enumerate(("NDVI", "EVI")):
        with rasterio.open(archive / "buffer" / index / f"Landsat_{index}_2003.tif") as file:
            expected = file.read(1)
        expected[(expected == 0) | (expected == -9999)] = np.nan
        np.testing.assert_array_equal(cube["data"][2, place], expected)
    one = open_yearly(archive / "mine" / "EVI", "EVI")
    assert float(one["data"][0, 0, 5, 0]) == 0  # a number like any other unless it is said to mean outside


def test_holes_are_refused_or_become_empty_years(archive: Path) -> None:
    (archive / "mine/EVI/Landsat_EVI_2002.tif").unlink()
    with pytest.raises(ArchiveError, match=r"missing \[2002\]"):
        open_yearly(archive, "EVI", zone="mine")
    cube = open_yearly(archive, "EVI", zone="mine", missing="nan")
    assert cube["time"].dt.year.to_numpy().tolist() == [2001, 2002, 2003, 2004]
    assert bool(cube["data"][1].isnull().all())
    assert not bool(cube["data"][2].isnull().all())
    (archive / "mine/EVI/Landsat_EVI_2001.tif").unlink()
    with pytest.raises(CubeError, match="other years"):
        open_yearly(archive, ["NDVI", "EVI"], zone="mine", missing="nan")


def test_years_in_doubt_are_refused(archive: Path) -> None:
    with pytest.raises(ArchiveError, match="several files of index 'NDVI' for 2001"):
        open_yearly(archive, "NDVI")
    with pytest.raises(ArchiveError, match="not there"):
        open_yearly(archive, "SAVI")
    write(archive / "mine/NDVI/Landsat_NDVI_early.tif", np.ones((6, 8), "float32"))
    with pytest.raises(ArchiveError, match=r"no year in their names.*early"):
        open_yearly(archive, "NDVI", zone="mine")
    cube = open_yearly(archive, "NDVI", pattern="mine/NDVI/*_{date:%Y}.tif")
    assert cube.sizes["time"] == 4


def test_the_year_is_a_group_of_exactly_four_digits(tmp_path: Path) -> None:
    for year in (2001, 2002):
        write(tmp_path / f"LC0{year}030_NDVI_{year}_v1999.tif", np.ones((4, 4), "float32"))
    assert open_yearly(tmp_path, "NDVI")["time"].dt.year.to_numpy().tolist() == [2001, 2002]


def test_zones_are_what_is_not_exactly_zero_and_live_in_the_store(archive: Path) -> None:
    cube = open_yearly(archive, "NDVI", zone="buffer", outside=0)
    mine = archive / "mine/NDVI/Landsat_NDVI_2001.tif"
    with rasterio.open(mine) as file:
        values = file.read(1)
    expected = (values != 0) & (values != -9999)
    np.testing.assert_array_equal(zone_mask(mine, cube), expected)
    stored = ck.write(with_zones(cube, {"mine": mine}), archive / "cube.zarr", progress=False)
    assert stored["zone_mine"].dtype == bool
    np.testing.assert_array_equal(zones_of(ck.open(archive / "cube.zarr"))["mine"], expected)
    with pytest.raises(OptionError, match="shape"):
        with_zones(cube, {"mine": np.ones((2, 2), bool)})
    empty = write(archive / "none.tif", np.zeros((6, 8), "float32"))
    with pytest.raises(ArchiveError, match="no pixel"):
        zone_mask(empty, cube)


def test_gaps_are_filled_from_the_nearest_pixel_of_the_year(archive: Path) -> None:
    cube = open_yearly(archive, "NDVI", zone="buffer", outside=0)
    inside = xr.DataArray(np.ones((6, 8), bool), dims=("y", "x"))
    inside[5] = False
    filled = fill_nearest(cube, inside)["data"].to_numpy()[:, 0]
    before = cube["data"].to_numpy()[:, 0]
    assert np.isnan(filled[:, 5]).all()
    assert all(filled[i, 0, 0] in {before[i, 0, 1], before[i, 1, 0]} for i in range(4))
    known = np.isfinite(before)
    np.testing.assert_array_equal(filled[known], before[known])


def test_published_maps_are_read_without_running_anything(archive: Path) -> None:
    grid = open_yearly(archive, "NDVI", zone="buffer")
    maps = np.random.default_rng(1).random((3, 6, 8)).astype("float32")
    valid = maps > 0.2
    np.savez(archive / "NDVI.npz", data=maps, valid_mask=valid, years=[2003, 2001, 2002], num_times=3)
    cube = read_yearly_npz(archive / "NDVI.npz", "NDVI", like=grid)
    assert geobox_of(cube) == geobox_of(grid)
    np.testing.assert_array_equal(cube["data"][0, 0], np.where(valid[1], maps[1], np.nan))
    np.savez(archive / "hole.npz", data=maps, valid_mask=valid, years=[2001, 2002, 2004])
    with pytest.raises(ArchiveError, match="2003"):
        read_yearly_npz(archive / "hole.npz", "NDVI", like=grid)
    np.savez(archive / "objects.npz", data=np.array([{}], object), valid_mask=valid, years=[1, 2, 3])
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_yearly_npz(archive / "objects.npz", "NDVI", like=grid)
    np.savez(archive / "less.npz", data=maps, years=[2001, 2002, 2003])
    with pytest.raises(ArchiveError, match="valid_mask"):
        read_yearly_npz(archive / "less.npz", "NDVI", like=grid)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["uint8", ">i2"])
def test_a_published_mask_is_read_from_every_protocol(
    tmp_path: Path, protocol: int, order: Literal["C", "F"], kind: str
) -> None:
    mask = np.where(np.arange(30).reshape(5, 6) % 4 == 0, 255, 0).astype(kind, order=order)
    path = tmp_path / "mask.pkl"
    path.write_bytes(pickle.dumps({"mask": mask, "original_shape": mask.shape}, protocol=protocol))
    np.testing.assert_array_equal(read_mask(path), mask == 0)


class Hostile:
    """Would make a file if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


class Evaluated:
    """Would run a text if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"__import__('pathlib').Path({str(self.target)!r}).touch()",))


@pytest.mark.parametrize("kind", [Hostile, Evaluated])
def test_a_hostile_mask_runs_nothing(tmp_path: Path, kind: Any) -> None:
    target, path = tmp_path / "ran", tmp_path / "mask.pkl"
    inside = {"mask": np.zeros((2, 2), "uint8"), "original_shape": (2, 2), "more": kind(target)}
    path.write_bytes(pickle.dumps(inside))
    with pytest.raises(SecurityError, match="Nothing was run"):
        read_mask(path)
    assert not target.exists()


def test_other_arrays_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.pkl"
    path.write_bytes(pickle.dumps({"mask": np.array([[Path(), None]], object)}))
    with pytest.raises(SecurityError):
        read_mask(path)
    path.write_bytes(pickle.dumps({"mask": np.zeros((2, 2), "uint8")})[:-20])
    with pytest.raises(SecurityError, match="no pickle of arrays"):
        read_mask(path)
    # an array made by calling its class; a type with fields of its own; a shape that the bytes do not fill
    path.write_bytes(b"cnumpy\nndarray\n((I1000000000\nI1000000000\nttR.")
    with pytest.raises(SecurityError, match="way that NumPy does not"):
        read_mask(path)
    path.write_bytes(pickle.dumps(np.zeros(3, [("a", "u1"), ("b", "f4")])))
    with pytest.raises(SecurityError, match="booleans or numbers"):
        read_mask(path)
    whole = pickle.dumps({"mask": np.zeros((2, 3), "uint8")}, protocol=2)
    path.write_bytes(whole.replace(b"K\x02K\x03", b"K\x63K\x63"))
    with pytest.raises(SecurityError, match="reshape"):
        read_mask(path)
    np.testing.assert_array_equal(np.arange(3, dtype="uint8"), [0, 1, 2])  # NumPy's own types are unhurt
    path.write_bytes(pickle.dumps({"mask": np.full((2, 2), 7, "uint8")}))
    with pytest.raises(ArchiveError, match="0 inside and 255 outside"):
        read_mask(path)


@pytest.mark.shared
def test_the_real_stacks_open(shared: Path) -> None:
    folder = shared / "data" / "modis_mod13q1_sinop_2000_2017" / "annual_max"
    cube = open_yearly(folder, ["NDVI", "EVI"], scale=1e-4)
    with rasterio.open(folder / "EVI_max_2010.tif") as file:
        expected = file.read(1) * np.float32(1e-4)
    np.testing.assert_allclose(cube["data"].sel(band="EVI", time="2010")[0], expected, rtol=1e-6)
