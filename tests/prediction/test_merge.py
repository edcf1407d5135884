"""Maps of tiles as one map, against rasterio's merge."""

import numpy as np
import pytest
import rasterio.merge
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.io import MemoryFile

import cubekit as ck
from cubekit.errors import CubeError, GridError, OptionError
from cubekit.labels import ClassTable

TILES = ("3655-7318-14", "3656-7318-14", "3656-7319-14")


def tile_map(grid: GeoBox, seed: int, *, lazy: bool = True) -> xr.Dataset:
    """Give classes and probabilities with a few pixels of nodata."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, grid.shape).astype("uint8")
    values[rng.random(grid.shape) < 0.05] = 255
    shares = rng.integers(0, 250, (3, *grid.shape)).astype("uint8")
    shares[:, values == 255] = 255
    attrs = {"_FillValue": np.uint8(255), "grid_mapping": "spatial_ref"}
    made = xr.Dataset(
        {
            "class": (("y", "x"), values, attrs | ClassTable.of(["a", "b", "c"]).attrs()),
            "probability": (("category", "y", "x"), shares, attrs | {"scale_factor": 1 / 250}),
        },
        xr_coords(grid, always_yx=True) | {"category": ["a", "b", "c"]},
        {"model": "conv1d"},
    )
    return made.chunk(y=50, x=50) if lazy else made


def test_tiles_lie_where_web_maps_have_them() -> None:
    # The tile of the Eiffel tower at zoom 16, https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames
    found = ck.grid(crs="EPSG:3857", resolution=1, tiles=["33194-22546-16"])
    side = 2 * 20037508.342789244 / 2**16
    left, top = 33194 * side - 20037508.342789244, 20037508.342789244 - 22546 * side
    box = found.extent.boundingbox
    np.testing.assert_allclose((box.left, box.top), (left, top), atol=1.01)
    np.testing.assert_allclose((box.span_x, box.span_y), side, atol=2.01)
    for wrong in ("1-1", "4-0-2", "a-b-c"):
        with pytest.raises(GridError, match="expected x-y-zoom"):
            ck.grid(crs="EPSG:3857", resolution=1, tiles=[wrong])


def test_tiles_meet_on_one_grid_as_rasterio_merges_them() -> None:
    grids = [ck.grid(crs="EPSG:6362", resolution=30, tiles=[name]) for name in TILES]
    maps = [tile_map(grid, seed) for seed, grid in enumerate(grids)]
    merged = ck.merge_maps(maps)
    assert merged["class"].chunks
    assert merged.odc.geobox == ck.grid(crs="EPSG:6362", resolution=30, tiles=TILES)
    files = []
    for each in maps:
        grid, values = each.odc.geobox, each["class"].to_numpy()
        file = MemoryFile().open(
            driver="GTiff", height=grid.shape.y, width=grid.shape.x, count=1, dtype="uint8", nodata=255,
            crs=str(grid.crs), transform=grid.affine,
        )  # fmt: skip
        file.write(values, 1)
        files.append(file)
    expected, transform = rasterio.merge.merge(files)
    assert transform.almost_equals(merged.odc.geobox.affine, precision=1e-6)
    np.testing.assert_array_equal(merged["class"], expected[0])
    assert merged["class"].dtype == merged["probability"].dtype == "uint8"
    assert (merged["probability"].to_numpy()[:, expected[0] == 255] == 255).all()
    assert merged["class"].attrs["classes"] == maps[0]["class"].attrs["classes"]


def test_maps_that_do_not_fit_are_refused() -> None:
    grid = GeoBox.from_bbox((0, 0, 100, 100), "EPSG:32631", resolution=10)
    first = tile_map(grid, 0, lazy=False)
    shifted = tile_map(GeoBox.from_bbox((3, 0, 103, 100), "EPSG:32631", resolution=10, anchor="floating"), 0)
    with pytest.raises(CubeError, match="map 2 do not fall on"):
        ck.merge_maps([first, shifted])
    with pytest.raises(CubeError, match="layers"):
        ck.merge_maps([first, first.drop_vars("probability")])
    other = first.copy()
    other["class"] = other["class"].assign_attrs(ClassTable.of(["a", "b", "d"]).attrs())
    with pytest.raises(CubeError, match="classes of 'class'"):
        ck.merge_maps([first, other])
    with pytest.raises(OptionError, match="no map"):
        ck.merge_maps([])
    xr.testing.assert_equal(ck.merge_maps([first]).drop_vars("spatial_ref"), first.drop_vars("spatial_ref"))
