"""What a plan says, against what really is read, held and written."""

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio.shutil
import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cli import main
from cubekit.cli.scenes import build
from cubekit.cli.scenes import plan as plan_command
from cubekit.cube import reader
from cubekit.cube.composite import composite
from cubekit.cube.cost import Cost, plan
from cubekit.cube.fill import fill_gaps
from cubekit.cube.indices import add_indices
from cubekit.cube.load import open_cube
from cubekit.cube.memory import PROCESS_BYTES
from cubekit.cube.scenes import MissingAssetWarning
from cubekit.errors import CubeError, OptionError
from cubekit.grids import grid
from cubekit.testing.archive import SampleArchive
from cubekit.testing.servers import file_server

TEN = GeoBox.from_bbox((400_000, 4_400_000, 401_200, 4_400_960), "EPSG:32630", resolution=10)  # 96 x 120
TWENTY = TEN.zoom_out(2)
FAR = GeoBox.from_bbox((500_000, 4_400_000, 501_200, 4_400_960), "EPSG:32630", resolution=10)
CODED = {"scale": 1e-4, "offset": -0.1}


@pytest.fixture
def four(make_item: Any) -> list[pystac.Item]:
    """Return four scenes of one place, the longest gap being 20 days."""
    bands = {
        "red": (np.full(TEN.shape, 2000, "uint16"), TEN),
        "swir": (np.full(TWENTY.shape, 9, "uint16"), TWENTY),
    }
    dates = ("2023-05-01", "2023-05-06", "2023-05-26", "2023-06-05")
    return [make_item(date, date, bands, coding=CODED) for date in dates]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the bytes of every window that is read."""
    read: list[int] = []

    def counted(*arguments: Any) -> Any:
        values, nodata = reader.read_values(*arguments)
        read.append(values.nbytes)
        return values, nodata

    monkeypatch.setattr("cubekit.cube.ahead.read_values", counted)
    return read


@pytest.mark.parametrize("chunks", [{}, {"time": 1, "y": 50, "x": 31}, {"time": 3, "y": 96, "x": 64}])
@pytest.mark.parametrize("resolution", [10, 20])
def test_reads_are_counted_as_they_happen(
    four: list[pystac.Item], windows: list[int], chunks: Any, resolution: int
) -> None:
    box = grid(crs="EPSG:32630", resolution=resolution, bounds=TEN.boundingbox.bbox)
    cube = open_cube(four, box, chunks=chunks)
    cost = plan(cube)
    assert not windows
    cube.compute(scheduler="synchronous")
    assert cost.windows == len(windows)
    assert cost.read_bytes == pytest.approx(sum(windows), rel=0.1)  # a window ends with whole source pixels
    assert cost.requests == 0
    assert cost.blocks == cube["data"].data.npartitions == cost.tasks


def test_only_what_the_result_needs_is_counted(four: list[pystac.Item], windows: list[int]) -> None:
    cube = open_cube(four, chunks={"time": 1, "y": 48, "x": 60})
    part = composite(cube, every="10D", start="2023-05-05", end="2023-06-01").isel(x=slice(0, 50))
    cost = plan(part)
    part.compute(scheduler="synchronous")
    assert (cost.windows, cost.read_bytes) == (len(windows), sum(windows))
    assert cost.items == ("2023-05-06", "2023-05-26")
    assert set(cost.dropped) == {"2023-05-01", "2023-06-05"}
    assert cost.outputs == {"data": part["data"].nbytes, "observations": part["observations"].nbytes}


def test_items_dates_gaps_and_missing_assets(four: list[pystac.Item], make_item: Any) -> None:
    four.append(make_item("far", "2023-05-10", {"red": (np.ones(FAR.shape, "uint16"), FAR)}, coding=CODED))
    del four[1].assets["swir"]
    with pytest.warns(MissingAssetWarning):
        cost = plan(open_cube(four, TEN, on_error="record"))
    assert cost.items == ("2023-05-01", "2023-05-06", "2023-05-26", "2023-06-05")
    assert cost.dropped == ("far",)
    assert cost.missing == 1
    assert cost.gap == (np.datetime64("2023-05-06"), np.datetime64("2023-05-26"))
    shown = str(cost)
    assert "4 used, 1 not: far" in shown
    assert "longest gap 20 days (2023-05-06 to 2023-05-26)" in shown
    assert "1 assets" in shown


def test_offsets_are_told_for_each_item(make_item: Any, as_items: Any) -> None:
    values = {"B04": (np.full(TEN.shape, 2000, "uint16"), TEN)}
    items = [
        make_item(f"s{day}", f"2023-05-0{day}", values, properties={"s2:processing_baseline": baseline})
        for day, baseline in ((1, "03.01"), (2, "04.00"), (3, "05.10"))
    ]
    cost = plan(open_cube(as_items(items, "sentinel-2-l2a"), bands=["B04"]))
    assert dict(zip(cost.items, cost.shifts, strict=True)) == {"s1": 1000, "s2": 0, "s3": 0}
    assert "+0 to 2 items, +1000 to 1 items" in str(cost)


def test_a_plan_survives_what_is_done_to_a_cube(four: list[pystac.Item]) -> None:
    cube = open_cube(four, chunks={"y": 50, "x": 50})
    steps = [cube, composite(cube, every="10D")]
    steps.append(fill_gaps(steps[-1]))
    steps.append(add_indices(steps[-1].assign_attrs(common_names='{"red": "red", "swir": "nir"}'), "NDVI"))
    steps.append(pickle.loads(pickle.dumps(steps[-1])))  # noqa: S301  (our own bytes)
    costs = [plan(step, workers=3) for step in steps]
    assert len({(cost.read_bytes, cost.windows, cost.items) for cost in costs}) == 1
    peaks = [cost.peak_memory for cost in costs]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[2] < peaks[3] == peaks[4]
    both = xr.concat([cube, cube.assign_coords(band=["a", "b"])], "band")
    assert plan(both).windows == costs[0].windows  # one layer, read once


@pytest.mark.parametrize("how", ["medoid", "latest", "geomedian"])
def test_choices_with_companions_and_smooth_gaps_read_nothing_twice(
    four: list[pystac.Item], how: Any
) -> None:
    cube = open_cube(four, chunks={"y": 50, "x": 50})
    layers: Any = [] if how == "geomedian" else ["source", "age_days"]
    made = fill_gaps(composite(cube, every="10D", how=how, layers=layers), how="whittaker")
    cost, alone = plan(made, workers=3), plan(cube, workers=3)
    assert (cost.read_bytes, cost.windows) == (alone.read_bytes, alone.windows)
    assert cost.blocks == alone.blocks
    assert set(cost.outputs) == {"data", "observations", "filled", *layers}
    assert cost.peak_memory >= alone.peak_memory


def test_two_cubes_in_one_add_up(four: list[pystac.Item]) -> None:
    early, late = open_cube(four[:2], TEN), open_cube(four[2:], TEN)
    cost = plan(xr.concat([early, late], "time"))
    assert cost.items == plan(early).items + plan(late).items
    assert cost.windows == plan(early).windows + plan(late).windows


def test_memory_follows_the_stated_formula(four: list[pystac.Item]) -> None:
    cost = plan(open_cube(four), workers=3)
    area, block = 96 * 120, 4 * 2 * 96 * 120 * 2
    window = area * 2 * 2 + area  # in GDAL, as an array, and what is data
    beside = area * (4 + 2) + area * 3
    assert cost.block.working == block + window + beside
    assert cost.block.written == 2 * block
    held = max(3 * cost.block.working + cost.block.written, 4 * cost.block.written)
    assert cost.peak_memory == PROCESS_BYTES + held


def big(four: list[pystac.Item], **options: Any) -> xr.Dataset:
    """Return a cube of ten times finer pixels: 1152 x 960 m in pixels of half a metre."""
    return open_cube(four, TEN.zoom_to(resolution=0.5), **options)


@pytest.mark.parametrize("memory", ["270MB", "320MB", "700MB", "20GB"])
def test_chunks_that_fit_a_budget_stay_within_it(four: list[pystac.Item], memory: str) -> None:
    cost = plan(big(four), memory=memory, workers=2)
    again = plan(big(four, chunks=cost.fit()), memory=memory, workers=2)
    assert again.memory is not None
    assert again.peak_memory <= again.memory
    assert "is enough" in str(again)
    assert cost.fit("5GB") == cost.fit(5_000_000_000)


def test_larger_budgets_give_larger_blocks(four: list[pystac.Item]) -> None:
    cost = plan(big(four), workers=2)
    sizes = [int(np.prod(list(cost.fit(memory).values()))) for memory in ("265MB", "300MB", "1GB", "9GB")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_budgets_that_cannot_be_kept_are_refused(four: list[pystac.Item]) -> None:
    cost = plan(big(four), memory="100MB")
    with pytest.raises(OptionError, match="100 MB is too little"):
        cost.fit()
    assert "too little" in str(cost)
    with pytest.raises(OptionError, match="Which budget"):
        plan(big(four)).fit()
    with pytest.raises(OptionError, match="workers=0"):
        plan(big(four), workers=0)


def test_cubes_without_items_are_refused(four: list[pystac.Item]) -> None:
    cube = open_cube(four)
    for other in (cube.compute(), cube.compute().chunk()):
        with pytest.raises(CubeError, match="not a lazy cube over items"):
            plan(other)


def test_items_are_opened_with_the_defaults(four: list[pystac.Item]) -> None:
    assert str(plan(four)) == str(plan(open_cube(four)))


def test_requests_are_about_those_that_a_server_sees(make_item: Any, tmp_path: Path) -> None:
    box = GeoBox.from_bbox((400_000, 4_400_000, 420_480, 4_420_480), "EPSG:32630", resolution=10)  # 2048²
    values = np.random.default_rng(0).integers(1, 9000, box.shape.yx).astype("uint16")
    item = make_item("a", "2023-05-01", {"red": (values, box)})
    path = tmp_path / "cog.tif"
    rasterio.shutil.copy(item.assets["red"].href, path, driver="COG", blocksize=512, overviews="none")
    with file_server(tmp_path) as server:
        item.assets["red"].href = f"{server.url}/{path.name}"
        cube = open_cube([item], chunks={"y": 1024, "x": 1024})
        cost = plan(cube)
        cube.compute(scheduler="synchronous")
        seen = sum(entry["method"] == "GET" for entry in server.requests())
    assert seen / 2 <= cost.requests <= seen * 2


def test_the_command_takes_what_build_takes(
    sample_archive: SampleArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = (set(inspect.signature(f).parameters) for f in (plan_command, build))
    assert theirs - ours == {"out", "layout", "overwrite", "append"}
    options = ["--bands", "red,nir", "--mask", "clouds", "--every", "1MS", "--fill", "linear"]
    assert main(["--quiet", "plan", str(sample_archive.items), *options, "--memory", "4GB"]) == 0
    shown = capsys.readouterr().out
    assert "24 used" in shown
    assert "4 GB is enough" in shown
    assert isinstance(cubekit.plan(cubekit.open_items(sample_archive.items)), Cost)
