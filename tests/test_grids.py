from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros
from pyproj import Transformer

from cubekit.errors import GridError, OptionError
from cubekit.grids import grid, utm_zone


def test_pixel_edges_fall_on_multiples_of_the_resolution() -> None:
    box = grid(crs="EPSG:32630", resolution=30, bounds=(440_001, 4_460_001, 440_299, 4_460_500))
    assert box.transform.c % 30 == 0
    assert box.transform.f % 30 == 0
    left, bottom, right, top = box.boundingbox.bbox
    assert left <= 440_001 < left + 30
    assert right - 30 < 440_299 <= right
    assert bottom <= 4_460_001
    assert top >= 4_460_500


def test_pixel_centres_on_request() -> None:
    box = grid(crs=32630, resolution=10, bounds=(0, 0, 100, 100), anchor="center")
    assert (box.transform.c + 5) % 10 == 0


def test_grid_from_degrees_covers_every_corner_and_edge() -> None:
    west, south, east, north = 5.0, 50.0, 9.0, 52.0
    box = grid(crs="EPSG:3035", resolution=1000, bbox=(west, south, east, north))
    along = np.linspace(0, 1, 300)
    lon = np.concatenate([west + along * (east - west)] * 2)
    lat = np.concatenate([np.full(300, south), np.full(300, north)])
    x, y = Transformer.from_crs(4326, 3035, always_xy=True).transform(lon, lat)
    left, bottom, right, top = box.boundingbox.bbox
    hair = 10  # a hundredth of a pixel is not worth another row
    assert left <= x.min() + hair
    assert x.max() <= right + hair
    assert bottom <= y.min() + hair
    assert y.max() <= top + hair


@pytest.mark.parametrize(
    ("place", "epsg"),
    [((-3.7, 40.4), 32630), ((0.0, 0.0), 32631), ((-180, 10), 32601), ((180, -10), 32760), ((3, 85), 32661)],
)
def test_utm_zone_of_a_place(place: tuple[float, float], epsg: int) -> None:
    assert utm_zone(*place).epsg == epsg


def test_crs_defaults_to_the_utm_zone_of_the_area() -> None:
    assert grid(resolution=10, bbox=(-3.71, 40.40, -3.70, 40.41)).crs == "EPSG:32630"


def test_geometry_is_covered_by_its_bounds() -> None:
    shape = shapely.Point(-3.7, 40.4).buffer(0.01)
    box = grid(resolution=10, geometry=shape)
    assert box.shape == grid(resolution=10, geometry=shapely.geometry.mapping(shape)).shape
    corners = shapely.get_coordinates(shape)
    x, y = Transformer.from_crs(4326, str(box.crs), always_xy=True).transform(*corners.T)
    left, bottom, right, top = box.boundingbox.bbox
    hair = 0.1  # a hundredth of a pixel is not worth another row
    assert left - hair < x.min() < left + 11
    assert right - 11 < x.max() < right + hair
    assert bottom - hair < y.min() < bottom + 11
    assert top - 11 < y.max() < top + hair


def test_like_takes_the_pixels_of_a_file_and_cuts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    transform = rasterio.Affine(10, 0, 440_003, 0, -10, 4_460_007)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32630", "transform": transform}
    with rasterio.open(path, "w", width=50, height=40, **profile):
        pass
    whole = grid(like=path)
    assert whole.shape == (40, 50)
    assert whole.transform == transform
    part = grid(like=path, bounds=(440_020, 4_459_900, 440_040, 4_459_950))
    assert (part.transform.c - transform.c) % 10 == 0
    assert part.boundingbox.left <= 440_020
    assert part.boundingbox.right >= 440_040
    assert part.shape == (6, 3)


def test_like_a_cube_and_like_a_grid() -> None:
    box = GeoBox.from_bbox((0, 0, 100, 50), "EPSG:32630", resolution=10)
    assert grid(like=box) == box
    assert grid(like=xr_zeros(box).to_dataset(name="data")) == box


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bbox": (1, 1, 1, 2)}, "no area"),
        ({"bbox": (1, 2, 3, 1)}, "swapped"),
        ({"bbox": (179, 1, -179, 2)}, "180° meridian"),
        ({"bbox": (170, 1, 190, 2)}, "180° meridian"),
        ({"bbox": (40, 100, 41, 101)}, "100.0 to 101.0 are outside -90 to 90"),
        ({"bbox": (40.2, 103.0, 40.6, 104.0)}, "latitude and longitude look swapped"),
        ({"bbox": (float("nan"), 0, 1, 1)}, "finite"),
        ({"bounds": (5, 5, 4, 6), "crs": "EPSG:32630"}, "swapped"),
        ({"crs": "EPSG:999999", "bbox": (0, 0, 1, 1)}, "'EPSG:999999' is not a known"),
        ({"geometry": shapely.Point()}, "empty"),
        ({"resolution": 0, "bbox": (0, 0, 1, 1)}, "finite and not zero"),
        ({"like": "no/such.tif"}, "cannot be read as a raster"),
    ],
)
def test_unreasonable_areas_are_refused(arguments: dict[str, object], message: str) -> None:
    options = {"resolution": 10} | arguments
    if "like" in options:
        del options["resolution"]
    with pytest.raises(GridError, match=message):
        grid(**options)  # type: ignore[arg-type]


def test_huge_grids_are_refused_with_size_and_a_resolution_that_works() -> None:
    with pytest.raises(GridError, match=r"1,200,000 x 3,600,000 pixels.*resolution=0\.0036") as caught:
        grid(crs="EPSG:4326", resolution=0.0001, bbox=(-180, -60, 180, 60))
    suggested = float(str(caught.value).split("resolution=")[1].split(" ")[0])
    assert grid(crs="EPSG:4326", resolution=suggested, bbox=(-180, -60, 180, 60)).shape.x == 100_000


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"resolution": 10},
        {"resolution": 10, "bbox": (0, 0, 1, 1), "geometry": shapely.box(0, 0, 1, 1)},
        {"bbox": (0, 0, 1, 1)},
        {"resolution": 10, "bounds": (0, 0, 1, 1)},
        {"like": xr.Dataset(), "resolution": 10},
        {"resolution": 10, "bbox": (0, 0, 1, 1), "anchor": "centre"},
    ],
)
def test_contradictions_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises((OptionError, GridError)):
        grid(**arguments)  # type: ignore[arg-type]


def test_a_dataset_without_grid_is_refused() -> None:
    with pytest.raises(GridError, match="Dataset has no regular grid"):
        grid(like=xr.Dataset({"data": ("x", [1.0])}))


def test_a_grid_is_not_taken_from_a_file_that_opens_others(tmp_path: Path) -> None:
    (tmp_path / "looks_like.tif").write_text(
        """<VRTDataset rasterXSize="2" rasterYSize="2"><SRS>EPSG:32630</SRS>
        <GeoTransform>400000,10,0,4400530,0,-10</GeoTransform></VRTDataset>"""
    )
    with pytest.raises(GridError, match="cannot be read as a raster of GTiff"):
        grid(like=tmp_path / "looks_like.tif")
