"""Labelled pixels of a cube as samples, reading each chunk once and only where there are labels."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.batching.decode import valid_values
from cubekit.batching.plan import ChunkPlan
from cubekit.batching.position import crs_name, metric_positions, world_positions
from cubekit.batching.samples import Samples
from cubekit.batching.source import Reader
from cubekit.cube.contract import DIMS, MAIN, check_cube, encoding_of, geobox_of, layers_of, to_physical
from cubekit.errors import LabelError, OptionError
from cubekit.labels import class_table
from cubekit.progress import progress as progress_bar
from cubekit.typing import Array, FloatArray, IntArray

_TOLERANCE = 1e-3  # pixels that two grids may differ by: rounding in coordinates, never a shift
_THREADS = 4  # that read chunks of a store
_METRES_PER_DEGREE = 111_195.0  # mean radius of the Earth, 6,371 km


def extract(
    cube: xr.Dataset,
    labels: xr.Dataset,
    *,
    limit_per_class: int | None = None,
    ancillary: Sequence[str] = (),
    seed: int = 0,
    progress: bool | None = None,
) -> Samples:
    """Take the series of every labelled pixel.

    Goes over a :class:`~cubekit.batching.plan.ChunkPlan`, so that each chunk is read once and chunks without
    labels not at all. The samples come in the order of rows and columns, whatever the chunks.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x); may be lazy.
    labels : xarray.Dataset
        From :func:`cubekit.load_labels` or :func:`cubekit.load_fractions`, on the cube's grid.
    limit_per_class : int, optional
        At most so many pixels of each class, drawn at random. Default: all.
    ancillary : sequence of str, optional
        Variables (y, x) of the cube to take along, such as ``altitude``. Pixels that lack one are left out.
    seed : int, optional
        Seed of that draw.
    progress : bool, optional
        Whether to show a bar; default: where someone watches.

    Returns
    -------
    Samples
        In memory, stored numbers. Pixels without a single valid value are left out with a warning.

    Raises
    ------
    LabelError
        If the labels lie on another grid, label no pixel, or label only pixels without data.
    CubeError
        If the cube does not keep the contract.
    OptionError
        If `limit_per_class` is not positive.
    UnknownNameError
        If the cube lacks an ancillary layer.
    """
    check_cube(cube)
    grid = geobox_of(cube)
    _check_grid(labels, grid)
    label, group = (labels[name].to_numpy() for name in ("label", "group"))
    pixels = _choose(label.ravel(), limit_per_class, seed)
    rows, columns = np.divmod(pixels, label.shape[1])
    stored = _read(cube[MAIN], rows, columns, progress=progress)

    encoding = encoding_of(cube[MAIN])
    observed = valid_values(stored, encoding).any(axis=(1, 2))
    layers = _layers(cube, ancillary, rows, columns)
    observed &= np.isfinite(layers).all(axis=1)
    if not observed.any():
        raise LabelError(
            f"None of {len(pixels)} labelled pixels has a valid value: check masks and dates"
            f"{', and the ancillary layers' if ancillary else ''}."
        )
    if not observed.all():
        warnings.warn(
            f"{int((~observed).sum())} of {len(pixels)} labelled pixels have no valid value"
            f"{' in the series or an ancillary layer' if ancillary else ''} and are left out.",
            UserWarning,
            stacklevel=2,
        )
        stored, rows, columns, layers = (each[observed] for each in (stored, rows, columns, layers))
    position, crs = metric_positions(*world_positions(grid, columns + 0.5, rows + 0.5), crs_name(grid))
    return Samples(
        x=stored,
        y=_targets(labels, rows, columns),
        bands=tuple(str(band) for band in cube["band"].to_numpy()),
        times=cube["time"].to_numpy().astype("datetime64[ns]"),
        classes=class_table(labels),
        group=group[rows, columns].astype("int64"),
        position=position,
        crs=crs,
        resolution=_pixel_size(grid),
        encoding=encoding,
        ancillary=layers if ancillary else None,
        variables=tuple(ancillary),
    )


def _layers(cube: xr.Dataset, names: Sequence[str], rows: IntArray, columns: IntArray) -> FloatArray:
    """Return physical values (n, variable) of layers of the cube, NaN where there is no data."""
    found = np.empty((len(rows), len(names)), "float32")
    for index, layer in enumerate(layers_of(cube, names)):
        found[:, index] = to_physical(layer).to_numpy()[rows, columns]
    return found


def _targets(labels: xr.Dataset, rows: IntArray, columns: IntArray) -> Array:
    """Return class indices (n,), or shares (n, class) of labels that have them."""
    if "fraction" in labels:
        return labels["fraction"].transpose("y", "x", "category").to_numpy()[rows, columns].astype("float32")
    return labels["label"].to_numpy()[rows, columns].astype("int16")


def _check_grid(labels: xr.Dataset, grid: GeoBox) -> None:
    """Raise unless labels lie on a grid, to a thousandth of a pixel."""
    missing = {"label", "group"} - set(labels.data_vars)
    if missing:
        raise LabelError(f"The labels lack {sorted(missing)}: make them with cubekit.load_labels.")
    other = geobox_of(labels)
    if other.shape == grid.shape and other.crs == grid.crs:
        columns, rows = (np.array([0.0, size]) for size in grid.shape.xy)
        shift = np.subtract(world_positions(grid, columns, rows), world_positions(other, columns, rows))
        if np.abs(shift).max() <= _TOLERANCE * abs(grid.resolution.x):
            return
    raise LabelError(
        f"The labels lie on another grid than the cube: {other.shape.y} x {other.shape.x} pixels in "
        f"{crs_name(other)} against {grid.shape.y} x {grid.shape.x} in {crs_name(grid)}. "
        "Use load_labels(source, cube)."
    )


def _pixel_size(grid: GeoBox) -> float:
    """Return the side in metres of a square as large as a pixel; in the middle of a grid in degrees."""
    to = grid.transform
    side = float(np.sqrt(abs(to.a * to.e - to.b * to.d)))
    crs = grid.crs
    if crs is None or not crs.geographic:
        return side if crs is None else side * float(crs.proj.axis_info[0].unit_conversion_factor)
    _, latitude = world_positions(grid, *(np.array([size / 2]) for size in grid.shape.xy))
    return side * _METRES_PER_DEGREE * float(np.sqrt(np.cos(np.radians(latitude[0]))))


def _choose(label: IntArray, limit: int | None, seed: int) -> IntArray:
    """Return flat indices of labelled pixels, in order; at most so many of each class."""
    pixels = np.flatnonzero(label >= 0)
    if not pixels.size:
        raise LabelError("No pixel of the labels has a class.")
    if limit is None:
        return pixels
    if limit < 1:
        raise OptionError(f"limit_per_class={limit!r} must be at least 1.")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(pixels)
    chosen = [shuffled[label[shuffled] == index][:limit] for index in np.unique(label[pixels])]
    return np.sort(np.concatenate(chosen))


def _read(data: xr.DataArray, rows: IntArray, columns: IntArray, *, progress: bool | None) -> Array:
    """Gather pixels (n, time, band), window by window."""
    wanted = np.zeros((data.sizes["y"], data.sizes["x"]), bool)
    wanted[rows, columns] = True
    reader = Reader(data)
    sides = reader.sides if reader.is_stored else None  # chunks are smaller than Dask's blocks of shards
    plan = ChunkPlan(data, block=None if sides is None else (sides[-2], sides[-1]), keep=wanted)
    stored = np.empty((len(rows), data.sizes["time"], data.sizes["band"]), data.dtype)

    def gather(index: int) -> None:
        top, bottom, left, right = plan.edges[index].tolist()
        # rows are sorted, so that only those of the window's band need to be looked at
        first, last = np.searchsorted(rows, [top, bottom])
        inside = first + np.flatnonzero((columns[first:last] >= left) & (columns[first:last] < right))
        if sides is None:
            window = plan[index].transpose(*DIMS).to_numpy()
        else:
            window = reader(slice(top, bottom), slice(left, right))
        stored[inside] = window[:, :, rows[inside] - top, columns[inside] - left].transpose(2, 0, 1)

    # what Dask computes, it computes in threads of its own
    with (
        progress_bar("extract", len(plan), unit="blocks", enabled=progress) as advance,
        ThreadPoolExecutor(1 if sides is None else _THREADS) as pool,
    ):
        for _ in pool.map(gather, range(len(plan))):
            advance()
    return stored
