"""Where land covers lie: relief, a river with ponds, forests cut into stands, farmland cut into fields.

The invented landscape follows what a map of the Central European lowland shows: forests on the higher ground,
meadows along the water, arable fields of 0.5 to 10 ha in blocks that share one ploughing direction, and
tracks between the blocks.
"""

from dataclasses import dataclass

import numpy as np

from cubekit.testing.fractal import fractal
from cubekit.typing import BoolArray, FloatArray, IntArray

PIXEL = 10.0
"""Metres between pixel centres."""

CLASSES = ("broadleaf forest", "conifer forest", "grassland", "winter cereal", "maize", "water")
"""Land covers, in the order of their codes."""

CODES = (1, 2, 3, 4, 5, 6)
"""Numbers in the truth raster and in the labels."""

COLOURS = ("#4c9a2a", "#1b5e3b", "#b8d66b", "#e8c547", "#d9822b", "#2f7fc1")
"""One colour for each land cover."""

BROADLEAF, CONIFER, GRASSLAND, CEREAL, MAIZE, WATER = range(6)

FOREST_SHARE, GRASS_SHARE, CEREAL_SHARE, POND_SHARE = 0.30, 0.30, 0.58, 0.009
SMALLEST = 40  # pixels: slivers under 0.4 ha join a neighbour
BLOCK_AREA, STAND_AREA, REACH = 3500.0, 550.0, 40.0  # pixels, pixels, pixels along the river


@dataclass(frozen=True)
class Landscape:
    """An invented piece of land on a 10 m grid.

    Attributes
    ----------
    parcel : numpy.ndarray
        int32 (y, x): number of the parcel, from 0, without gaps.
    kind : numpy.ndarray
        int64 (parcel,): index into :data:`CLASSES`.
    relief : numpy.ndarray
        float32 (y, x): elevation in metres.
    track : numpy.ndarray
        float32 (y, x): share of the pixel that is a gravel track or a field margin.
    """

    parcel: IntArray
    kind: IntArray
    relief: FloatArray
    track: FloatArray

    @property
    def truth(self) -> IntArray:
        """Code of the land cover at each pixel, uint8 (y, x); no pixel lacks one."""
        return np.asarray(CODES, dtype=np.uint8)[self.kind[self.parcel]]


def build_landscape(seed: int, shape: tuple[int, int]) -> Landscape:
    """Invent a landscape.

    Parameters
    ----------
    seed : int
        The same seed and shape give the same land.
    shape : tuple of int
        Rows and columns of 10 m pixels.

    Returns
    -------
    Landscape
        Parcels, their land cover, relief and tracks.
    """
    rng = np.random.default_rng([seed, 1])
    river, distance = _river(rng, shape)
    relief = 25 * fractal(rng, shape, longest=250, slope=2.4) + 70 * (1 - np.exp(-distance / 80))
    water = _water(rng, river, distance)
    block, field = _fields(rng, shape)
    forest = _forest(rng, field, relief)
    parcel = renumber(np.where(forest, stands(rng, shape) + field.max() + 1, field))
    parcel = without_slivers(parcel)
    parcel = renumber(np.where(water > 0, water + parcel.max(), parcel))
    kind = _kinds(rng, parcel, forest, water > 0, relief)
    track = np.where(water > 0, 0, _tracks(rng, block, np.where(forest, -1, parcel)))
    return Landscape(parcel, kind, relief.astype(np.float32), track.astype(np.float32))


def _river(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[IntArray, FloatArray]:
    """Draw a meandering river: number of the reach (0 is land), and distance to its middle in pixels."""
    rows, cols = shape
    x = np.arange(cols)
    middle = np.full(cols, rows * (0.5 + 0.08 * rng.uniform(-1, 1)))
    for length, height in ((620, 0.16 * min(rows, 400)), (230, 14), (90, 6)):
        middle = middle + height * np.sin(2 * np.pi * (x / (length * rng.uniform(0.85, 1.15)) + rng.random()))
    steep = np.hypot(1, np.gradient(middle))
    distance = np.abs(np.arange(rows)[:, None] - middle) / steep
    half_width = 3.4 + 0.7 * np.sin(2 * np.pi * (x / 170 + rng.random()))
    reach = 1 + (np.cumsum(steep) // REACH).astype(np.int64)
    return np.where(distance < half_width, reach, 0), distance


def _water(rng: np.random.Generator, river: IntArray, distance: FloatArray) -> IntArray:
    """Give numbers to the pieces of water: reaches of the river, ponds and lakes near it; 0 is land."""
    from scipy.ndimage import label

    lowland = np.exp(-(((distance - 45) / 40) ** 2))
    score = fractal(rng, river.shape, longest=70, slope=2.2) + 1.5 * lowland
    score[(distance < 12) | (distance > 140)] = score.min() - 1  # noqa: PLR2004 (dry banks, no lakes on hills)
    ponds, _ = label(score > np.quantile(score, 1 - POND_SHARE))
    small = np.bincount(ponds.ravel()) < SMALLEST
    ponds[small[ponds]] = 0
    return np.where(ponds > 0, ponds + river.max(), river)


def _nearest(seeds: FloatArray, y: FloatArray, x: FloatArray) -> IntArray:
    """Give each pixel the number of the nearest seed point: a Voronoi diagram."""
    from scipy.spatial import cKDTree

    points = np.column_stack([y.ravel(), x.ravel()])
    return np.asarray(cKDTree(seeds).query(points)[1], dtype=np.int64).reshape(y.shape)


def _seeds(rng: np.random.Generator, shape: tuple[int, int], area: float) -> FloatArray:
    """Scatter seed points, one an area in pixels; also outside, so that the edges look like the rest."""
    rows, cols = shape
    margin = 1.5 * np.sqrt(area)
    count = max(4, int((rows + 2 * margin) * (cols + 2 * margin) / area))
    return rng.uniform([-margin, -margin], [rows + margin, cols + margin], (count, 2))


def _fields(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Cut the land into blocks, and each block into strips of one direction, and the strips into fields."""
    y, x = np.indices(shape, dtype=np.float64)
    bend = 5 * fractal(rng, shape, longest=120, slope=2.2)
    seeds = _seeds(rng, shape, BLOCK_AREA)
    block = _nearest(seeds, y + bend, x - bend)
    angle = rng.normal(0.35, 0.5, len(seeds))[block]
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    width = rng.lognormal(np.log(13), 0.35, len(seeds))[block]
    length = rng.lognormal(np.log(30), 0.3, len(seeds))[block]
    chance = rng.random(4093)  # a small table stands in for one random number a strip
    strip = _uneven(across / width, chance[block % 4093]).astype(np.int64)
    key = (block * 131 + strip * 17) % 4093
    piece = _uneven(along / length * (0.7 + 0.8 * chance[key]), chance[(key * 7) % 4093]).astype(np.int64)
    return block, renumber((block * 4096 + strip % 4096) * 4096 + piece % 4096)


def _uneven(position: FloatArray, phase: FloatArray) -> FloatArray:
    """Give numbers to intervals along a line whose lengths differ by a factor of about three."""
    return np.floor(position + phase + 0.45 / np.pi * np.sin(2 * np.pi * (position / 2.7 + phase)))


def stands(rng: np.random.Generator, shape: tuple[int, int]) -> IntArray:
    """Cut the land into forest stands with soft, irregular borders.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    numpy.ndarray
        (y, x) number of the stand.
    """
    y, x = np.indices(shape, dtype=np.float64)
    bend = 4 * fractal(rng, shape, longest=40, slope=1.6)
    return _nearest(_seeds(rng, shape, STAND_AREA), y + bend, x - bend)


def _forest(rng: np.random.Generator, field: IntArray, relief: FloatArray) -> BoolArray:
    """Choose forest, on the higher ground first; its edges follow the ground and, in part, property lines."""
    score = fractal(rng, relief.shape, longest=180, slope=2.2) + (relief - relief.mean()) / relief.std()
    return _top(0.6 * score + 0.4 * _mean(field, score)[field], FOREST_SHARE)


def renumber(ids: IntArray) -> IntArray:
    """Renumber from 0 without gaps.

    Parameters
    ----------
    ids : numpy.ndarray
        Any numbers.

    Returns
    -------
    numpy.ndarray
        int32, same shape.
    """
    return np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int32)


def without_slivers(parcel: IntArray) -> IntArray:
    """Give pieces that are too small to work to the nearest larger one; parcels in two places become two.

    Parameters
    ----------
    parcel : numpy.ndarray
        (y, x) number of the parcel.

    Returns
    -------
    numpy.ndarray
        (y, x) number of the piece.
    """
    from scipy.ndimage import distance_transform_edt

    pieces = _connected(parcel)
    small = np.bincount(pieces.ravel())[pieces] < SMALLEST
    nearest = distance_transform_edt(small, return_distances=False, return_indices=True)
    return np.asarray(pieces[tuple(nearest)])


def _connected(parcel: IntArray) -> IntArray:
    """Give numbers to connected pieces of equal value (edges connect, corners do not)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    index = np.arange(parcel.size).reshape(parcel.shape)
    right, down = parcel[:, 1:] == parcel[:, :-1], parcel[1:] == parcel[:-1]
    start = np.concatenate([index[:, :-1][right], index[:-1][down]])
    end = np.concatenate([index[:, 1:][right], index[1:][down]])
    links = coo_array((np.ones(start.size, bool), (start, end)), shape=(parcel.size, parcel.size))
    return np.asarray(connected_components(links, directed=False)[1]).reshape(parcel.shape)


def _mean(parcel: IntArray, values: FloatArray | BoolArray) -> FloatArray:
    """Average a field over each parcel."""
    flat = parcel.ravel()
    return np.bincount(flat, weights=values.ravel()) / np.maximum(np.bincount(flat), 1)


def _top(score: FloatArray, share: float) -> BoolArray:
    """Tell which elements lie in the upper share."""
    return np.asarray(score > np.quantile(score, 1 - share))


def _kinds(
    rng: np.random.Generator, parcel: IntArray, forest: BoolArray, water: BoolArray, relief: FloatArray
) -> IntArray:
    """Choose the land cover of each parcel."""
    wood, wet = _mean(parcel, forest) > 0.5, _mean(parcel, water) > 0.5  # noqa: PLR2004
    farm = ~wood & ~wet
    noise = rng.normal(0, 0.6, wood.size)
    height = _mean(parcel, relief)
    meadow = noise - (height - height.mean()) / height.std()
    acid = rng.normal(0, 0.6, wood.size) + _mean(parcel, fractal(rng, parcel.shape, longest=160, slope=2))
    kind = np.full(wood.size, CEREAL)
    kind[wood] = np.where(acid[wood] > np.median(acid[wood]), CONIFER, BROADLEAF)
    kind[farm] = rng.permutation(np.where(np.linspace(0, 1, farm.sum()) < CEREAL_SHARE, CEREAL, MAIZE))
    kind[np.flatnonzero(farm)[_top(meadow[farm], GRASS_SHARE)]] = GRASSLAND
    kind[wet] = WATER
    return kind


def _tracks(rng: np.random.Generator, block: IntArray, parcel: IntArray) -> FloatArray:
    """Share of each pixel under tracks (block borders) and field margins (parcel borders)."""
    share = np.zeros(parcel.shape)
    for ids, strongest in ((parcel + 1, 0.15), (block, 0.4)):
        edge = np.zeros(parcel.shape, bool)
        edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        edge[1:] |= ids[1:] != ids[:-1]
        width = rng.uniform(0.3, 1, ids.max() + 1)[ids] * strongest
        share = np.where(edge, np.maximum(share, width), share)
    return share
