from pathlib import Path

import numpy as np
import odc.geo.xr
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from cubekit.errors import LabelError, OptionError, UnknownNameError
from cubekit.labels import class_table, load_labels

GRID = GeoBox.from_bbox((500_000, 5_000_000, 500_400, 5_000_300), "EPSG:32633", resolution=10)


def codes_on(grid: GeoBox, seed: int = 0) -> xr.DataArray:
    """Patches of the codes 3, 7 and 200."""
    rough = np.random.default_rng(seed).choice([3, 7, 200], (grid.shape.y // 5 + 1, grid.shape.x // 5 + 1))
    values = np.kron(rough, np.ones((5, 5), int))[: grid.shape.y, : grid.shape.x].astype("uint8")
    return odc.geo.xr.wrap_xr(values, grid)


def write_tif(path: Path, codes: xr.DataArray, nodata: float | None = None) -> Path:
    box = codes.odc.geobox
    with rasterio.open(
        path, "w", driver="GTiff", height=box.shape.y, width=box.shape.x, count=1, dtype=codes.dtype,
        crs=str(box.crs), transform=box.transform, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(codes.to_numpy(), 1)
    return path


def test_codes_become_indices_in_the_order_given() -> None:
    codes = codes_on(GRID)
    labels = load_labels(codes, GRID, classes={200: "x", 3: "y", 7: "z"})
    assert class_table(labels).names == ("x", "y", "z")
    np.testing.assert_array_equal(np.array([200, 3, 7])[labels["label"]], codes)


def test_without_classes_the_codes_are_the_names() -> None:
    table = class_table(load_labels(codes_on(GRID), GRID, ignore=[7]))
    assert table.names == ("3", "200")
    assert table.codes == (3, 200)


def test_nearest_neighbour_agrees_with_rasterio(tmp_path: Path) -> None:
    source = GeoBox.from_bbox((14.99, 45.14, 15.02, 45.17), "EPSG:4326", resolution=0.0002)
    codes = codes_on(source)
    path = write_tif(tmp_path / "codes.tif", codes, nodata=7)
    expected = np.zeros(GRID.shape, "uint8")
    reproject(
        codes.to_numpy(), expected, src_transform=source.transform, src_crs="EPSG:4326",
        dst_transform=GRID.transform, dst_crs="EPSG:32633", resampling=Resampling.nearest,
    )  # fmt: skip
    expected[expected == 7] = 0
    for labels in (load_labels(path, GRID), load_labels(codes, GRID, ignore=[7])):
        found = np.array([0, 3, 200])[labels["label"].to_numpy() + 1]
        assert (found > 0).any()
        assert (found != expected).mean() < 0.005  # ties at cell edges


def test_groups_are_connected_patches_of_one_class() -> None:
    values = np.array([[3, 3, 7, 3], [7, 7, 3, 7], [3, 7, 7, 3]], "uint8")
    grid = GeoBox.from_bbox((500_000, 5_000_000, 500_040, 5_000_030), "EPSG:32633", resolution=10)
    labels = load_labels(odc.geo.xr.wrap_xr(values, grid), grid)
    np.testing.assert_array_equal(labels["group"], [[0, 0, 2, 0], [2, 2, 0, 2], [1, 2, 2, 0]])


def test_float_codes_with_nan_are_read() -> None:
    codes = codes_on(GRID).astype("float32")
    codes[:10] = np.nan
    labels = load_labels(codes, GRID)
    assert (labels["label"] == -1).sum() == 400
    with pytest.raises(LabelError, match="whole numbers"):
        load_labels(codes + 0.5, GRID)


def test_cf_flags_name_the_classes() -> None:
    codes = codes_on(GRID).assign_attrs(flag_values=[3, 7, 200], flag_meanings="water sand rock")
    assert class_table(load_labels(codes, GRID)).names == ("water", "sand", "rock")


def test_unknown_codes_are_named() -> None:
    with pytest.raises(LabelError, match=r"7, 200.*ignore"):
        load_labels(codes_on(GRID), GRID, classes={3: "water"})


def test_elsewhere_names_both_extents(tmp_path: Path) -> None:
    far = codes_on(GeoBox.from_bbox((0, 0, 1, 1), "EPSG:4326", resolution=0.1))
    for source in (far, write_tif(tmp_path / "far.tif", far)):
        with pytest.raises(LabelError, match=r"\(0, 0, 1, 1\).*\(15"):
            load_labels(source, GRID)


def test_refusals(tmp_path: Path) -> None:
    codes = codes_on(GRID)
    with pytest.raises(OptionError, match="raster"):
        load_labels(codes, GRID, inward=20)
    with pytest.raises(LabelError, match="CRS"):
        load_labels(xr.DataArray(codes.to_numpy(), dims=("y", "x")), GRID)
    with pytest.raises(OptionError, match="'water'"):
        load_labels(codes, GRID, ignore=["water"])
    with pytest.raises(LabelError, match="ignored"):
        load_labels(codes, GRID, ignore=[3, 7, 200])
    with pytest.raises(LabelError, match="No label file"):
        load_labels(tmp_path / "nowhere.tif", GRID)


def test_variable_of_a_netcdf_file_is_chosen_by_name(tmp_path: Path) -> None:
    codes = codes_on(GRID)
    both = xr.Dataset({"landcover": codes, "croptype": codes + 1})
    both.to_netcdf(tmp_path / "both.nc")
    labels = load_labels(tmp_path / "both.nc", GRID, column="croptype")
    assert class_table(labels).codes == (4, 8, 201)
    with pytest.raises(UnknownNameError, match="'landcover'"):
        load_labels(tmp_path / "both.nc", GRID, column="landcove")
    both[["landcover"]].to_netcdf(tmp_path / "one.nc")
    assert class_table(load_labels(tmp_path / "one.nc", GRID)).codes == (3, 7, 200)


@pytest.mark.shared
def test_flanders_land_cover_on_its_own_grid(shared: Path) -> None:
    path = next((shared / "data/s2_l8_s1_flanders_patch").glob("OUTPUT_POLY-110_10m_*.nc"))
    with xr.open_dataset(path, mask_and_scale=False, decode_coords="all") as source:
        codes = source["LC"].load()
    classes = {11: "cropland", 13: "grassland", 60: "built-up", 99: "no cropland"}
    labels = load_labels(path, codes, column="LC", classes=classes, ignore=[0])
    np.testing.assert_array_equal(np.array([*classes])[labels["label"]], codes)
    counts = np.bincount(labels["label"].to_numpy().ravel())
    assert counts.tolist() == [1401, 835, 107, 1753]
