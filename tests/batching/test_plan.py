from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
import xbatcher
from hypothesis import given
from hypothesis import strategies as st

from cubekit.batching.plan import ChunkPlan
from cubekit.errors import OptionError

MakeCube = Callable[..., xr.Dataset]


def flat(rows: int, columns: int) -> xr.DataArray:
    return xr.DataArray(np.arange(rows * columns).reshape(rows, columns), dims=("y", "x"))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 12))
def test_every_pixel_is_in_exactly_one_window(rows: int, columns: int, height: int, width: int) -> None:
    data = flat(rows, columns)
    seen = np.concatenate([window.to_numpy().ravel() for window in ChunkPlan(data, block=(height, width))])
    assert sorted(seen.tolist()) == data.to_numpy().ravel().tolist()


def test_whole_windows_equal_those_of_plain_xbatcher(make_cube: MakeCube) -> None:
    cube = make_cube(rows=23, columns=31)
    plain = xbatcher.BatchGenerator(cube, {"time": 4, "band": 3, "y": 8, "x": 10})
    ours = {(int(w["y"].size), float(w["y"][0]), float(w["x"][0])): w for w in ChunkPlan(cube, block=(8, 10))}
    assert len(plain) == 2 * 3
    assert len(ours) == 3 * 4
    for window in plain:
        xr.testing.assert_identical(window, ours[8, float(window["y"][0]), float(window["x"][0])])


def test_the_plan_is_an_xbatcher_generator(make_cube: MakeCube) -> None:
    plan = ChunkPlan(make_cube(), block=(8, 10))
    assert isinstance(plan.batcher, xbatcher.BatchGenerator)
    assert len(list(plan)) == len(plan) == 12
    xr.testing.assert_identical(plan[-1], plan[11])
    xr.testing.assert_identical(plan[np.int64(3)], plan[3])
    with pytest.raises(IndexError):
        plan[12]


@pytest.mark.torch
def test_xbatchers_own_dataset_accepts_the_plan(make_cube: MakeCube) -> None:
    torch = pytest.importorskip("torch")
    from xbatcher.loaders.torch import MapDataset

    cube = make_cube()
    plan = ChunkPlan(cube["data"].astype("int32"), block=(8, 10))
    loader = torch.utils.data.DataLoader(MapDataset(plan), batch_size=None, shuffle=True)
    total = sum(int(patch.sum()) for patch in loader)
    assert total == int(cube["data"].sum())
    assert {tuple(patch.shape[:2]) for patch in loader} == {(4, 3)}


def test_windows_follow_dask_chunks_of_any_size(make_cube: MakeCube) -> None:
    cube = make_cube(rows=23, columns=31).chunk({"y": (5, 9, 9), "x": (20, 11)})
    plan = ChunkPlan(cube)
    assert sorted({(top, bottom) for top, bottom, _, _ in plan.edges.tolist()}) == [(0, 5), (5, 14), (14, 23)]
    assert sorted({(left, right) for _, _, left, right in plan.edges.tolist()}) == [(0, 20), (20, 31)]


def test_windows_follow_stored_chunks_without_dask(make_cube: MakeCube, tmp_path: object) -> None:
    make_cube(rows=23, columns=31).to_zarr(
        f"{tmp_path}/cube.zarr", encoding={"data": {"chunks": (4, 3, 7, 16)}}, consolidated=False
    )
    cube = xr.open_zarr(f"{tmp_path}/cube.zarr", chunks=None, mask_and_scale=False, consolidated=False)
    assert len(ChunkPlan(cube)) == 4 * 2


def test_only_windows_with_a_wanted_pixel_are_kept() -> None:
    keep = np.zeros((20, 20), bool)
    keep[3, 17] = keep[19, 19] = True
    plan = ChunkPlan(flat(20, 20), block=(8, 8), keep=keep)
    assert plan.edges.tolist() == [[0, 8, 16, 20], [16, 20, 16, 20]]
    assert len(ChunkPlan(flat(20, 20), keep=np.zeros((20, 20), bool))) == 0


def test_selectors_are_compact() -> None:
    data = xr.DataArray(np.broadcast_to(np.uint8(0), (4000, 4000)), dims=("y", "x"))
    assert ChunkPlan(data, block=(32, 32)).edges.nbytes == 125 * 125 * 16


def test_repr_says_what_will_be_read() -> None:
    keep = np.zeros((20, 20), bool)
    keep[0, 0] = True
    text = repr(ChunkPlan(flat(20, 20), block=(10, 10), keep=keep))
    assert text == "ChunkPlan: 1 windows of at most 10 x 10 pixels, 25% of 20 x 20, 0.0 MB"


def test_refusals() -> None:
    with pytest.raises(OptionError, match="'y' and 'x'"):
        ChunkPlan(xr.DataArray(np.zeros((2, 2)), dims=("a", "b")))
    with pytest.raises(OptionError, match=r"block=\(0, 4\)"):
        ChunkPlan(flat(4, 4), block=(0, 4))
    with pytest.raises(OptionError, match="keep"):
        ChunkPlan(flat(4, 4), keep=np.ones((4, 5), bool))
