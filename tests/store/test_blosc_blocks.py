import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.blosc import Blosc

from cubekit.store.blosc_blocks import blocks_of


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 90_000),
    code=st.sampled_from(["zstd", "lz4", "blosclz", "zlib"]),
    shuffle=st.sampled_from([0, 1, 2]),
    typesize=st.sampled_from([1, 2, 4]),
    blocksize=st.sampled_from([0, 4096, 10_000]),
    noise=st.booleans(),
    span=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_some_blocks_decode_to_the_numbers_of_the_whole(
    size: int,
    code: str,
    shuffle: int,
    typesize: int,
    blocksize: int,
    *,
    noise: bool,
    span: tuple[float, float],
) -> None:
    random = np.random.default_rng(size)
    values = random.integers(0, 256, size, "uint8") if noise else (np.arange(size) // 50).astype("uint8")
    packed = Blosc(code, 1, shuffle, blocksize, typesize).encode(values)
    start, stop = sorted(int(each * size) for each in span)
    stop = max(stop, start + 1) if start < size else size
    start = min(start, stop - 1)
    found = blocks_of(np.frombuffer(packed, "uint8"), start, stop)
    if found is None:  # one block, or not compressed
        assert int.from_bytes(packed[8:12], "little") >= size or packed[2] & 2
        return
    assert found.first <= start
    assert stop <= found.first + found.size
    out = np.full(found.size, 7, "uint8")
    Blosc().decode(found.packed, out)
    np.testing.assert_array_equal(out, values[found.first : found.first + found.size])
    assert found.packed.size <= len(packed)


def test_blocks_may_lie_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As several threads leave them."""
    values = (np.arange(2_000_000) // 9 % 251).astype("uint8")
    monkeypatch.setattr(numcodecs.blosc, "use_threads", True)
    before = numcodecs.blosc.set_nthreads(4)
    try:
        packed = np.frombuffer(Blosc("zstd", 1, Blosc.NOSHUFFLE, 4096).encode(values), "uint8")
    finally:
        numcodecs.blosc.set_nthreads(before)
    for start, stop in ((0, 1), (4095, 4097), (1_000_000, 1_300_000), (1_999_999, 2_000_000)):
        found = blocks_of(packed, start, stop)
        assert found is not None
        out = np.empty(found.size, "uint8")
        Blosc().decode(found.packed, out)
        np.testing.assert_array_equal(out, values[found.first : found.first + found.size])


@pytest.mark.parametrize("at", [(8, 12), (12, 16), (16, 20), (20, 24)])
@pytest.mark.parametrize("number", [0, 1, 2**31])
def test_a_damaged_head_is_left_to_blosc(at: tuple[int, int], number: int) -> None:
    packed = bytearray(Blosc("zstd", 1, Blosc.SHUFFLE, 4096).encode(np.arange(20_000, dtype="uint16")))
    packed[slice(*at)] = number.to_bytes(4, "little")
    assert blocks_of(np.frombuffer(bytes(packed), "uint8"), 10, 9000) is None
