import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from cubekit.errors import SecurityError, StoreError
from cubekit.store.chunk_reader import ChunkReader
from cubekit.store.layout import codecs
from cubekit.store.objects import InsideView, WholeView
from cubekit.typing import Array

KINDS = ("bool", "uint8", "int8", "int16", "uint16", "uint32", "int64", "float32", "float64")
PACKED: dict[str, Any] = {
    "ours": codecs(),
    "blosc": BloscCodec(cname="lz4", shuffle="shuffle"),
    "zstd": ZstdCodec(level=1),
    "plain": None,
    "checked": (Crc32cCodec(),),
}


def made(store: Any, shape: tuple[int, ...], chunks: tuple[int, ...], **options: Any) -> Any:
    defaults: dict[str, Any] = {"dtype": "uint16", "compressors": codecs(), "fill_value": 7}
    return zarr.create_array(store, name="data", shape=shape, chunks=chunks, **(defaults | options))


def reader(store: Any, *, whole: bool = False) -> tuple[ChunkReader, Any]:
    view = (WholeView if whole else InsideView)(store)
    array = zarr.open_group(view, mode="r")["data"]
    found = ChunkReader.of(array, view)
    assert found is not None
    return found, array


def group(store: Any) -> Any:
    zarr.create_group(store, overwrite=True)
    return store


@st.composite
def stored(draw: st.DrawFn) -> dict[str, Any]:
    sides = draw(
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 20)), min_size=1, max_size=3)
    )
    chunks, many, shape = (tuple(each) for each in zip(*sides, strict=True))
    shards = tuple(side * times for side, times in zip(chunks, many, strict=True))
    edges = [sorted(draw(st.tuples(*[st.integers(0, size)] * 2))) for size in shape]
    return {
        "shape": shape,
        "chunks": chunks,
        "shards": shards if draw(st.booleans()) else None,
        "dtype": draw(st.sampled_from(KINDS)),
        "packed": draw(st.sampled_from(sorted(PACKED))),
        "endian": draw(st.sampled_from(["little", "big"])),
        "fill": draw(st.sampled_from([0, 1])),
        "window": tuple(slice(*edge) for edge in edges),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("local", [True, False])
@settings(max_examples=30, deadline=None)
@given(case=stored())
def test_any_window_reads_as_by_zarr_python(
    case: dict[str, Any],
    local: bool,  # noqa: FBT001
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store: Any = LocalStore(tmp_path_factory.mktemp("z")) if local else MemoryStore()
    array = made(
        group(store), case["shape"], case["chunks"], dtype=case["dtype"], shards=case["shards"],
        compressors=PACKED[case["packed"]], fill_value=case["fill"],
        serializer=BytesCodec(endian=case["endian"]),
    )  # fmt: skip
    rng = np.random.default_rng(case["seed"])
    values = rng.integers(0, 2, case["shape"]).astype(case["dtype"])
    array[...] = values if case["seed"] % 2 else np.full_like(values, case["fill"])  # chunks left out
    some = tuple(slice(size // 2) for size in case["shape"])
    array[some] = values[some]
    found, opened = reader(store)
    expected = opened[case["window"]]
    window = found.read(case["window"])
    assert window.dtype == expected.dtype
    assert window.tobytes() == expected.tobytes()
    frame = np.zeros([n + 2 for n in expected.shape], expected.dtype)
    inner = frame[(slice(1, -1),) * frame.ndim]
    assert found.read(case["window"], out=inner) is inner
    np.testing.assert_array_equal(inner, expected)
    assert not frame.sum() - inner.sum()


@pytest.fixture(params=["shards", "chunks"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LocalStore, Path]:
    """Return a store and the file of one object."""
    store = LocalStore(tmp_path)
    shards = (8, 8) if request.param == "shards" else None
    values = np.random.default_rng(0).integers(0, 60_000, (16, 16)).astype("uint16")
    made(group(store), (16, 16), (4, 4), shards=shards)[...] = values
    return store, tmp_path / "data/c/0/0"


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: (
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if at >= 0 else flipped(len(data) + at)(data)
    )


@pytest.mark.parametrize("damage", [torn, flipped(-1), flipped(-3), flipped(4), flipped(30), lambda _: b""])
def test_damage_is_found_where_zarr_python_finds_it(
    damage: Callable[[bytes], bytes], damaged: tuple[LocalStore, Path]
) -> None:
    store, path = damaged
    path.write_bytes(damage(path.read_bytes()))
    found, array = reader(store)
    window = (slice(0, 4), slice(0, 4))
    outcomes = []
    for read in (lambda: array[window], lambda: found.read(window)):
        try:
            outcomes.append(read().tobytes())
        except (ValueError, RuntimeError):
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
    np.testing.assert_array_equal(found.read((slice(0, 16), slice(8, 16))), array[:, 8:])


def test_every_flipped_bit_of_a_shard_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made(group(store), (8, 8), (4, 4), shards=(8, 8))[...] = np.arange(64, dtype="uint16").reshape(8, 8)
    path = tmp_path / "data/c/0/0"
    whole, found = path.read_bytes(), reader(store)[0]
    for at in range(len(whole)):
        path.write_bytes(flipped(at)(whole))
        with pytest.raises(ValueError, match="checksum"):
            found.read((slice(0, 8), slice(0, 8)))


def test_a_damaged_index_without_checksum_asks_for_no_memory(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    shard = ShardingCodec(chunk_shape=(4, 4), codecs=[BytesCodec()], index_codecs=[BytesCodec()])
    made(group(store), (8, 8), (8, 8), serializer=shard, compressors=None)[...] = 3
    path = tmp_path / "data/c/0/0"
    data = bytearray(path.read_bytes())
    data[-8:] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"reshape|size"):
        reader(store)[0].read((slice(0, 8), slice(0, 8)))


def test_blosc_that_says_that_it_is_longer_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made(group(store), (4, 4), (4, 4), compressors=BloscCodec(cname="zstd"))[...] = 3
    path = tmp_path / "data/c/0/0"
    data = bytearray(path.read_bytes())
    for at, number in ((12, 1 << 20), (4, 1 << 30)):
        path.write_bytes(data[:at] + number.to_bytes(4, "little") + data[at + 4 :])
        with pytest.raises(ValueError, match="of Blosc for"):
            reader(store)[0].read((slice(0, 4), slice(0, 4)))


@pytest.mark.parametrize("shards", [None, (8, 8)])
@pytest.mark.parametrize("local", [True, False])
def test_a_missing_object_is_an_error_in_a_finished_store_only(
    shards: Any,
    local: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    store: Any = LocalStore(tmp_path) if local else MemoryStore()
    made(group(store), (16, 16), (4, 4), shards=shards)[...] = 1
    asyncio.run(store.delete("data/c/1/1"))
    window = (slice(4, 16), slice(4, 16))
    found, array = reader(store)
    np.testing.assert_array_equal(found.read(window), array[window])
    assert 7 in found.read(window)
    with pytest.raises(StoreError, match="chunk data/c/1/1 is missing"):
        reader(store, whole=True)[0].read(window)


def test_a_link_that_leads_out_of_the_store_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a.zarr")
    made(group(store), (4, 4), (4, 4), compressors=None)[...] = 1
    path = tmp_path / "a.zarr/data/c/0/0"
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(SecurityError, match="leads out"):
        reader(store)[0].read((slice(0, 4), slice(0, 4)))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": (BloscCodec(), ZstdCodec())},
        {"filters": TransposeCodec(order=(1, 0))},
        {"dtype": "complex64", "fill_value": 0},
        {"zarr_format": 2, "compressors": None},
    ],
)
def test_other_layouts_are_left_to_zarr(options: dict[str, Any]) -> None:
    array = made(MemoryStore(), (8, 8), (4, 4), **options)
    assert ChunkReader.of(array, InsideView(array.store)) is None


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    array = made(MemoryStore(), (8, 8), (4, 4))
    assert ChunkReader.of(array, InsideView(array.store)) is not None
    monkeypatch.setenv("CUBEKIT_CHUNK_READER", "0")
    assert ChunkReader.of(array, InsideView(array.store)) is None


class Counting(InsideView):
    """Counts requests and bytes."""

    requests = 0
    sent = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await super().get(key, prototype, byte_range)
        self.requests += 1
        self.sent += len(found or b"")
        return found


@pytest.mark.parametrize(
    ("window", "requests"),
    [
        ((slice(0, 64), slice(0, 64)), 1),  # a whole shard
        ((slice(0, 16), slice(0, 16)), 2),  # its index, and neighbours in one go
        ((slice(60, 68), slice(60, 68)), 8),
        ((slice(128, 150), slice(0, 64)), 1),  # all that there is at the edge
    ],
)
def test_a_service_is_asked_seldom(window: tuple[slice, ...], requests: int) -> None:
    store = Counting(MemoryStore())
    made(group(store), (150, 150), (8, 8), shards=(64, 64), compressors=None)[...] = 1
    array: Any = zarr.open_group(store, mode="r")["data"]
    found: Array = ChunkReader.of(array, store).read(window)  # type: ignore[union-attr]
    assert (found == 1).all()
    store.requests = 0
    ChunkReader.of(array, store).read(window)  # type: ignore[union-attr]
    assert store.requests == requests
