from collections.abc import Callable
from itertools import pairwise
from math import ceil, prod
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import OptionError, StoreError, UnknownNameError
from cubekit.store.layout import Layout, plan_layout
from cubekit.store.regions import all_regions, computations, region_bytes, region_keys, region_sides


def lazy(*shape: int, chunk: int = 512, dtype: str = "uint16", deep: bool = True) -> xr.Dataset:
    """Return a cube of zeros that is never computed."""
    dims = ("time", "band", "y", "x")[-len(shape) :]
    lead = shape[:-2] if deep else (1,) * len(shape[:-2])
    array = da.zeros(shape, dtype=dtype, chunks=(*lead, chunk, chunk))
    return xr.Dataset({"data": (dims, array)})


def test_series_keep_all_times_and_bands_of_a_square_together() -> None:
    layout = plan_layout(lazy(12, 10, 5490, 5490), "series")
    assert layout["data"].chunks == (12, 10, 64, 64)
    assert layout["data"].shards == (12, 10, 512, 512)


def test_patches_are_wider() -> None:
    assert plan_layout(lazy(12, 10, 5490, 5490), "patches")["data"].chunks == (12, 10, 128, 128)


def test_maps_keep_single_images() -> None:
    layout = plan_layout(lazy(12, 10, 10980, 10980, chunk=512, deep=False), "maps")
    assert layout["data"].chunks == (1, 1, 512, 512)
    shards = layout["data"].shards
    assert shards is not None
    assert shards[:2] == (1, 10)
    assert shards[2] >= 2048


def test_time_decides_the_default() -> None:
    assert plan_layout(lazy(3, 2, 64, 64)).use == "series"
    assert plan_layout(lazy(64, 64, dtype="uint8")).use == "maps"


def test_long_series_get_smaller_squares_then_fewer_times() -> None:
    daily = plan_layout(lazy(365, 10, 4096, 4096), "series")["data"]
    assert daily.chunks == (365, 10, 32, 32)
    endless = plan_layout(lazy(20_000, 10, 4096, 4096), "series")["data"]
    assert endless.chunks[0] < 20_000
    assert prod(endless.chunks) * 2 <= 16e6


def test_less_memory_means_smaller_shards() -> None:
    small = plan_layout(lazy(24, 10, 4096, 4096), "series", memory="300MB")["data"].objects
    assert prod(small) * 2 <= 300e6 / 8


@pytest.mark.parametrize("chunk", [250, 300, 500, 1000, 366])
def test_shards_follow_the_source_chunks(chunk: int) -> None:
    cube = lazy(12, 10, 6000, 6000, chunk=chunk)
    layout = plan_layout(cube, "series")
    assert computations(cube["data"].chunksizes, region_sides(cube, layout)) == 1
    assert not layout.notes


def test_a_misfit_is_said_aloud() -> None:
    assert "more than once" in str(plan_layout(lazy(2, 2, 3000, 3000, chunk=317), {"y": 64, "x": 64}))


def test_explicit_sides() -> None:
    layout = plan_layout(lazy(12, 10, 600, 600), {"time": 6, "y": (32, 128), "x": (32, 128)})
    assert layout["data"].chunks == (6, 10, 32, 32)
    assert layout["data"].shards == (6, 10, 128, 128)


@pytest.mark.parametrize("sides", [{"y": (64, 100)}, {"y": 0}, {"x": -5}])
def test_impossible_sides_are_refused(sides: dict[str, int | tuple[int, int]]) -> None:
    with pytest.raises(OptionError, match="layout"):
        plan_layout(lazy(2, 2, 256, 256), sides)


def test_unknown_use_and_name() -> None:
    with pytest.raises(OptionError, match="'series'"):
        plan_layout(lazy(2, 2, 64, 64), "serie")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="data"):
        plan_layout(lazy(2, 2, 64, 64))["date"]


def test_printed_plan_names_sizes_and_objects() -> None:
    text = str(plan_layout(lazy(12, 10, 1024, 1024), "series"))
    assert "chunk 12x10x64x64 (983 kB)" in text
    assert "shard 12x10x512x512 (62.9 MB)" in text
    assert "4 objects" in text


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (xr.Dataset({"a": (("y", "x", "band"), np.zeros((2, 2, 2)))}), "transpose"),
        (xr.Dataset({"a": (("y", "x"), np.full((2, 2), "?", dtype=object))}), "type object"),
        (xr.Dataset({"a": (("y", "x"), np.zeros((0, 2)))}), "empty"),
        (xr.Dataset({"a": (("station",), np.zeros(2))}), "Nothing to write"),
    ],
)
def test_what_is_no_cube_is_refused(dataset: xr.Dataset, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        plan_layout(dataset)


def check_partition(layout: Layout, sides: dict[str, int]) -> None:
    """Regions share no object, leave none out, and hold no object in part."""
    keys = [key for region in all_regions(layout, sides) for key in region_keys(region, layout)]
    assert len(keys) == len(set(keys)) == sum(prod(array.grid) for array in layout.arrays)
    covered = {array.name: 0 for array in layout.arrays}
    for region in all_regions(layout, sides):
        for array in layout.arrays:
            window = region.window(array)
            if window is None:
                continue
            covered[array.name] += prod(part.stop - part.start for part in window)
            for part, step, size in zip(window, array.objects, array.shape, strict=True):
                assert part.start % step == 0
                assert part.stop == size or part.stop % step == 0
    assert covered == {array.name: prod(array.shape) for array in layout.arrays}


@settings(max_examples=150, deadline=None)
@given(
    times=st.integers(1, 30),
    bands=st.integers(1, 4),
    side=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    chunk=st.tuples(st.integers(1, 30), st.integers(10, 900)),
    plan=st.tuples(st.sampled_from(["series", "patches", "maps"]), st.sampled_from(["1MB", "20MB", "2GB"])),
)
def test_regions_are_whole_objects_and_cover_the_cube(
    times: int, bands: int, side: tuple[int, int], chunk: tuple[int, int], plan: tuple[Any, str]
) -> None:
    array = da.zeros((times, bands, *side), dtype="uint16", chunks=(chunk[0], bands, chunk[1], chunk[1]))
    label = da.zeros(side, dtype="uint8", chunks=(chunk[1], chunk[1]))
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), array), "label": (("y", "x"), label)})
    layout = plan_layout(cube, plan[0], memory=plan[1])
    check_partition(layout, region_sides(cube, layout))


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6), side=st.integers(1, 120))
def test_computations_are_counted(sizes: list[int], side: int) -> None:
    edges = np.cumsum([0, *sizes])
    touched = [
        sum(1 for start in range(0, int(edges[-1]), side) if start < b and start + side > a)
        for a, b in pairwise(edges)
    ]
    assert computations({"y": tuple(sizes)}, {"y": side}) == pytest.approx(np.mean(touched))


def test_regions_take_whole_source_chunks_within_memory() -> None:
    cube = lazy(12, 10, 4096, 4096, chunk=1024)
    layout = plan_layout(cube, "series")
    sides = region_sides(cube, layout)
    assert sides["y"] == 1024
    assert region_bytes(layout, sides) == 12 * 10 * 1024**2 * 2


def test_regions_do_not_grow_with_the_area() -> None:
    found = []
    for size in (2048, 8192):
        cube = lazy(12, 10, size, size)
        layout = plan_layout(cube, "series")
        found.append(region_bytes(layout, region_sides(cube, layout)))
    assert found[0] == found[1]


def test_grid_counts_round_up(make_cube: Callable[..., xr.Dataset]) -> None:
    for array in plan_layout(make_cube(), {"y": 16, "x": 16}).arrays:
        assert array.grid[-2:] == (ceil(90 / 16), ceil(110 / 16))
