"""Labelled tiles in NPZ files as samples: a series for each labelled pixel, a group for each tile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError
from cubekit.labels import ClassTable
from cubekit.typing import Array, StrPath

_TILE, _FLAT = 4, 3  # axes of X: (y, x, time, band), or (pixel, time, band)


def read_tiles(
    source: StrPath,
    *,
    bands: Sequence[str],
    times: Sequence[str],
    classes: Mapping[int, str],
    colours: Mapping[str, str] | None = None,
    nodata: float | None = 0,
    scale: float = 1e-4,
    offset: float = 0.0,
) -> Samples:
    """Read tiles with labels from NPZ files, of whose pixels only the labelled ones are taken.

    Each file holds ``X`` (y, x, time, band) and ``y`` (y, x), or both flattened to pixels. Files are read
    without running code that they may hold.

    Parameters
    ----------
    source : path
        A folder of ``.npz`` files, taken in the order of their names, or one file.
    bands : sequence of str
        Band names, in the order of the last axis.
    times : sequence of str
        Dates of the steps, such as the starts of the composites.
    classes : mapping
        Code in ``y`` to class name; other codes than these are errors, and 0 is unlabelled.
    colours : mapping, optional
        Class name to colour.
    nodata : float, optional
        Stored number without data.
    scale, offset : float, optional
        Physical value of a stored number v: ``v * scale + offset``.

    Returns
    -------
    Samples
        In memory, as stored. ``group`` is the number of the tile: split with ``by="groups"``. Positions are
        not known. Pixels without a single valid value are left out.

    Raises
    ------
    OptionError
        If there is no file, an array is missing, of another shape, or not made of numbers; names the file.
    LabelError
        If a label is no class, or no pixel is labelled.

    Examples
    --------
    >>> samples = read_tiles("tiles", bands=BANDS, times=DATES, classes={1: "forest"})  # doctest: +SKIP
    >>> train, valid, test = ck.split(samples, by="groups", fractions=(0.75, 0.15, 0.1))  # doctest: +SKIP
    """
    files = _files(Path(source))
    table = ClassTable.of(tuple(classes.values()), colours=colours, codes=tuple(classes))
    parts = [_labelled(*_arrays(file, len(times), len(bands)), file, table, nodata) for file in files]
    kinds = {x.dtype for x, _ in parts}
    if len(kinds) > 1:
        raise OptionError(f"X has different types in the files of {source}: {sorted(map(str, kinds))}.")
    x, y = (np.concatenate([part[axis] for part in parts]) for axis in (0, 1))
    if not len(y):
        raise LabelError(f"No pixel of the {len(files)} tiles in {source} has a label and data.")
    return Samples(
        x=x,
        y=y.astype("int16"),
        bands=tuple(bands),
        times=pd.DatetimeIndex(list(times)).to_numpy().astype("datetime64[ns]"),
        classes=table,
        group=np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts]),
        position=np.full((len(y), 2), np.nan),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype=str(x.dtype), nodata=nodata, scale=scale, offset=offset),
    )


def _files(source: Path) -> list[Path]:
    """List the files of a folder, or the one file."""
    files = sorted(source.glob("*.npz")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise OptionError(f"There is no .npz file at {source}.")
    return files


def _arrays(file: Path, steps: int, bands: int) -> tuple[Array, Array]:
    """Read X as (pixel, time, band) and y as (pixel,)."""
    try:
        with np.load(file, allow_pickle=False) as held:
            x, y = held["X"], held["y"]
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise OptionError(f"{file} does not hold arrays of numbers named X and y: {error}") from error
    whole = x.ndim in {_TILE, _FLAT} and x.shape[-2:] == (steps, bands) and x.shape[:-2] == y.shape
    if not whole or x.dtype.kind not in "iuf" or y.dtype.kind not in "iu":
        raise OptionError(
            f"{file}: X has shape {x.shape} and type {x.dtype}, y {y.shape} and {y.dtype}; expected numbers "
            f"(y, x, {steps}, {bands}) and whole numbers (y, x), or both flattened to pixels."
        )
    return x.reshape(-1, steps, bands), y.ravel()


def _labelled(x: Array, y: Array, file: Path, table: ClassTable, nodata: float | None) -> tuple[Array, Array]:
    """Take the pixels that have a label and data; labels become class indices."""
    unknown = np.setdiff1d(y, [0, *table.codes])
    if unknown.size:
        raise LabelError(
            f"{file}: y holds {unknown[:5].tolist()}, which are no classes; known: {table.codes}."
        )
    seen = np.isfinite(x) if nodata is None else np.isfinite(x) & (x != nodata)
    chosen = (y != 0) & seen.any(axis=(1, 2))
    order = np.argsort(table.codes)
    index = order[np.searchsorted(np.asarray(table.codes)[order], y[chosen])]
    return x[chosen], index
