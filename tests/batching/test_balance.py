"""Balanced blocks: the promises of the split, on land whose classes lie in clumps."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cubekit.batching.balance import BalancedSplit, split_balanced
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, SplitError
from cubekit.labels import ClassTable

PIXEL = 2000.0


def land(*, columns: int = 120, rows: int = 80) -> Samples:
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * PIXEL
    x, y = grid.T / 1e4
    waves = np.exp(np.stack([np.sin(x * k / 3) + np.cos(y / (k + 1)) for k in range(4)], axis=1))
    return Samples(
        x=np.zeros((len(grid), 1, 1), "float32"),
        y=(waves / waves.sum(axis=1, keepdims=True)).astype("float32"),
        bands=("red",),
        times=np.array(["2013-01-01"], "datetime64[ns]"),
        classes=ClassTable.of(list("abcd")),
        group=np.arange(len(grid)),
        position=grid,
        crs="EPSG:32630",
        resolution=PIXEL,
        encoding=Encoding(dtype="float32", nodata=np.nan),
    )


def blocks_of(samples: Samples, side: float) -> set[tuple[int, int]]:
    return {tuple(cell) for cell in np.floor(samples.position / side).astype(int).tolist()}


def means(split: BalancedSplit) -> np.ndarray:
    return np.stack([part.y.mean(axis=0) for part in split.parts])


@pytest.mark.parametrize("seed", range(4))
def test_whole_blocks_and_like_means(seed: int) -> None:
    samples = land()
    found = split_balanced(samples, seed=seed)
    places = [blocks_of(part, 25_000) for part in found.parts]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not places[1] & places[2]
    assert sum(map(len, found.parts)) == len(samples)
    np.testing.assert_allclose([len(p) / len(samples) for p in found.parts], [0.6, 0.2, 0.2], rtol=0.1)
    apart = np.ptp(means(found), axis=0) / samples.y.mean(axis=0)
    assert apart.max() < 0.1
    np.testing.assert_allclose(found.spread, apart, atol=1e-4)


def test_exchanges_are_what_balances() -> None:
    samples = land()
    loose = split_balanced(samples, tolerance=1e9)
    assert loose.spread.max() > 0.1  # chance alone does not do it here


def test_the_same_seed_gives_the_same_parts_and_another_one_others() -> None:
    samples = land(columns=60, rows=60)
    first, again, other = (split_balanced(samples, seed=seed, block=20_000) for seed in (1, 1, 2))
    assert np.array_equal(first.test.group, again.test.group)
    assert not np.array_equal(first.test.group, other.test.group)


@pytest.mark.parametrize("buffer", [0, 1, 3])
def test_the_buffer_is_counted_in_pixels_and_the_distance_is_told(buffer: int) -> None:
    found = split_balanced(land(columns=50, rows=50), block=20_000, buffer=buffer)
    distance = cdist(found.train.position, found.test.position).min()
    assert found.distance == pytest.approx(distance)
    assert distance > buffer * PIXEL
    assert (found.dropped > 0) == (buffer > 0)
    assert f"{found.distance:.6g} m apart" in str(found)


def test_what_cannot_be_balanced_is_told() -> None:
    samples = land(columns=20, rows=20)
    samples.y[:] = [0.5, 0.3, 0.2, 0]
    samples.y[:5] = [0, 0, 0, 1]
    with pytest.warns(UserWarning, match=r"d \(\d+%\)"):
        split_balanced(samples, block=10_000)
    with pytest.raises(SplitError, match="too few for 3 parts"):
        split_balanced(samples, block=1e6)
    with pytest.raises(OptionError, match="above 0"):
        split_balanced(samples, fractions=(0.8, 0.2, 0.0))
