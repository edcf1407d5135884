"""Composites made straight from scenes, against those of the whole cube: the same to the last bit."""

import datetime as dt
import itertools
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cubekit.cube.composite import composite
from cubekit.cube.contract import MAIN
from cubekit.cube.cost import plan
from cubekit.cube.direct import SIDE, Direct, _cut
from cubekit.cube.fuse import FailedReadWarning
from cubekit.cube.kernels import REDUCTIONS
from cubekit.cube.load import open_cube
from cubekit.cube.reader import read_values
from cubekit.cube.recipe import plans_in, readers_in
from cubekit.cube.scenes import MissingAssetWarning
from cubekit.errors import SourceError
from cubekit.store.write import write
from cubekit.testing.servers import file_server

Array = npt.NDArray[Any]
GRID = GeoBox.from_bbox((400_000, 4_400_000, 400_400, 4_400_300), "EPSG:32630", resolution=10)  # 30 x 40
NAMES = itertools.count()
DAYS = ("2022-05-09", "2023-05-03", "2023-05-20", "2023-05-29", "2023-07-02", "2024-05-05")

FAULTS = ("", "", "", "red lost", "", "nir cut", "", "clouds cut", "all cloud", "", "", "")
SCENES = len(FAULTS)


@pytest.fixture
def scenes(make_item: Any) -> list[Any]:
    """Return scenes of six dates, of two baselines, with overlaps and faults."""
    rng = np.random.default_rng(1)
    drawn = [
        (DAYS[n % len(DAYS)], n, ["05.10", "03.01"][n % 3 == 1], rng.integers(0, 8, 2).tolist(), n, fault)
        for n, fault in enumerate(FAULTS)
    ]
    return [make_scene(make_item, scene) for scene in drawn]


def make_scene(make_item: Any, drawn: Any) -> Any:
    day, hour, baseline, (top, left), seed, fault = drawn
    rng = np.random.default_rng(seed)
    fine = GRID[2 * top : 2 * top + 16, 2 * left : 2 * left + 24]
    coarse = fine.zoom_out(2)
    red = rng.integers(1, 9000, fine.shape).astype("uint16")
    nir = rng.integers(1, 9000, coarse.shape).astype("uint16")
    red[rng.random(red.shape) < 0.3] = 0
    nir[rng.random(nir.shape) < 0.3] = 0
    codes = rng.choice([4, 8], coarse.shape).astype("uint8")
    if fault == "all cloud":
        codes[:] = 8
    bands = {"B04": (red, fine), "B8A": (nir, coarse), "SCL": (codes, coarse)}
    if fault == "red lost":
        del bands["B04"]
    when = (dt.datetime.fromisoformat(day) + dt.timedelta(hours=hour)).isoformat()
    item = make_item(f"S{next(NAMES)}", when, bands, properties={"s2:processing_baseline": baseline})
    for name, key in (("nir cut", "B8A"), ("clouds cut", "SCL")):
        if fault == name:
            Path(item.assets[key].href).write_bytes(b"II*\0 cut off")
    return item


def computed(cube: xr.Dataset) -> tuple[dict[str, Array], set[str]]:
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        found = cube.compute(scheduler="synchronous")
    said = {str(warning.message) for warning in noted if issubclass(warning.category, FailedReadWarning)}
    return {str(name): variable.to_numpy() for name, variable in found.data_vars.items()}, said


def is_direct(cube: xr.Dataset) -> bool:
    graph = HighLevelGraph.merge(*(v.data.dask for v in cube.data_vars.values() if v.chunks))
    return any(isinstance(reader, Direct) for reader in readers_in(graph).values())


def both(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[xr.Dataset, xr.Dataset]:
    made = composite(cube, **options)
    with monkeypatch.context() as patch:
        patch.setenv("CUBEKIT_DIRECT", "0")
        whole = composite(cube, **options)
    assert is_direct(made)
    assert not is_direct(whole)
    assert made.drop_vars(["data", "observations"]).identical(whole.drop_vars(["data", "observations"]))
    assert made[MAIN].attrs == whole[MAIN].attrs
    return made, whole


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(
    used=st.sets(st.integers(0, SCENES - 1), min_size=2),
    how=st.sampled_from(REDUCTIONS),
    options=st.sampled_from(
        [{}, {"every": "QS"}, {"pool_years": True}, {"end": "2023-05-25", "every": "10D"}, {"every": "YS"}]
    ),
    opened=st.fixed_dictionaries(
        {
            "mask": st.sampled_from([None, "clouds"]),
            "dilate": st.integers(0, 2),
            "opening": st.integers(0, 1),
            "resampling": st.sampled_from(["nearest", "bilinear", "cubic"]),
            "dtype": st.sampled_from([None, "float32"]),
            "group_by": st.sampled_from(["solar_day", "item"]),
            "chunks": st.sampled_from([{}, {"time": 1, "y": 7, "x": 40}, {"time": 2, "x": 13}]),
        }
    ),
)
def test_both_ways_give_the_same_numbers_and_the_same_warnings(
    scenes: list[Any],
    as_items: Any,
    monkeypatch: pytest.MonkeyPatch,
    used: set[int],
    how: Any,
    options: dict[str, Any],
    opened: dict[str, Any],
) -> None:
    items = as_items([scenes[number] for number in sorted(used)], "sentinel-2-l2a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingAssetWarning)
        cube = open_cube(items, GRID, bands=["B04", "B8A"], on_error="record", **opened)
    if cube.indexes["time"][0] > pd.Timestamp("2023-05-25"):
        options = {}
    made, whole = both(cube, monkeypatch, how=how, **options)
    (found, said), (expected, all_said) = computed(made), computed(whole)
    assert said <= all_said  # a scene below others is read only in the bands that lack data
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


FOUR = ("2023-05-01", "2023-05-06", "2023-05-26", "2023-07-05")


def of_days(make_item: Any, days: Sequence[str] = FOUR, shape: tuple[int, int] = (30, 40)) -> list[Any]:
    rng = np.random.default_rng(0)
    box = GeoBox(shape, GRID.transform, GRID.crs)
    bands = [{n: (rng.integers(0, 9, shape).astype("uint16"), box) for n in ("red", "nir")} for _ in days]
    return [make_item(f"i{d}", d, b) for d, b in zip(days, bands, strict=True)]


def test_only_cubes_as_they_were_opened_are_made_straight_from_scenes(make_item: Any) -> None:
    cube = open_cube(of_days(make_item), chunks={"y": 16})
    assert is_direct(composite(cube))
    assert is_direct(composite(cube[["data"]].assign_attrs(title="mine")))
    assert is_direct(composite(pickle.loads(pickle.dumps(cube))))  # noqa: S301  (our own bytes)
    for other in (
        cube.isel(x=slice(5)),
        cube.sel(band=["red"]),
        cube.isel(time=[0, 1]),
        cube.assign(data=(cube["data"] * 1).assign_attrs(cube["data"].attrs)),
        cube.chunk(x=7),
        cube.load(),
    ):
        assert not is_direct(composite(other))
    for how in ("medoid", "geomedian"):
        assert not is_direct(composite(cube, how=how))


def test_names_are_the_same_each_time_and_tell_works_apart(make_item: Any) -> None:
    items = of_days(make_item)
    works: list[dict[str, Any]] = [{}, {"how": "mean"}, {"every": "QS"}, {"start": "2023-06-01"}]
    names = [
        {composite(open_cube(items), **work)[name].data.name for name in (MAIN, "observations") for _ in "ab"}
        for work in works
    ]
    assert all(len(each) == 2 for each in names)
    assert len(set.union(*names)) == 8


def test_each_window_is_read_once_whatever_is_asked_for(
    make_item: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, str, Any]] = []

    def counted(source: Any, window: Any, *more: Any) -> Any:
        reads.append((source.item, source.asset, window))
        return read_values(source, window, *more)

    monkeypatch.setattr("cubekit.cube.ahead.read_values", counted)
    cube = open_cube(of_days(make_item), chunks={"y": 16, "x": 30})
    made = composite(cube)
    known = plan(made)
    assert known.windows == plan(cube).windows
    assert known.blocks == 4
    made.compute(scheduler="synchronous")
    assert len(reads) == len(set(reads)) == known.windows == 4 * 2 * 4


def test_failures_are_raised_and_name_the_asset(make_item: Any) -> None:
    items = of_days(make_item)
    Path(items[1].assets["nir"].href).write_bytes(b"no raster")
    with pytest.raises(SourceError, match="item 'i2023-05-06', asset 'nir'"):
        composite(open_cube(items)).compute(scheduler="synchronous")


def test_a_server_is_asked_no_more_often(
    make_item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    items = of_days(make_item, shape=(96, 96))
    counts = []
    for switch in ("1", "0"):
        monkeypatch.setenv("CUBEKIT_DIRECT", switch)
        with file_server(tmp_path) as server:
            for item in items:
                for asset in item.assets.values():
                    asset.href = f"{server.url}/{Path(asset.href).name}"
            cube = open_cube(items, chunks={"y": 48})
            found = composite(cube).compute()
            counts.append(len(server.requests()))
        assert int(found["observations"].max()) == 3
    assert counts[0] <= counts[1]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1024, 1024, 300), (512, 512, 512, 512, 300)),
        ((2048,), (512,) * 4),
        ((800,), (512, 288)),
        ((512, 512), (512, 512)),
        ((256, 256), (256, 256)),
        ((100,), (100,)),
        ((600, 600), (600, 600)),
        ((512, 1024), (512, 1024)),
    ],
)
def test_blocks_are_cut_into_squares_that_fit(sizes: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert _cut(sizes) == expected
    assert SIDE == 512


def test_the_plan_knows_that_less_is_held(make_item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [str(day.date()) for day in pd.date_range("2023-01-04", "2023-12-31", freq="7D")]
    cube = open_cube(of_days(make_item, days))
    made, whole = both(cube, monkeypatch)
    less, more = plan(made), plan(whole)
    area = 30 * 40
    # Twelve periods in two bands; and of five dates one band, which are data in it, in any, and how many.
    least = area * (12 * 2 * 2 + 5 * (2 + 1 + 1) + 2 * 12)
    assert least <= less.block.working <= 1.5 * least
    assert less.block.working < more.block.working / 2
    assert less.outputs == more.outputs
    assert (less.items, less.dropped, less.read_bytes) == (more.items, more.dropped, more.read_bytes)
    part = plan(composite(cube, start="2023-02-01", end="2023-11-01"))
    assert part.items == tuple(f"i{day}" for day in days if "2023-02" <= day < "2023-12")
    assert {*part.items, *part.dropped} == {f"i{day}" for day in days}


def test_the_origin_of_the_pixels_is_the_whole_cube(make_item: Any) -> None:
    cube = open_cube(of_days(make_item))
    graphs = [cube["data"].data.dask, composite(cube, start="2023-05-05")["data"].data.dask]
    (before,), (behind,) = (plans_in(graph).values() for graph in graphs)
    assert behind is before


def test_stores_hold_the_same_bytes(make_item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = open_cube(of_days(make_item), chunks={"y": 16})
    stores = []
    for name, made in zip("ab", both(cube, monkeypatch), strict=True):
        write(made, tmp_path / name, progress=False)
        files = sorted((tmp_path / name).glob("*/c/**/*"))
        stores.append(
            {path.relative_to(tmp_path / name): path.read_bytes() for path in files if path.is_file()}
        )
    assert stores[0] == stores[1]
    assert len(stores[0]) > 4
