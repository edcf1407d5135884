"""Tests of the reader of pickled arrays: what NumPy writes is read, and hostile pickles do nothing at all."""

import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubekit import pickled_arrays
from cubekit.errors import SecurityError
from cubekit.pickled_arrays import read_array_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(folder: Path, content: bytes) -> Any:
    path = folder / "mask.pkl"
    path.write_bytes(content)
    return read_array_pickle(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.eye(3, dtype=bool)),
        np.array(3.5),
        np.zeros((0, 4), "int16"),
        np.arange(1000, dtype="uint64")[::7],
    ],
    ids=["big-endian", "by column", "one number", "empty", "strided"],
)
def test_arrays_of_numbers_are_read_from_every_protocol(
    tmp_path: Path, protocol: int, array: np.ndarray[Any, Any]
) -> None:
    found = read(tmp_path, pickle.dumps({"mask": [array, (array, None, True, 2.5)]}, protocol=protocol))
    same, (again, *others) = found["mask"]
    for each in (same, again):
        np.testing.assert_array_equal(each, array)
        assert each.dtype == array.dtype
    assert others == [None, True, 2.5]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a"], object), np.array(["a"]), np.zeros(2, [("a", "f4")]), np.zeros(2, "M8[s]"),
        np.zeros(2, complex), np.ma.zeros(3), {1, 2}, print, Path,
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)  # fmt: skip
def test_everything_else_is_refused(tmp_path: Path, protocol: int, value: object) -> None:
    with pytest.raises(SecurityError):
        read(tmp_path, pickle.dumps(value, protocol=protocol))


def nested(depth: int) -> bytes:
    """A tuple of twice the one before, and so on: small to write, endless to walk through or to hash."""
    steps = b"".join(b"h%ch%c\x86q%c" % (n - 1, n - 1, n) for n in range(1, depth))
    return b"K\x01q\x00" + steps


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02\x82\x01.",  # a class by its number in a registry
        b"Pabc\n.",  # an object kept elsewhere
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # the same as an instance
        b"\x80\x02cnumpy\ndtype\n)\x81.",  # made past its constructor
        b"\x80\x02" + nested(31) + b".",
        b"\x80\x02}" + nested(60) + b"K\x01s.",  # as a key
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"a.",  # bytes that are not there
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"a.",
        b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"a.",
        b"\x80\x03cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",  # zeros by the gigabyte
        b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00codeX\x01\x00\x00\x00Osb.",  # an attribute of a class
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",
        b"a.", b"t.", b"0.", b".", b"", b"(.",
    ],
)  # fmt: skip
def test_hostile_pickles_cost_and_change_nothing(tmp_path: Path, content: bytes) -> None:
    before = {builder: dict(vars(builder)) for builder in pickled_arrays._BUILDERS.values()}  # noqa: SLF001
    tracemalloc.start()
    try:
        with pytest.raises(SecurityError):
            read(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert before == {builder: dict(vars(builder)) for builder in before}


def test_a_far_place_in_the_memo_takes_no_room(tmp_path: Path) -> None:
    tracemalloc.start()
    assert read(tmp_path, b"]p999999999\n.") == []
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_endless_instructions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_arrays, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(SecurityError, match="more than 1,000 instructions"):
        read(tmp_path, b"N" * 2000 + b".")
    monkeypatch.setattr(pickled_arrays, "MAX_BYTES", 1000)
    with pytest.raises(SecurityError, match="at most 1000"):
        read(tmp_path, b"N" * 2000 + b".")
