import tracemalloc
from collections.abc import Callable
from time import process_time

import numpy as np
import pytest
import xarray as xr
import xbatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.batching.patches import PatchPlan
from cubekit.batching.plan import Plan
from cubekit.errors import LabelError, OptionError

MakeCube = Callable[..., xr.Dataset]


def numbered(steps: int, rows: int, columns: int) -> xr.DataArray:
    values = np.arange(steps * rows * columns).reshape(steps, rows, columns)
    return xr.DataArray(values, dims=("time", "y", "x"), coords={"y": np.arange(rows)[::-1]})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_plan_yields_what_plain_xbatcher_yields(data: st.DataObject) -> None:
    sizes = {dim: data.draw(st.integers(1, 9)) for dim in ("time", "y", "x")}
    cube = numbered(*sizes.values())
    dims = data.draw(st.sets(st.sampled_from(["time", "y", "x"])))
    inputs = {dim: data.draw(st.integers(1, sizes[dim])) for dim in sorted(dims)}
    overlap = {dim: data.draw(st.integers(0, size - 1)) for dim, size in inputs.items()}
    batches = {dim: data.draw(st.integers(1, sizes[dim])) for dim in sorted(set(sizes) - set(dims))[:1]}
    concat = data.draw(st.booleans()) and bool(inputs)
    cube = cube.drop_vars("y") if concat else cube  # xbatcher concatenates coordinates that differ
    plain, ours = (
        make(cube, input_dims=inputs, input_overlap=overlap, batch_dims=batches, concat_input_dims=concat)
        for make in (xbatcher.BatchGenerator, Plan)
    )
    assert len(ours) == len(plain)
    for mine, theirs in zip(ours, plain, strict=True):
        xr.testing.assert_identical(mine, theirs)


def test_the_plan_refuses_what_xbatcher_refuses() -> None:
    cube = numbered(2, 5, 6)
    for inputs, overlap in (({"x": 7}, {}), ({"x": 3}, {"x": 3})):
        for make in (xbatcher.BatchGenerator, Plan):
            with pytest.raises(ValueError, match="must be less than"):
                make(cube, input_dims=inputs, input_overlap=overlap)
    with pytest.raises(NotImplementedError):
        Plan(cube, input_dims={"x": 2})[[1, 2]]  # type: ignore[index]
    with pytest.raises(OptionError, match="concat_input_dims"):
        _ = Plan(cube, input_dims={"x": 2}, concat_input_dims=True).windows


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), size=st.integers(1, 9), stride=st.integers(1, 9))
def test_the_edge_is_kept_flush_and_grid_patches_are_those_of_xbatcher(
    rows: int, columns: int, size: int, stride: int
) -> None:
    size, cube = min(size, rows, columns), numbered(2, rows, columns)
    plan, dropped = (PatchPlan(cube, size, stride=min(stride, size), edge=edge) for edge in ("keep", "drop"))
    seen = np.zeros((rows, columns), int)
    for (top, bottom), (left, right) in zip(plan.bounds("y"), plan.bounds("x"), strict=True):
        seen[top:bottom, left:right] += 1
        assert (bottom - top, right - left) == (size, size)
    assert seen.min() == 1 or (seen.min() > 1 and stride < size)
    plain = xbatcher.BatchGenerator(
        cube,
        {"time": 2, "y": size, "x": size},
        {"y": size - min(stride, size), "x": size - min(stride, size)},
    )
    for mine, theirs in zip(dropped, plain, strict=True):
        xr.testing.assert_identical(mine, theirs)


def test_windows_in_time_slide() -> None:
    plan = PatchPlan(numbered(7, 4, 4), 4, steps=3, horizon=1, every=2)
    assert plan.bounds("time").tolist() == [[0, 4], [2, 6]]
    assert plan[1].to_numpy()[0, 0, 0] == 2 * 16


def test_random_patches_are_distinct_seeded_and_reach_the_corners() -> None:
    cube = numbered(3, 6, 5)
    every = PatchPlan.random(cube, 4, count=3 * 2, seed=1)
    assert sorted(map(tuple, every.windows.bounds.tolist())) == sorted(
        (y, y + 4, x, x + 4) for y in range(3) for x in range(2)
    )
    one, same, other = (PatchPlan.random(cube, 2, count=9, seed=seed, steps=2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.windows.bounds, same.windows.bounds)
    assert (one.windows.bounds != other.windows.bounds).any()
    with pytest.raises(OptionError, match="6 positions"):
        PatchPlan.random(cube, 4, count=7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(0, 1))
def test_patches_with_too_little_data_are_left_out(seed: int, least: float) -> None:
    valid = np.random.default_rng(seed).random((17, 13)) < 0.6
    for plan in (
        PatchPlan(numbered(1, 17, 13), 5, stride=2),
        PatchPlan.random(numbered(1, 17, 13), 5, count=9),
    ):
        expected = [
            valid[top:bottom, left:right].mean()
            for (top, bottom), (left, right) in zip(plan.bounds("y"), plan.bounds("x"), strict=True)
        ]
        np.testing.assert_allclose(plan.share(valid), expected)
        kept = plan.keep_valid(valid, least=least)
        assert kept.windows.bounds.tolist() == plan.windows.bounds[np.array(expected) >= least].tolist()


def halves() -> np.ndarray:
    """Class 0 nearly everywhere, class 2 in two of 25 squares, one square without labels."""
    label = np.zeros((50, 50), "int16")
    label[:10, :10] = label[40:, 40:] = 2
    label[:10, 40:] = -1
    return label


def test_strata_are_drawn_alike() -> None:
    plan = PatchPlan(numbered(1, 50, 50), 10)
    majority = plan.majority(halves())
    assert np.bincount(majority + 1).tolist() == [1, 22, 0, 2]
    drawn = plan.stratified(halves(), per_class=2, seed=3)
    assert sorted(drawn.majority(halves()).tolist()) == [0, 0, 2, 2]
    assert len(plan.stratified(halves(), per_class=5)) == 7
    with pytest.raises(LabelError, match="None of 25"):
        plan.stratified(np.full((50, 50), -1), per_class=1)


def test_weights_balance_classes_or_leave_them_out() -> None:
    plan = PatchPlan(numbered(1, 50, 50), 10)
    drawn = plan.weighted(halves(), count=4000, replace=True, seed=1).majority(halves())
    assert (drawn == 2).mean() == pytest.approx(0.5, abs=0.03)  # 2 of 24 squares by area
    assert set(plan.weighted(halves(), count=2, weights={2: 1.0}).majority(halves()).tolist()) == {2}
    with pytest.raises(LabelError, match=r"2 of 25.*count=3.*replace=True"):
        plan.weighted(halves(), count=3, weights={2: 1.0})
    with pytest.raises(OptionError, match="negative"):
        plan.weighted(halves(), count=3, weights={0: -1.0})


def test_a_tile_at_stride_16_takes_little(make_cube: MakeCube) -> None:
    tile = xr.DataArray(np.broadcast_to(np.uint8(0), (24, 10, 10980, 10980)), dims=("time", "band", "y", "x"))
    tracemalloc.start()
    begin = process_time()
    plan = PatchPlan(tile, 64, stride=16)
    seconds, (_, peak) = process_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan) == 684**2
    assert seconds < 2
    assert peak < 50e6
    assert isinstance(plan.batcher, xbatcher.BatchGenerator)


@pytest.mark.torch
def test_xbatchers_loaders_take_the_plan(make_cube: MakeCube) -> None:
    torch = pytest.importorskip("torch")
    import xbatcher.loaders.torch as loaders

    cube = make_cube(rows=16, columns=12)["data"].astype("int32")
    plan = PatchPlan(cube, 6)
    patches = list(torch.utils.data.DataLoader(loaders.MapDataset(plan), batch_size=None))
    twice = list(loaders.IterableDataset(plan, plan))
    assert len(patches) == len(twice) == len(plan) == 6
    for patch, (x, y), window in zip(patches, twice, plan, strict=True):
        np.testing.assert_array_equal(patch, window)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 9}, "takes 9 along 'y'; the data has 8"),
        ({"stride": (1, 0)}, r"stride=\(1, 0\)"),
        ({"horizon": 1}, "needs steps="),
        ({"steps": 2, "horizon": 2}, "takes 4 along 'time'"),
        ({"steps": 1, "every": 0}, "every=0"),
        ({"edge": "kep"}, "'keep'"),
    ],
)
def test_refusals(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        PatchPlan(numbered(3, 8, 8), **({"size": 4} | options))  # type: ignore[arg-type]
    plan = PatchPlan(numbered(3, 8, 8), 4)
    with pytest.raises(OptionError, match="least=2"):
        plan.keep_valid(np.ones((8, 8), bool), least=2)
    with pytest.raises(OptionError, match=r"mask has shape \(7, 8\)"):
        plan.share(np.ones((7, 8), bool))
