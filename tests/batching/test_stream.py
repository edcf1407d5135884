import gc
import hashlib
import shutil
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import xbatcher

import cubekit as ck
from cubekit.batching.augment import Augmentation
from cubekit.batching.blocks import Blocks, Chunks, plan_blocks
from cubekit.batching.part import Part
from cubekit.batching.patches import PatchPlan
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.schedule import design_effect, schedule
from cubekit.batching.source import make_source
from cubekit.batching.stream import BlockStream, Shard, check_plans
from cubekit.errors import CubekitError, LabelError, OptionError
from cubekit.store import chunk_reader, parts
from cubekit.typing import Array

MakeCube = Callable[..., xr.Dataset]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def stored(make_cube: MakeCube, folder: Path) -> xr.Dataset:
    """A store of 60 x 80 pixels in chunks of 8 x 8, shards of 16 x 16 and Dask blocks of shards."""
    ck.write(make_cube(rows=60, columns=80), folder / "c.zarr", layout={"y": (8, 16), "x": (8, 16)})
    return ck.open(folder / "c.zarr")


@pytest.fixture(scope="module")
def plain(make_cube: MakeCube, folder: Path) -> xr.Dataset:
    """A store whose chunks are objects of their own, so that reads can be counted."""
    ck.write(make_cube(rows=60, columns=80), folder / "p.zarr", layout={"y": 8, "x": 8})
    return ck.open(folder / "p.zarr")


@pytest.fixture
def gets(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is read of chunks."""
    counted: Counter[str] = Counter()
    original = parts.opened

    def opened(store: Any, key: str, **named: Any) -> Any:
        if "data/c/" in key:
            counted[key] += 1
        return original(store, key, **named)

    monkeypatch.setattr(chunk_reader, "opened", opened)
    return counted


def stream(cube: Any, plan: Any, **options: Any) -> BlockStream:
    """A stream of 8 in a batch, shuffled, within 40 chunks of 8 x 8 pixels."""
    cubes, plans = (each if isinstance(each, list) else [each] for each in (cube, plan))
    companions = {name: options.pop(name, None) for name in ("labels", "mask", "aux")}
    chosen = {"batch": 8, "shuffle": True, "seed": 0, "buffer": 40 * 8 * 8 * 12 * 2} | options
    return BlockStream(sources=[make_source(each, **companions) for each in cubes], plans=plans, **chosen)


def hashes(patches: Any) -> list[str]:
    return sorted(hashlib.sha256(np.asarray(patch).tobytes()).hexdigest() for patch in patches)


def numbers(batches: Any) -> list[int]:
    return [int(number) for each in batches for number in each["index"]]


@pytest.mark.parametrize("kind", ["stored", "memory", "dask", "cropped"])
@pytest.mark.parametrize(("size", "stride"), [(8, 8), (10, 3), (17, 17)])
def test_patches_are_those_of_plain_xbatcher_bit_by_bit(
    stored: xr.Dataset, kind: str, size: int, stride: int
) -> None:
    cube = {
        "stored": stored,
        "memory": stored.compute(),
        "dask": stored.compute().chunk({"y": 13, "x": 20, "time": 3}),
        "cropped": stored.isel(y=slice(3, 50), time=slice(1, None)),
    }[kind]
    sizes = {"time": cube.sizes["time"], "band": 3, "y": size, "x": size}
    overlap = {"y": size - stride, "x": size - stride}
    expected = hashes(xbatcher.BatchGenerator(cube["data"].compute(), sizes, overlap))
    plan = PatchPlan(cube, size, stride=stride, edge="drop")
    found = [patch for each in stream(cube, plan).pass_over() for patch in each["x"]]
    assert hashes(found) == expected


def test_the_index_says_which_patch_of_the_plan_it_is(stored: xr.Dataset) -> None:
    plan, values = PatchPlan(stored, 10, stride=7), stored["data"].to_numpy()
    for each in stream(stored, plan).pass_over():
        for number, patch in zip(each["index"], each["x"], strict=True):
            (top, bottom), (left, right) = plan.bounds("y")[number], plan.bounds("x")[number]
            np.testing.assert_array_equal(patch, values[:, :, top:bottom, left:right])


@pytest.mark.parametrize("shuffle", [True, False])
def test_one_epoch_reads_each_chunk_once(plain: xr.Dataset, gets: Counter[str], *, shuffle: bool) -> None:
    for plan in (PatchPlan(plain, 8, edge="drop"), PatchPlan(plain, 4), PixelPlan(plain)):
        gets.clear()
        reading = stream(plain, plan, shuffle=shuffle)
        list(reading.pass_over())
        assert len(gets) == reading.blocks.touched
        assert set(gets.values()) == {1}
        assert reading.blocks.amplification == 1


def test_the_stated_amplification_is_what_is_read(plain: xr.Dataset, gets: Counter[str]) -> None:
    for buffer in (10**9, 200_000, 30_000, 1000):
        gets.clear()
        reading = stream(plain, PatchPlan(plain, 10, stride=3), buffer=buffer)
        list(reading.pass_over())
        assert sum(gets.values()) == reading.blocks.decoded
        assert len(gets) == reading.blocks.touched
    assert stream(plain, PatchPlan(plain, 10, stride=3), buffer=10**9).blocks.amplification <= 1.1


@pytest.mark.parametrize("plan", ["patches", "pixels"])
def test_every_sample_comes_once_for_any_shards(stored: xr.Dataset, plan: str) -> None:
    reading = stream(
        stored, PatchPlan(stored, 9, stride=5) if plan == "patches" else PixelPlan(stored), batch=7
    )
    for shards in (1, 2, 3, 8):
        found = [
            number
            for shard in range(shards)
            for number in numbers(reading.pass_over(shard=Shard(number=shard, count=shards), sharing=shards))
        ]
        assert sorted(found) == list(range(reading.total))


def test_orders_differ_by_epoch_and_repeat_by_seed(stored: xr.Dataset) -> None:
    plan = PatchPlan(stored, 8)
    one, same, other = (stream(stored, plan, seed=seed) for seed in (1, 1, 2))
    assert numbers(one.pass_over(0)) == numbers(same.pass_over(0))
    assert numbers(one.pass_over(0)) != numbers(one.pass_over(1))
    assert numbers(one.pass_over(0)) != numbers(other.pass_over(0))
    inside = PatchPlan(stored, 8, edge="drop")
    assert numbers(stream(stored, inside, shuffle=False).pass_over()) == list(range(len(inside)))


@pytest.mark.parametrize("stride", [8, 3])
def test_a_pass_goes_on_without_reading_what_is_over(
    plain: xr.Dataset, gets: Counter[str], stride: int
) -> None:
    reading = stream(plain, PatchPlan(plain, 8, stride=stride, edge="drop"), buffer=12 * 8 * 8 * 24)
    whole = list(reading.pass_over(2))
    for start in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        gets.clear()
        rest = list(reading.pass_over(2, start=start))
        for mine, theirs in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(mine["index"], theirs["index"])
            np.testing.assert_array_equal(mine["x"], theirs["x"])
    assert not gets
    list(reading.pass_over(2, start=len(whole) - 2))
    if stride == 8:
        assert 0 < len(gets) <= 16


def test_pixels_come_with_their_place(stored: xr.Dataset) -> None:
    values = stored["data"].to_numpy()
    order = np.arange(60 * 80).reshape(60, 80)
    plan = PixelPlan(stored)
    windows = np.concatenate([order[top:end, left:right].ravel() for top, end, left, right in plan.edges])
    seen = []
    for each in stream(stored, plan, batch=100, labels=order).pass_over():
        rows, columns = np.divmod(each["y"], 80)
        np.testing.assert_array_equal(each["x"], values[:, :, rows, columns].transpose(2, 0, 1))
        np.testing.assert_array_equal(each["y"], windows[each["index"]])
        seen.append(len(np.unique(each["y"] // (8 * 80) * 10 + each["y"] % 80 // 8)))
    assert np.median(seen) > 20  # chunks in a batch


def test_random_and_labelled_pixels(stored: xr.Dataset, make_labels: Callable[..., xr.Dataset]) -> None:
    label = make_labels(stored, share=0.05)["label"]
    place = np.arange(60 * 80).reshape(60, 80)
    wanted = PixelPlan(stored, label >= 0)
    found = np.concatenate([each["y"] for each in stream(stored, wanted, labels=place).pass_over()])
    assert sorted(found) == np.flatnonzero(label.to_numpy().ravel() >= 0).tolist()
    assert int(PixelPlan(stored, 77, seed=3).counts().sum()) == 77
    assert stream(stored, PixelPlan(stored, 77)).total == 77
    with pytest.raises(OptionError, match="4800 pixels"):
        PixelPlan(stored, 4801)
    with pytest.raises(LabelError, match="no True"):
        PixelPlan(stored, np.zeros((60, 80), bool))


def test_companions_are_put_in_place_by_their_coordinates(stored: xr.Dataset) -> None:
    place = np.arange(60 * 80).reshape(60, 80)
    coords = {name: stored.coords[name] for name in ("time", "y", "x")}
    labels = xr.DataArray(place, dims=("y", "x"), coords={name: coords[name] for name in ("y", "x")})
    mask = (stored["data"].isel(band=0, drop=True) % 2000 == 0).compute()
    aux = labels.expand_dims(layer=3).transpose("y", "x", "layer") * 2.0
    cube = stored.isel(y=slice(10, 50), x=slice(5, 70), time=slice(1, 3))
    plan = PatchPlan(cube, 8, stride=5)
    flipped = {"labels": labels[::-1], "mask": mask[:, :, ::-1], "aux": aux}
    for each in stream(cube, plan, **flipped).pass_over():
        rows, columns = np.divmod(each["y"], 80)
        np.testing.assert_array_equal(
            each["x"].transpose(0, 3, 4, 1, 2),
            stored["data"].to_numpy()[1:3][:, :, rows, columns].transpose(2, 3, 4, 0, 1),
        )
        np.testing.assert_array_equal(each["mask"], each["x"][:, :, 0] % 2000 == 0)
        np.testing.assert_array_equal(each["aux"], np.stack([each["y"] * 2.0] * 3, axis=1))
        assert each["doy"][0].tolist() == cube["time"].dt.dayofyear.values.tolist()


@pytest.mark.parametrize(
    ("companion", "said"),
    [
        (lambda label: {"labels": label[:-2]}, r"y lacks 2 of the cube's 60 positions along 'y'"),
        (lambda label: {"labels": label.assign_coords(x=label["x"] + 5)}, "lacks 80"),
        (lambda label: {"labels": label.to_numpy()[1:]}, r"y has shape \(59, 80\)"),
        (lambda label: {"mask": label}, r"mask has dims \('y', 'x'\)"),
        (lambda label: {"aux": label.drop_vars(["y", "x"])[1:]}, "no coordinates"),
    ],
)
def test_companions_that_do_not_cover_the_cube(
    stored: xr.Dataset, make_labels: Callable[..., xr.Dataset], companion: Any, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        make_source(stored, **companion(make_labels(stored)["label"]))


def test_the_past_comes_with_the_dates_that_follow(stored: xr.Dataset) -> None:
    plan = PatchPlan(stored, 16, steps=2, horizon=1)
    values, found = stored["data"].to_numpy(), 0
    for each in stream(stored, plan).pass_over():
        for number, past, future, doy in zip(
            each["index"], each["x"], each["future"], each["doy"], strict=True
        ):
            (first, _), (top, bottom), (left, right) = (
                plan.bounds(dim)[number] for dim in ("time", "y", "x")
            )
            np.testing.assert_array_equal(past, values[first : first + 2, :, top:bottom, left:right])
            np.testing.assert_array_equal(future, values[[first + 2], :, top:bottom, left:right])
            assert doy.tolist() == stored["time"].dt.dayofyear.values[first : first + 2].tolist()
            found += 1
    assert found == len(plan) == 2 * 4 * 5


def test_several_cubes_make_one_stream(stored: xr.Dataset, make_cube: MakeCube) -> None:
    other = make_cube(rows=30, columns=33).assign_coords(time=stored["time"] + np.timedelta64(3, "D"))
    plans: list[Plan] = [PatchPlan(stored, 16), PatchPlan(other, 16)]
    batches = list(stream([stored, other], plans).pass_over())
    assert sorted(numbers(batches)) == list(range(len(plans[0]) + len(plans[1])))
    for each in batches:
        for number, patch, doy in zip(each["index"], each["x"], each["doy"], strict=True):
            which = int(number >= len(plans[0]))
            np.testing.assert_array_equal(patch, plans[which][number - which * len(plans[0])]["data"])
            assert doy[0] == 15 + 3 * which
    check_plans([make_source(stored), make_source(other)], plans)
    with pytest.raises(OptionError, match=r"patch is \(16, 16\).*\(6, 6\)"):
        check_plans([make_source(stored), make_source(other)], [plans[0], PatchPlan(other, 6)])
    with pytest.raises(OptionError, match="nothing to stream"):
        check_plans([make_source(stored)], [plans[0].take([])])


def test_series_of_several_cubes_carry_their_own_days(stored: xr.Dataset) -> None:
    other = stored.isel(y=slice(16)).assign_coords(time=stored["time"] + np.timedelta64(3, "D"))
    plans: list[Plan] = [PixelPlan(stored), PixelPlan(other)]
    seen = 0
    for each in stream([stored, other], plans, batch=500).pass_over():
        later = each["index"] >= 60 * 80
        np.testing.assert_array_equal(each["doy"][:, 0], 15 + 3 * later)
        seen += len(later)
    assert seen == 76 * 80


@pytest.mark.parametrize("buffer", [10**6, 20_000])
def test_chunks_of_single_dates_are_read_once_each_by_all_threads(
    make_cube: MakeCube, tmp_path: Path, gets: Counter[str], monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    """Layer by layer, turned and with companions, the same as from a store for patches."""
    monkeypatch.setattr("cubekit.batching.part._LAYER", 100)
    ck.write(
        make_cube(rows=32, columns=48), tmp_path / "c.zarr", layout={"time": 1, "band": 2, "y": 32, "x": 48}
    )
    cube = ck.open(tmp_path / "c.zarr")
    place = np.arange(32 * 48).reshape(32, 48)
    options: Any = {"labels": place, "augment": Augmentation(flip=True, rotate=True), "buffer": buffer}
    reading = stream(cube, PatchPlan(cube, 8), **options)
    values, found = cube["data"].to_numpy(), []
    gets.clear()
    for each in reading.pass_over():
        rows, columns = np.divmod(each["y"], 48)
        np.testing.assert_array_equal(each["x"].transpose(1, 2, 0, 3, 4), values[:, :, rows, columns])
        found += each["index"].tolist()
    assert sorted(found) == list(range(24))
    assert len(gets) == 4 * 2
    assert sum(gets.values()) == reading.blocks.decoded
    assert (reading.blocks.split == 1) == (set(gets.values()) == {1}) == (buffer == 10**6)
    assert reading.read["bytes"] == values.nbytes + place.nbytes


def test_turns_follow_the_labels_and_the_seed(stored: xr.Dataset) -> None:
    place = np.arange(60 * 80).reshape(60, 80)
    augment = Augmentation(flip=True, rotate=True)
    values = stored["data"].to_numpy()
    turned: list[Array] = []
    for shards in (1, 2):
        found: dict[int, Array] = {}
        for shard in range(shards):
            reading = stream(stored, PatchPlan(stored, 8), labels=place, augment=augment)
            for each in reading.pass_over(shard=Shard(number=shard, count=shards)):
                rows, columns = np.divmod(each["y"], 80)
                np.testing.assert_array_equal(each["x"].transpose(1, 2, 0, 3, 4), values[:, :, rows, columns])
                found |= dict(zip(each["index"].tolist(), each["y"], strict=True))
        turned.append(np.array([found[number] for number in sorted(found)]))
    np.testing.assert_array_equal(turned[0], turned[1])  # for any number of workers
    corners = {tuple(np.argsort(patch[[0, 0, -1, -1], [0, -1, 0, -1]])) for patch in turned[0]}
    assert len(corners) == 8


def test_dates_are_dropped_and_noise_added() -> None:
    x = np.ones((200, 10, 3, 2, 2), "float32")
    valid = np.ones(x.shape, bool)
    numbers_ = np.arange(200)
    lost, seen = Augmentation(drop_dates=0.3).altered(x, valid, numbers_, (0, 0))
    assert np.isnan(lost[~seen]).all()
    assert (seen == seen[:, :, :1, :1, :1]).all()
    assert seen.mean() == pytest.approx(0.7, abs=0.03)
    hard, seen = Augmentation(drop_dates=0.99).altered(x, valid, numbers_, (0, 0))
    assert seen.any(axis=(1, 2, 3, 4)).all()
    noisy, _ = Augmentation(jitter=0.1).altered(x, valid, numbers_, (0, 0))
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    gained, _ = Augmentation(gain=0.1).altered(x, valid, numbers_, (0, 0))
    assert gained.std() == pytest.approx(0.1, rel=0.1)
    assert (gained == gained[:, :1, :, :1, :1]).all()
    part, _ = Augmentation(jitter=0.1).altered(x[7:9], valid[7:9], numbers_[7:9], (0, 0))
    np.testing.assert_array_equal(part, noisy[7:9])
    assert hard.shape == x.shape
    with pytest.raises(OptionError, match="drop_dates"):
        Augmentation(drop_dates=1)
    with pytest.raises(OptionError, match="jitter"):
        Augmentation(jitter=-1)


def patches_of_chunks(across: int, side: int) -> Blocks:
    """Blocks of 64 x 64 patches of 24 dates and 10 bands of 16 bits, in square chunks."""
    first = np.arange(0, side * across, 64)
    top, left = (each.ravel() for each in np.meshgrid(first, first, indexing="ij"))
    edges = np.arange(0, side * across + 1, side)
    chunks = Chunks(rows=edges, columns=edges, pixel_bytes=24 * 10 * 2)
    rows, columns = (np.stack([each, each + 64], 1) for each in (top, left))
    return plan_blocks(rows, columns, chunks, budget=512_000_000)


@pytest.mark.parametrize(("side", "across"), [(128, 40), (256, 12), (256, 43)])
def test_the_design_effect_is_below_the_bar_with_the_default_buffer(side: int, across: int) -> None:
    blocks = patches_of_chunks(across, side)
    # memory as BlockStream.held counts it
    held = 512_000_000 / blocks.block_bytes - 4
    random, measured, stated = np.random.default_rng(0), [], []
    total = len(blocks.item)
    for epoch in range(3):
        order = schedule(blocks, held=held, seed=(0, epoch), apart=True)
        cuts = np.arange(32, total + 1, 32)
        stated.append(design_effect(order.place, cuts))
        for _ in range(12):  # patches of a chunk all alike
            value = random.standard_normal(len(blocks.run))[blocks.item[order.items]]
            means = value[: cuts[-1]].reshape(-1, 32).mean(axis=1)
            measured.append(means.var() / (value.var() / 32 * (total - 32) / (total - 1)))
        assert order.most_waiting * 64 * 64 * 480 <= (held + 1) * blocks.block_bytes
    assert np.mean(stated) <= 1.5
    assert np.mean(stated) == pytest.approx(np.mean(measured), rel=0.15)


def test_the_stated_design_effect_is_that_of_real_batches(make_cube: MakeCube, tmp_path: Path) -> None:
    """Every chunk of every band has a value of its own, and bands are draws of it."""
    cube = make_cube(rows=192, columns=192, steps=1, bands=40)
    random = np.random.default_rng(5)
    chunks = random.integers(1000, 9000, (1, 40, 12, 12)).repeat(16, 2).repeat(16, 3)
    noise = random.integers(-300, 300, chunks.shape)
    cube["data"].data = (chunks + noise).astype("uint16")
    ck.write(cube, tmp_path / "c.zarr", layout={"y": 16, "x": 16})
    stored = ck.open(tmp_path / "c.zarr")
    for batch, apart in ((16, False), (32, True)):  # whole blocks are enough; patches make room one by one
        reading = stream(stored, PatchPlan(stored, 4), batch=batch, buffer=14 * 16 * 16 * 40 * 2)
        assert reading.apart() is apart
        ratios = []
        for epoch in range(3):
            batches = [each["x"].mean(axis=(1, 3, 4), dtype="float64") for each in reading.pass_over(epoch)]
            values = np.concatenate(batches)
            means = np.stack([each.mean(axis=0) for each in batches])
            shuffled = values[np.random.default_rng(epoch).permutation(len(values))]
            alone = np.stack([each.mean(axis=0) for each in np.split(shuffled, len(batches))])
            ratios.append(means.var(axis=0).sum() / alone.var(axis=0).sum())
        assert reading.spread() == pytest.approx(np.mean(ratios), rel=0.15)


def test_patches_that_were_given_out_make_room(
    make_cube: MakeCube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ck.write(
        make_cube(rows=256, columns=256, steps=2, bands=2), tmp_path / "c.zarr", layout={"y": 32, "x": 32}
    )
    stored = ck.open(tmp_path / "c.zarr")
    alive, most, original = [0], [0], Part.cut

    def cut(self: Part, block: int, raw: dict[str, Array]) -> dict[int, dict[str, Array]]:
        found = original(self, block, raw)
        alive[0] += len(found)
        most[0] = max(most[0], alive[0])
        for each in found.values():
            weakref.finalize(each["x"], lambda: alive.__setitem__(0, alive[0] - 1))
        return found

    monkeypatch.setattr(Part, "cut", cut)
    reading = stream(stored, PatchPlan(stored, 8), batch=32, buffer=12 * 32 * 32 * 4 * 2)
    assert sum(len(each["x"]) for each in reading.pass_over(1)) == 1024
    assert reading.order(1, Shard()).most_held > 12  # more blocks than would fit whole
    assert 8 * 16 < most[0] <= 12 * 16
    gc.collect()
    assert not alive[0]


def test_damage_ends_the_pass_with_the_place(stored: xr.Dataset, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "c.zarr", tmp_path / "c.zarr")
    stored = ck.open(tmp_path / "c.zarr")
    victim = next(path for path in (tmp_path / "c.zarr/data/c").rglob("*") if path.is_file())
    victim.write_bytes(b"\0" * victim.stat().st_size)
    with pytest.raises(CubekitError, match="'data' cannot be read at"):
        list(stream(stored, PatchPlan(stored, 8)).pass_over())
