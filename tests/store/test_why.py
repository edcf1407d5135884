"""Where a pixel is from, checked against the files themselves."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import cubekit
from cubekit.cli import main
from cubekit.errors import CubeError
from cubekit.sources.items import Items
from cubekit.store.write import write
from cubekit.testing.archive import SampleArchive

MASKED = {0, 1, 8, 9, 10}
"""Scene classes that mask "clouds" of Sentinel-2 takes out, with those that are never data."""


@pytest.fixture(scope="module")
def items(sample_archive: SampleArchive) -> Items:
    """Return the scenes of the sample archive."""
    return cubekit.open_items(sample_archive.items, collection="sentinel-2-l2a")


@pytest.fixture(scope="module")
def box(items: Items) -> GeoBox:
    """Return a small grid in the overlap of two tiles."""
    found = cubekit.open_cube(items[:2], bands=["B04"]).odc.geobox[40:88, 100:148]
    assert isinstance(found, GeoBox)
    return found


def at(path: str, x: float, y: float) -> int | None:
    """Return the number of a file at a place, None outside."""
    with rasterio.open(path) as file:
        row, col = file.index(x, y)
        inside = 0 <= row < file.height and 0 <= col < file.width
        return int(file.read(1)[row, col]) if inside else None


def test_scenes_masks_and_offsets_are_those_of_the_files(
    items: Items, box: GeoBox, memory_path: Path
) -> None:
    cube = cubekit.open_cube(items, box, bands=["B04", "B08"], mask="clouds")
    stored = write(cube, memory_path / "a.zarr")
    draw = np.random.default_rng(3)
    verdicts = set[str]()
    for _ in range(40):
        step, row, col = int(draw.integers(stored.sizes["time"])), *map(int, draw.integers(0, 48, 2))
        x, y = float(stored.x[col]), float(stored.y[row])
        answer = cubekit.why(stored, x=x, y=y, time=stored["time"].values[step])
        assert (answer.row, answer.col) == (row, col)
        held = stored["data"].values[step, :, row, col]
        assert list(answer.values.values()) == [None if v == 0 else float(v) for v in held]
        free = True
        for scene in answer.scenes:
            code = at(scene.hrefs["quality"], x, y)
            number = at(scene.hrefs["B04"], x, y)
            assert scene.quality == code
            expected = "masked" if code in MASKED else "used" if free else "below"
            assert scene.verdict == expected
            assert scene.stored["B04"] == number
            if expected == "used":
                free = False
                assert number is not None
                assert held[0] == number + scene.shift
                assert scene.coded["B04"] == held[0]
            verdicts.add(expected)
        assert free == (held[0] == 0)
    assert verdicts == {"masked", "used", "below"}


def test_text_names_scene_class_offset_and_versions(
    items: Items, box: GeoBox, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cube = cubekit.composite(cubekit.open_cube(items, box, bands=["B04"], mask="clouds"), every="QS")
    write(cubekit.fill_gaps(cube), memory_path / "a.zarr")
    x, y = float(cube.x[3]), float(cube.y[4])
    assert main(["why", str(memory_path / "a.zarr"), f"--x={x}", f"--y={y}", "--time=2023-01"]) == 0
    said = capsys.readouterr().out
    assert "then       composite(" in said
    assert "then       fill_gaps(how=linear)" in said
    assert items[0].id in said
    assert f"rasterio {rasterio.__version__}" in said
    assert "+1000 added" in said
    assert ("vegetation" in said) or ("cloud" in said) or ("not vegetated" in said)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    east, north = to_degrees.transform(x, y)
    answer = cubekit.why(memory_path / "a.zarr", x=east, y=north, time="2023-01", crs="EPSG:4326")
    assert (answer.row, answer.col) == (4, 3)


def test_places_and_dates_that_are_not_there(items: Items, box: GeoBox) -> None:
    cube = cubekit.open_cube(items[:4], box, bands=["B04"])
    x, y = float(cube.x[3]), float(cube.y[4])
    assert cubekit.why(cube, x=x, y=y, time="2023-01").plan == ""
    with pytest.raises(CubeError, match="is outside the cube"):
        cubekit.why(cube, x=0, y=0, time="2023-01")
    with pytest.raises(CubeError, match=r"no date '2024-05'; the nearest is 2023-02"):
        cubekit.why(cube, x=x, y=y, time="2024-05")
    with pytest.raises(CubeError, match="has 2 dates"):
        cubekit.why(cube, x=x, y=y, time="2023")
    with pytest.raises(CubeError, match="Which date"):
        cubekit.why(cube, x=x, y=y)
    with pytest.raises(CubeError, match="not known from which scenes"):
        cubekit.why(cube.load(), x=x, y=y, time="2023-01")


def test_a_file_that_is_gone_is_listed_as_unreadable(items: Items, box: GeoBox, memory_path: Path) -> None:
    stored = write(cubekit.open_cube(items[:2], box, bands=["B04"]), memory_path / "a.zarr")
    x, y = float(stored.x[3]), float(stored.y[4])
    asset = Path(cubekit.why(stored, x=x, y=y).scenes[0].hrefs["B04"])
    aside = asset.rename(asset.with_suffix(".gone"))
    try:
        answer = cubekit.why(stored, x=x, y=y)
    finally:
        aside.rename(asset)
    assert answer.scenes[0].verdict == "unreadable"
    assert "Cannot read" in str(answer)
    assert answer.values["B04"] == float(stored["data"].values[0, 0, 4, 3])
