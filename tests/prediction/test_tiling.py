"""Rules that every cut of a scene keeps."""

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cubekit.prediction.tiling import LARGEST_OBJECT, TILE, objects, tiles

regular = st.tuples(st.integers(1, 3000), st.integers(1, 12000)).map(
    lambda pair: tuple(min(pair[0], pair[1] - start) for start in range(0, pair[1], pair[0]))
)


def borders(lengths: tuple[int, ...]) -> set[int]:
    return set(itertools.accumulate(lengths))


@settings(deadline=None)
@given(regular, st.one_of(st.none(), st.integers(1, 2000)))
def test_blocks_cover_the_scene(own: tuple[int, ...], tile: int | None) -> None:
    found = tiles(own, tile)
    assert sum(found) == sum(own)
    assert min(found) >= 1
    assert tile is None or max(found) <= tile


@settings(deadline=None)
@given(regular)
def test_blocks_end_where_own_chunks_end_or_the_other_way_round(own: tuple[int, ...]) -> None:
    found = tiles(own, None)
    assert borders(found) <= borders(own) if own[0] < TILE else borders(own[:-1]) <= borders(found)
    assert max(found) < 2 * TILE
    assert len(found) <= 2 or sorted(found)[1] > TILE // 2, "only the rest at the end may be short"


@settings(deadline=None)
@example(own=(641,) * 16 + (16,), tile=None)
@given(regular, st.one_of(st.none(), st.integers(1, 2000)))
def test_shards_end_where_blocks_end(own: tuple[int, ...], tile: int | None) -> None:
    chunk, shard = objects(own, tile)
    size = sum(own)
    assert shard % chunk == 0
    assert set(range(shard, size, shard)) <= borders(tiles(own, tile))
    if tile is None:
        assert set(range(shard, size, shard)) <= borders(own)
        assert shard <= max(LARGEST_OBJECT, own[0])


def test_usual_scenes() -> None:
    assert tiles((500,), None) == (250, 250)
    assert tiles((64,) * 8 + (10,), None) == (256, 256, 10)
    assert tiles((2048, 2048, 1394), None)[:8] == (256,) * 8
    assert tiles((193, 191), None) == (384,)
    assert objects((500,), None) == (500, 500)
    assert objects((64,) * 172, None) == (768, 768)
    assert objects((2048,) * 6, None) == (1024, 2048)
    assert objects((5490, 5490), None) == (915, 5490)
