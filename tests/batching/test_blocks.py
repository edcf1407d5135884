import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.batching.blocks import Chunks, plan_blocks
from cubekit.batching.schedule import design_effect, schedule, share_out
from cubekit.typing import IntArray


def borders(size: int, side: int) -> IntArray:
    return np.unique(np.append(np.arange(0, size, side), size))


def grid(size: int, patch: int, stride: int) -> tuple[IntArray, IntArray]:
    first = np.unique(np.append(np.arange(0, size - patch + 1, stride), size - patch))
    top, left = (each.ravel() for each in np.meshgrid(first, first, indexing="ij"))
    return np.stack([top, top + patch], 1), np.stack([left, left + patch], 1)


@settings(max_examples=150)
@given(
    size=st.integers(8, 60),
    side=st.integers(3, 30),
    patch=st.integers(1, 8),
    stride=st.integers(1, 8),
    budget=st.integers(50, 100_000),
    seed=st.integers(0, 99),
)
def test_every_item_lies_in_its_block_and_blocks_fit_together(
    size: int, side: int, patch: int, stride: int, budget: int, seed: int
) -> None:
    rows, columns = grid(size, patch, stride)
    kept = np.random.default_rng(seed).random(len(rows)) < 0.7
    kept[0] = True
    rows, columns = rows[kept], columns[kept]
    chunks = Chunks(rows=borders(size, side), columns=borders(size, side), pixel_bytes=2)
    blocks = plan_blocks(rows, columns, chunks, budget=budget)
    top, bottom, left, right = blocks.window[blocks.item].T
    assert (rows[:, 0] >= top).all()
    assert (rows[:, 1] <= bottom).all()
    assert (columns[:, 0] >= left).all()
    assert (columns[:, 1] <= right).all()
    follows = np.append(False, blocks.run[1:] == blocks.run[:-1])
    above = np.flatnonzero(follows) - 1
    carried = blocks.fresh > blocks.window[:, 0]
    assert not (carried & ~follows).any()  # only what follows takes rows over, and finds them above
    assert (blocks.window[above, 0] <= blocks.window[above + 1, 0]).all()
    assert (blocks.window[above, 1] >= blocks.fresh[above + 1])[carried[above + 1]].all()
    assert (blocks.window[above, 2:] == blocks.window[above + 1, 2:]).all()
    assert blocks.decoded >= blocks.touched > 0


def test_patches_inside_chunks_read_each_chunk_once() -> None:
    rows, columns = grid(1024, 64, 64)
    chunks = Chunks(rows=borders(1024, 128), columns=borders(1024, 128), pixel_bytes=480)
    blocks = plan_blocks(rows, columns, chunks, budget=512_000_000)
    assert (blocks.decoded, blocks.touched, len(blocks.run)) == (64, 64, 64)
    some = plan_blocks(rows[:3], columns[:3], chunks, budget=512_000_000)
    assert (some.decoded, some.touched) == (2, 2)


def test_overlapping_patches_of_a_tile_read_hardly_more_than_once() -> None:
    rows, columns = grid(10980, 64, 16)
    chunks = Chunks(rows=borders(10980, 128), columns=borders(10980, 128), pixel_bytes=480)
    blocks = plan_blocks(rows, columns, chunks, budget=512_000_000)
    assert blocks.amplification <= 1.1
    assert blocks.block_bytes <= 512e6 / 2


def test_a_chunk_that_exceeds_the_buffer_is_read_in_pieces() -> None:
    rows, columns = grid(2048, 64, 64)
    chunks = Chunks(rows=borders(2048, 2048), columns=borders(2048, 2048), pixel_bytes=480, layers=240)
    blocks = plan_blocks(rows, columns, chunks, budget=512_000_000)
    assert blocks.split == blocks.amplification == 16
    assert blocks.block_bytes <= 512e6 / 4


@given(
    shards=st.integers(1, 7),
    held=st.integers(1, 20),
    seed=st.integers(0, 9),
    shuffle=st.booleans(),
    apart=st.booleans(),
)
def test_shards_share_out_the_items_and_hold_few_blocks(
    *, shards: int, held: int, seed: int, shuffle: bool, apart: bool
) -> None:
    rows, columns = grid(200, 10, 10)
    chunks = Chunks(rows=borders(200, 20), columns=borders(200, 20), pixel_bytes=2)
    blocks = plan_blocks(rows, columns, chunks, budget=10**9)
    parts = [
        schedule(
            blocks, held=held, seed=(seed,) if shuffle else None, apart=apart, shard=shard, shards=shards
        )
        for shard in range(shards)
    ]
    assert sorted(np.concatenate([part.items for part in parts]).tolist()) == list(range(400))
    for part in parts:
        assert part.most_held <= (2 if apart else 1) * held + 1
        assert part.most_waiting <= 4 * (held + 2)  # four patches in a block
        assert (part.blocks[part.place] == blocks.item[part.items]).all()
    loads = np.bincount(share_out(blocks, shards=shards, seed=None), minlength=shards)
    assert loads.max() - loads.min() <= 1


def test_runs_are_read_in_order() -> None:
    rows, columns = grid(400, 12, 5)
    chunks = Chunks(rows=borders(400, 20), columns=borders(400, 20), pixel_bytes=2)
    blocks = plan_blocks(rows, columns, chunks, budget=40_000)
    assert len(np.unique(blocks.run)) > 1
    order = schedule(blocks, held=3, seed=(1,)).blocks
    for run in np.unique(blocks.run):
        assert (np.diff(order[blocks.run[order] == run]) == 1).all()


def test_the_design_effect_is_one_of_a_shuffle_and_the_batch_of_a_scan() -> None:
    block = np.repeat(np.arange(400), 50)
    cuts = np.arange(50, 20_001, 50)
    assert design_effect(block, cuts) > 40
    shuffled = np.random.default_rng(0).permutation(block)
    assert 0.97 < design_effect(shuffled, cuts) < 1.03
    assert design_effect(block, np.arange(1, 20_001)) == 1
