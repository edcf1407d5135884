"""Learning the scaling of bands from the training part, block by block."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from cubekit.batching.decode import valid_values
from cubekit.batching.normalise import METHODS, RULES, Method, Normalisation, Rule
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.samples import Samples
from cubekit.batching.source import Reader
from cubekit.batching.stream import BlockStream
from cubekit.batching.tally import Moments, Tally
from cubekit.cube.contract import MAIN, Encoding, check_cube, encoding_of
from cubekit.errors import OptionError, TrainingError, check_option
from cubekit.typing import Array, BoolArray

_LOW, _HIGH = 2.0, 98.0  # percentiles: clouds left in a series do not stretch the range
_BY_STEP = "_by_step"
_SERIES = 1 << 16  # series looked at at once

Blocks = Iterator[tuple[Array, BoolArray]]
"""Numbers (n, time, band) or (n, time, band, y, x), and which of them are data."""


def fit_normalisation(
    source: Samples | xr.Dataset | BlockStream | Any, *, method: Method = "percentile", by_step: bool = False
) -> Normalisation:
    """Learn the scaling from what trains: from the training part only, or test values leak into the model.

    Goes over the data block by block, so that it may be larger than memory; each chunk of a cube is
    read once.

    Parameters
    ----------
    source : Samples, xarray.Dataset or stream
        Training part: samples; a whole cube; what :func:`cubekit.batches` returns for a plan of the training
        patches or pixels; or any iterable of batches with physical ``x`` and the attribute ``bands``.
    method : {"percentile", "standard"}, optional
        2nd and 98th percentile, or mean and standard deviation, of the valid values of each band.
    by_step : bool, optional
        Whether every step of the series has its own numbers; else they are those of all dates together.

    Returns
    -------
    Normalisation
        In physical units. Percentiles are exact up to 65,536 distinct values of a band, such as 16-bit
        numbers; beyond, values are put together that differ by a ten thousandth.

    Raises
    ------
    TrainingError
        If a band has no valid value, or all its values are (nearly) equal; names the band, and the step.
    OptionError
        If the method is not known, or the source says not which bands it has.
    """
    check_option("method", method, METHODS)
    blocks, bands, coding = _opened(source)
    table = _counted(blocks, len(bands), method, by_step=by_step)
    if not table:
        raise TrainingError("There is nothing to learn a normalisation from: the training part is empty.")
    pairs = [
        _numbers(method, *table[step, band], coding, _called(bands[band], step if by_step else None))
        for step, band in sorted(table)
    ]
    firsts, seconds = (tuple(column) for column in zip(*pairs, strict=True))
    if method == "percentile":
        return Normalisation(method=method, bands=bands, low=firsts, high=seconds)
    return Normalisation(method=method, bands=bands, mean=firsts, std=seconds)


def fit_rule(source: Any, rule: Rule) -> Normalisation:
    """Learn the scaling by one of the named rules.

    Parameters
    ----------
    source : Samples, xarray.Dataset or stream
        As for :func:`fit_normalisation`.
    rule : {"percentile", "standard", "percentile_by_step", "standard_by_step"}
        Method, and whether every step has its own numbers.

    Returns
    -------
    Normalisation
        In physical units.

    Raises
    ------
    OptionError
        If the rule is not known.
    TrainingError
        As :func:`fit_normalisation`.
    """
    check_option("normalise", rule, RULES)
    method: Any = rule.removesuffix(_BY_STEP)
    return fit_normalisation(source, method=method, by_step=rule.endswith(_BY_STEP))


def _called(band: str, step: int | None) -> str:
    """Name a band, and a step counted from 1, in a message."""
    return f"Band {band!r}" if step is None else f"Band {band!r} of step {step + 1}"


def _opened(source: Any) -> tuple[Blocks, tuple[str, ...], Encoding]:
    """Return blocks of stored numbers, the bands, and the coding."""
    stream = getattr(source, "stream", source)
    if isinstance(source, Samples):
        parts = (source.x[at : at + _SERIES] for at in range(0, len(source), _SERIES))
        return ((x, valid_values(x, source.encoding)) for x in parts), source.bands, source.encoding
    if isinstance(source, xr.Dataset):
        check_cube(source)
        return _of_cube(source), _names(source), encoding_of(source[MAIN])
    if isinstance(stream, BlockStream):
        first = stream.sources[0]
        return _of_stream(stream), _names(first.cube), first.encoding
    if not hasattr(source, "bands"):
        raise OptionError(
            "A normalisation is fitted on samples, a cube or a stream of batches, not on "
            f"{type(source).__name__}."
        )
    batches = (np.asarray(each["x"]) for each in source)
    return ((x, ~np.isnan(x)) for x in batches), tuple(source.bands), Encoding(dtype="float32")


def _of_cube(cube: xr.Dataset) -> Blocks:
    """Read a cube chunk by chunk."""
    reader, coding = Reader(cube[MAIN]), encoding_of(cube[MAIN])
    for top, bottom, left, right in PixelPlan(cube).edges.tolist():
        stored = reader(slice(top, bottom), slice(left, right))[None]
        yield stored, valid_values(stored, coding)


def _of_stream(stream: BlockStream) -> Blocks:
    """Read what a stream gives out in an epoch, block by block; nothing is altered."""
    plain = replace(stream, shuffle=False, augment=None)
    for batch in plain.pass_over():
        valid = valid_values(batch["x"], stream.sources[0].encoding)
        if "mask" in batch:
            valid &= batch["mask"][:, :, None].astype(bool)
        yield batch["x"], valid


def _names(cube: xr.Dataset) -> tuple[str, ...]:
    """Return the bands of a cube."""
    return tuple(str(band) for band in cube["band"].to_numpy())


def _counted(
    blocks: Blocks, bands: int, method: Method, *, by_step: bool
) -> dict[tuple[int, int], tuple[Moments, Tally]]:
    """Count all values in, by step and band."""
    table: dict[tuple[int, int], tuple[Moments, Tally]] = {}
    for stored, valid in blocks:
        for step in range(stored.shape[1] if by_step else 1):
            dates = slice(step, step + 1) if by_step else slice(None)
            for band in range(bands):
                values = stored[:, dates, band][valid[:, dates, band]]
                moments, tally = table.setdefault((step, band), (Moments(), Tally(values.dtype)))
                moments.add(values)
                if method == "percentile":
                    tally.add(values)
    return table


def _numbers(
    method: Method, moments: Moments, tally: Tally, coding: Encoding, named: str
) -> tuple[float, float]:
    """Return low and high, or mean and standard deviation, in physical units."""
    if not moments.count:
        raise TrainingError(f"{named} has no valid value in what it is learned from: leave it out.")
    if method == "percentile":
        ends = tally.percentiles([_LOW, _HIGH]) * coding.scale + coding.offset
        first, second = float(ends.min()), float(ends.max())  # a negative scale turns them round
        width = second - first
    else:
        first = moments.mean * coding.scale + coding.offset
        second = width = moments.std * abs(coding.scale)
    largest = max(abs(each * coding.scale + coding.offset) for each in (moments.least, moments.most))
    # relative to the numbers themselves: float32 noise on a constant is no variance
    if not width > np.finfo("float32").eps * max(1e-6, largest):
        raise TrainingError(
            f"{named} is constant at {moments.mean * coding.scale + coding.offset:.6g} in the training "
            f"samples{' between the 2nd and 98th percentile' if method == 'percentile' else ''}: leave it out"
            f"{', or use one scaling for all steps' if ' of step ' in named else ''}."
        )
    return first, second
