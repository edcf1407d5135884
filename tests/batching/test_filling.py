import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubekit.batching.blocks import Blocks, Chunks, plan_blocks
from cubekit.batching.fetch import AHEAD
from cubekit.batching.filling import Filling
from cubekit.batching.part import Arrays
from cubekit.batching.schedule import Schedule, schedule
from cubekit.typing import IntArray


def tiled(across: int) -> Blocks:
    """Blocks of 16 patches each."""
    top, left = (each.ravel() for each in np.indices((4 * across, 4 * across)) * 8)
    edges = np.arange(0, 32 * across + 1, 32)
    chunks = Chunks(rows=edges, columns=edges, pixel_bytes=1)
    rows, columns = (np.stack([each, each + 8], 1) for each in (top, left))
    return plan_blocks(rows, columns, chunks, budget=10**9)


def numbered(count: int) -> Arrays:
    return {"n": np.full(count, -1)}


def filled(order: Schedule, weights: IntArray, cuts: IntArray, start: int) -> tuple[list[IntArray], int]:
    """Read block after block and write the number of every sample; also the most batches under way."""
    ends = np.cumsum(weights[order.items])
    filling, most, given_out = Filling(order, weights, cuts, numbered, start=start), 0, []
    read, under_way = -1, set()
    firsts = np.concatenate([[0], cuts])[:-1]
    for number in range(start, len(cuts)):
        low, high = np.searchsorted(ends, [firsts[number], cuts[number] - 1], side="right")
        while read < order.place[low : high + 1].max():
            read += 1
            for item, inside, batch, row, _ in filling.targets(read):
                batch["n"][row : row + inside.stop - inside.start] = item * 1000 + np.arange(100)[inside]
                under_way.add(id(batch))
            most = max(most, len(filling._open))  # noqa: SLF001
        given_out.append(filling.take(number)["n"])
    assert not filling._open  # noqa: SLF001
    return given_out, most


@given(
    seed=st.integers(0, 99),
    held=st.integers(1, 12),
    batch=st.integers(1, 50),
    start=st.integers(0, 3),
    heavy=st.booleans(),
)
def test_every_sample_is_written_where_the_order_says(
    seed: int, held: int, batch: int, start: int, *, heavy: bool
) -> None:
    blocks = tiled(3)
    order = schedule(blocks, held=held, seed=(seed, 0))
    size = np.random.default_rng(seed).integers(1, 9 if heavy else 2, len(blocks.item))
    total = int(size.sum())
    batches = -(-total // batch)
    cuts = (np.arange(1, batches + 1) * total) // batches
    expected = np.concatenate([item * 1000 + np.arange(size[item]) for item in order.items])
    found, _ = filled(order, size, cuts, start)
    for number, each in enumerate(found, start):
        first = cuts[number - 1] if number else 0
        np.testing.assert_array_equal(each, expected[first : cuts[number]])


@pytest.mark.parametrize("held", [4, 9, 20])
def test_batches_under_way_fit_where_the_blocks_would(held: int) -> None:
    blocks = tiled(8)
    order = schedule(blocks, held=held, seed=(0, 0))
    total = len(blocks.item)
    _, most = filled(order, np.ones(total, "int64"), np.arange(8, total + 1, 8), 0)
    assert most * 8 <= (held + AHEAD) * 16
