from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from cubekit.store.encode import Encoder
from cubekit.store.layout import ArrayLayout, codecs, plan_layout
from cubekit.store.objects import Objects


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 60), st.integers(1, 60)),
    sides=st.tuples(st.integers(1, 3), st.integers(5, 20), st.integers(5, 20), st.integers(1, 5)),
    kind=st.sampled_from(["uint8", "int16", "uint16", "uint32", "float32", "float64", "bool"]),
    fill=st.sampled_from([0, 1]),
)
def test_objects_are_the_bytes_of_zarr_python(
    shape: tuple[int, ...], sides: tuple[int, ...], kind: str, fill: int
) -> None:
    values = np.random.default_rng(1).integers(0, 200, shape).astype(kind)
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), values)})
    steps, high, wide, many = sides
    sizes = {"time": (steps, steps * 2), "y": (high, high * many), "x": (wide, wide * many)}
    layout = plan_layout(cube, sizes)["data"]
    store = MemoryStore()
    stored = zarr.create_array(
        store, name="data", shape=shape, dtype=kind, chunks=layout.chunks, shards=layout.shards,
        compressors=codecs(), fill_value=fill, config={"write_empty_chunks": True},
    )  # fmt: skip
    stored[...] = values
    objects = Objects(store)
    theirs = {key: objects.read(key) for key in objects.keys("data/c")}
    ours = dict(zip(_keys(layout), _objects(layout, stored, values), strict=True))
    assert ours == theirs


def _objects(layout: Any, stored: Any, values: Any) -> list[bytes]:
    return [b"".join(parts) for parts in Encoder(layout, stored).objects(values)]


def _keys(layout: Any) -> list[str]:
    return ["/".join(["data", "c", *map(str, place)]) for place in np.ndindex(layout.grid)]


@pytest.mark.parametrize("order", ["big", "strided"])
def test_any_memory_layout_is_encoded_alike(order: str) -> None:
    values = np.arange(2 * 30 * 40, dtype="uint16").reshape(2, 30, 40)
    cube = xr.Dataset({"data": (("time", "y", "x"), values)})
    layout = plan_layout(cube, {"y": (10, 20), "x": (10, 20)})["data"]
    other = values.astype(">u2") if order == "big" else np.asfortranarray(values)
    stored = zarr.create_array(
        MemoryStore(), shape=layout.shape, dtype=layout.dtype, chunks=layout.chunks, shards=layout.shards,
        compressors=codecs(), fill_value=0,
    )  # fmt: skip
    expected, found = (_objects(layout, stored, block) for block in (values, other))
    assert found == expected


@pytest.mark.parametrize("shards", [None, (2, 40, 40)])
@pytest.mark.parametrize("given", ["zstd", "big endian", "other blosc"])
def test_other_codecs_are_those_of_the_array(given: str, shards: tuple[int, ...] | None) -> None:
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

    values = np.random.default_rng(2).integers(0, 200, (3, 50, 45)).astype("uint16")
    compressors: dict[str, Any] = {
        "zstd": ZstdCodec(level=3),
        "other blosc": (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()),
    }
    store = MemoryStore()
    stored = zarr.create_array(
        store, name="data", shape=values.shape, dtype="uint16", chunks=(1, 20, 20), shards=shards,
        compressors=compressors.get(given, codecs()), fill_value=7, config={"write_empty_chunks": True},
        serializer=BytesCodec(endian="big" if given == "big endian" else "little"),
    )  # fmt: skip
    stored[...] = values
    objects = Objects(store)
    theirs = {key: objects.read(key) for key in objects.keys("data/c")}
    layout = ArrayLayout(
        name="data", dims=("time", "y", "x"), shape=values.shape, dtype="uint16", chunks=(1, 20, 20),
        shards=shards,
    )  # fmt: skip
    assert dict(zip(_keys(layout), _objects(layout, stored, values), strict=True)) == theirs
