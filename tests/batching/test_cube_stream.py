import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import cubekit as ck  # noqa: E402
from cubekit.batching.augment import Augmentation  # noqa: E402
from cubekit.batching.patches import PatchPlan  # noqa: E402
from cubekit.batching.pixels import PixelPlan  # noqa: E402
from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.batching.torch import CubeStream, batches, shared  # noqa: E402
from cubekit.cube.contract import to_physical  # noqa: E402
from cubekit.errors import OptionError  # noqa: E402

pytestmark = pytest.mark.torch

MakeCube = Callable[..., xr.Dataset]


@pytest.fixture(scope="module")
def cube(make_cube: MakeCube, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("cube") / "c.zarr"
    ck.write(make_cube(rows=48, columns=64), path, layout={"y": 8, "x": 8})
    return ck.open(path)


def numbers(stream: Any) -> list[int]:
    return [number for each in stream for number in each["index"].tolist()]


def test_a_batch_holds_physical_values_and_what_goes_with_them(cube: xr.Dataset) -> None:
    physical = to_physical(cube["data"]).to_numpy()
    mask = np.random.default_rng(0).random((4, 48, 64)) < 0.8
    label = np.arange(48 * 64).reshape(48, 64)
    stream = batches(cube, 16, labels=label, mask=mask, aux=label / 2, shuffle=True)
    plan, seen = stream.batcher, 0
    for each in stream:
        for at, number in enumerate(each["index"].tolist()):
            rows, columns = (slice(*plan.bounds(dim)[number].tolist()) for dim in ("y", "x"))
            inside = mask[:, None, rows, columns] & np.isfinite(physical[:, :, rows, columns])
            np.testing.assert_array_equal(each["valid"][at], inside)
            expected = np.where(inside, physical[:, :, rows, columns], np.nan)
            np.testing.assert_allclose(each["x"][at], expected, atol=1e-6)
            np.testing.assert_array_equal(each["y"][at], label[rows, columns])
            np.testing.assert_array_equal(each["aux"][at, 0], label[rows, columns] / 2)
            seen += 1
        assert {name: values.dtype for name, values in each.items()} == {
            "x": torch.float32, "valid": torch.bool, "y": torch.int64, "aux": torch.float64,
            "doy": torch.int64, "index": torch.int64,
        }  # fmt: skip
    assert seen == len(plan) == 12
    assert len(stream) == 1


def test_stored_numbers_travel_and_are_decoded_late(cube: xr.Dataset) -> None:
    (late,), (now,) = (list(batches(cube, 16, stored=stored)) for stored in (True, False))
    assert late["x"].dtype == torch.uint16
    decoded = batches(cube, 16, stored=True).decode(late)
    for name, values in now.items():
        torch.testing.assert_close(decoded[name], values, equal_nan=True)
    (moved,) = batches(cube, 16, device="cpu")
    torch.testing.assert_close(moved["x"], now["x"], equal_nan=True)


def test_a_number_may_stand_where_there_is_no_data(cube: xr.Dataset) -> None:
    lost = Augmentation(drop_dates=0.4)
    for augment in (None, lost):
        gaps, filled = (next(iter(batches(cube, 16, augment=augment, fill=fill))) for fill in (np.nan, -2.5))
        assert bool(torch.isnan(gaps["x"]).any())
        torch.testing.assert_close(filled["x"], gaps["x"].nan_to_num(-2.5))
        torch.testing.assert_close(filled["valid"], gaps["valid"])


def test_the_dates_to_forecast_are_the_target(cube: xr.Dataset) -> None:
    physical = to_physical(cube["data"]).to_numpy()
    plan = PatchPlan(cube, 48, steps=3, horizon=1)
    (each,) = batches(cube, plan)
    assert each["x"].shape == (2, 3, 3, 48, 48)
    np.testing.assert_allclose(each["y"][0, 0], physical[3, :, :48, :48], atol=1e-6)


def test_pixels_are_series(cube: xr.Dataset) -> None:
    for plan in ("pixels", PixelPlan(cube, 500)):
        each = next(iter(batches(cube, plan, shuffle=True, batch=300)))
        assert each["x"].shape[1:] == (4, 3)
        assert each["doy"].shape == each["x"].shape[:2]


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_workers_share_out_an_epoch_without_repeats(cube: xr.Dataset, workers: int) -> None:
    stream = batches(cube, 8, batch=5, shuffle=True, workers=workers)
    loader = stream.loader()
    stream.set_epoch(3)
    first = numbers(loader)
    assert sorted(first) == list(range(48))
    assert len(loader) == len(stream) == 10
    if not workers:
        stream.set_epoch(3)
        assert numbers(stream) == first


@pytest.mark.parametrize(("ranks", "workers"), [(2, 1), (3, 2), (4, 3)])
def test_ranks_share_out_an_epoch_in_equally_many_batches(
    cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch, ranks: int, workers: int
) -> None:
    class Info:
        id, num_workers = 0, workers

    found, counts = [], []
    for rank in range(ranks):
        monkeypatch.setattr(shared, "ranks", lambda rank=rank: (rank, ranks))
        stream = batches(cube, 8, batch=3, shuffle=True, workers=workers)
        sent = stream.__getstate__()["_sent"]
        assert sent == (rank, ranks)
        stream.__dict__["_sent"] = sent  # as in a worker that it was sent to
        count = 0
        for worker in range(workers):
            Info.id = worker
            stream.set_epoch(1)
            stream.set_epoch(0)
            monkeypatch.setattr("cubekit.batching.torch.shared.get_worker_info", lambda: Info)
            given = list(stream)
            found += numbers(given)
            count += len(given)
        monkeypatch.setattr("cubekit.batching.torch.shared.get_worker_info", lambda: None)
        assert count == len(stream)
        counts.append(count)
    assert sorted(found) == list(range(48))
    assert len(set(counts)) == 1


def test_more_workers_than_blocks_are_refused(cube: xr.Dataset) -> None:
    stream = batches(cube, PixelPlan(cube, np.pad([[True]], ((0, 47), (0, 63)))), workers=2)
    with pytest.raises(OptionError, match="1 blocks cannot be shared out among 2"):
        len(stream)


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_a_resumed_stream_gives_the_rest(cube: xr.Dataset, stop: int) -> None:
    whole, stream, other = (batches(cube, 8, batch=6, shuffle=True, seed=1) for _ in range(3))
    passing = iter(stream)
    done = [number for _ in range(stop) for number in next(passing)["index"].tolist()]
    other.load_state_dict(stream.state_dict())
    other.set_epoch(0)  # as trainers do before each pass; must not lose the place
    assert done + numbers(other) == numbers(whole)
    assert numbers(other) == numbers(whole)  # and then the next epoch, from its start


def test_the_state_of_another_stream_is_refused(cube: xr.Dataset) -> None:
    state = batches(cube, 8, shuffle=True).state_dict()
    for other, said in (
        (batches(cube, 16, shuffle=True), "samples was 48, is 12"),
        (batches(cube, 8, shuffle=True, seed=1), "seed was 0, is 1"),
        (batches(cube, PatchPlan(cube, 8).take(np.arange(48)[::-1]), shuffle=True), "plan was"),
    ):
        with pytest.raises(OptionError, match=said):
            other.load_state_dict(state)


def test_fork_beside_live_dask_is_refused_at_once(cube: xr.Dataset) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    cube["data"].sum().compute(scheduler="threads")
    loader = DataLoader(
        batches(cube, 8), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=30
    )
    with pytest.warns() if _warns_of_fork() else _quiet(), pytest.raises(OptionError, match="forkserver"):
        list(loader)


def _warns_of_fork() -> bool:
    import sys

    return sys.version_info >= (3, 12)  # Python itself warns of threads beside fork


def _quiet() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_augmented_values_repeat_by_the_seed(cube: xr.Dataset, make_samples: Callable[..., Samples]) -> None:
    augment = Augmentation(drop_dates=0.4, jitter=0.01)
    (one,), (same,), (plain,) = (list(batches(cube, 16, augment=each)) for each in (augment, augment, None))
    torch.testing.assert_close(one["x"], same["x"], equal_nan=True)
    assert one["valid"].sum() < plain["valid"].sum()
    assert not torch.equal(one["x"][one["valid"]], plain["x"][one["valid"]])
    (series,) = batches(make_samples(40), augment=augment)
    assert torch.equal(series["valid"], ~torch.isnan(series["x"]))
    assert series["valid"].float().mean() < make_samples(40).valid().mean()


def test_print_says_what_it_costs(cube: xr.Dataset) -> None:
    stream = batches(cube, 8, shuffle=True, batch=16)
    lines = repr(stream).splitlines()
    assert lines[0] == "CubeStream: 48 patches in 3 batches of at most 16, shuffled"
    assert lines[1] == "  reads 48 chunks, 0.1 MB decoded, an epoch; amplification 1.00"
    assert "buffer 512 MB" in lines[2]
    assert "design effect 1.0" in lines[3]
    assert "expect about" in lines[4]
    list(stream)
    assert "gave out" in repr(stream)
    tight = batches(cube, PatchPlan(cube, 8, stride=3), buffer=4000)
    assert "patches lie across chunks" in repr(tight)


def test_chunks_of_single_dates_are_warned_of(make_cube: MakeCube, tmp_path: Path) -> None:
    wide = make_cube(rows=512, columns=512, steps=2, bands=1)
    ck.write(wide, tmp_path / "w.zarr", layout={"time": 1, "band": 1})
    with pytest.warns(UserWarning, match="cubekit.rechunk"):
        stream = batches(ck.open(tmp_path / "w.zarr"), 64, buffer=300_000)
    assert "read 16 times, in pieces: cubekit.rechunk" in repr(stream)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda cube, samples: batches(cube), "plan is None.*cubekit.split"),
        (lambda cube, samples: batches(cube, 8, batch=0), "batch=0"),
        (lambda cube, samples: batches(cube, 8, workers=-1), "workers=-1"),
        (lambda cube, samples: batches(samples, 8), "plan=.* are for cubes"),
        (lambda cube, samples: batches([cube, cube], 8, labels=np.zeros((48, 64))), "list of 2"),
        (lambda cube, samples: batches([cube, cube], [8]), "1 entries for 2"),
        (lambda cube, samples: batches(cube, PatchPlan(cube.isel(time=[0]), 8)), "The plan is for"),
        (lambda cube, samples: batches([]), "source is a NoneType"),
        (lambda cube, samples: batches(cube, 8, buffer="much"), "much"),
    ],
)
def test_refusals(cube: xr.Dataset, make_samples: Callable[..., Samples], call: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        call(cube, make_samples(5))
    assert isinstance(batches(cube, 8), CubeStream)
