"""How a scene is cut: blocks for the tasks, and shards for the store they are written to."""

import math
from collections.abc import Sequence

TILE = 256
"""Pixels along a block, about: small enough to share among workers, large enough to hide a task's cost."""

LARGEST_OBJECT = 1024
"""Pixels along a chunk of the store, at most; and along a shard, unless the cube's own chunks are longer."""

FEWEST_OBJECTS = 16
"""Shards along a large scene, at least: what a killed run loses is a shard for each worker."""


def tiles(own: Sequence[int], tile: int | None) -> tuple[int, ...]:
    """Cut a dimension into blocks.

    Parameters
    ----------
    own : sequence of int
        Lengths of the cube's own chunks.
    tile : int or None
        Length asked for. None joins short chunks and cuts long ones evenly to about `TILE` pixels, so that no
        chunk of the cube is read for more blocks than lie in it.

    Returns
    -------
    tuple of int
        Lengths; their sum is that of `own`.
    """
    if tile is not None:
        size = sum(own)
        return tuple(min(tile, size - start) for start in range(0, size, tile))
    blocks: list[int] = []
    held = 0
    for length in own:
        held += length
        if held >= TILE:
            blocks += _even(held) if held == length else [held]
            held = 0
    return (*blocks, held) if held else tuple(blocks)


def objects(own: Sequence[int], tile: int | None) -> tuple[int, int]:
    """Choose chunk and shard of the store along a dimension.

    Parameters
    ----------
    own : sequence of int
        Lengths of the cube's own chunks.
    tile : int or None
        Length of a block, where one was asked for.

    Returns
    -------
    chunk, shard : int
        The shard is a multiple of the chunk, and ends where blocks and the cube's own chunks end, so that
        nothing is read or predicted twice.
    """
    length = tile or max(own)
    group = length * math.ceil(TILE / length)
    wanted = min(LARGEST_OBJECT, max(TILE, sum(own) // FEWEST_OBJECTS))
    shard = group * min(math.ceil(wanted / group), max(1, LARGEST_OBJECT // group))
    chunk = max(size for size in range(1, min(shard, LARGEST_OBJECT) + 1) if shard % size == 0)
    return (chunk, shard) if chunk >= min(shard, TILE // 2) else (shard, shard)


def _even(length: int) -> list[int]:
    """Cut a length into whole parts of about `TILE`, as equal as can be."""
    count = max(1, round(length / TILE))
    part, longer = divmod(length, count)
    return [part + 1] * longer + [part] * (count - longer)
