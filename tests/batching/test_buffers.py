import numpy as np

from cubekit.batching.buffers import Buffers
from cubekit.typing import Array

LARGE, TYPE = (1000, 600), np.dtype("uint16")


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    buffers = Buffers(lambda size: np.empty(size, "uint8"))
    one = buffers(LARGE, TYPE)
    first = address(one)
    assert address(buffers(LARGE, TYPE)) != first
    view = one[3:, ::2]
    del one
    assert address(buffers(LARGE, TYPE)) != first  # a view still shows it
    del view
    assert first in {address(buffers(LARGE, TYPE)) for _ in range(3)}
    assert buffers(LARGE, TYPE).shape == LARGE
    assert buffers((600, 500), np.dtype("float32")).dtype == "float32"


def test_little_is_kept() -> None:
    made: list[int] = []

    def make(size: int) -> Array:
        made.append(size)
        return np.empty(size, "uint8")

    buffers = Buffers(make, keep=2)
    kept = [buffers((size, 2000), TYPE) for size in range(500, 510)]
    assert len(made) == len(kept) == 10
    del kept
    again = [buffers((size, 2000), TYPE) for size in (508, 509, 500)]
    assert made[10:] == [2000 * 500 * 2]  # two pieces were kept
    assert len(again) == 3
