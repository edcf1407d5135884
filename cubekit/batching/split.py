"""Training, validation and test parts that do not know each other: by blocks, groups, time, or at random."""

from typing import overload

import xarray as xr

from cubekit.batching.decide import decide
from cubekit.batching.patches import PatchPlan
from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Parts, PlanParts, Split
from cubekit.batching.temporal import Gap
from cubekit.batching.units import By, splittable


@overload
def split(
    samples: PatchPlan,
    labels: xr.Dataset | None = None,
    *,
    by: By = "blocks",
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: float = 0.0,
    block: float | None = None,
    whole_groups: bool = False,
    footprint: float = 0.0,
    gap: Gap = 0.0,
    cuts: tuple[str, str] | None = None,
    seed: int = 0,
) -> PlanParts: ...


@overload
def split(
    samples: Samples | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    by: By = "blocks",
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: float = 0.0,
    block: float | None = None,
    whole_groups: bool = False,
    footprint: float = 0.0,
    gap: Gap = 0.0,
    cuts: tuple[str, str] | None = None,
    seed: int = 0,
) -> Parts: ...


def split(  # noqa: PLR0913  (one place where parts are described; all keyword-only)
    samples: Samples | PatchPlan | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    by: By = "blocks",
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: float = 0.0,
    block: float | None = None,
    whole_groups: bool = False,
    footprint: float = 0.0,
    gap: Gap = 0.0,
    cuts: tuple[str, str] | None = None,
    seed: int = 0,
) -> Parts | PlanParts:
    """Part samples, or patches, into training, validation and test.

    Neighbouring pixels look alike, so a test pixel beside a training pixel tests nothing. Whole blocks or
    groups go to one part, with every class in every part where that can be, and samples nearer than `buffer`
    metres to another part are dropped: from training first, then from validation, never from test. Fractions
    are met as closely as whole blocks or groups allow, before the buffer takes its share.

    By time, training comes first, then validation, and test last. A training sample that looks at a date of
    a later part, as target or as input, or at one nearer than `gap`, is dropped; the inputs of a test target
    may be dates that training has seen, as they are when a model is used.

    :func:`plan_split` takes the same arguments and returns the split itself, which can be saved.

    Parameters
    ----------
    samples : Samples, PatchPlan or xarray.Dataset
        What to part; a cube is extracted first. The whole area of a patch counts, not its middle.
    labels : xarray.Dataset, optional
        Labels on the cube's grid, where a cube is given; with patches optional, to balance classes.
    by : {"blocks", "groups", "random", "time"}, optional
        What stays together: squares of land; the samples of one ``group`` (a polygon, a point), or the
        patches of one place; nothing; a stretch of time. "random" flatters the result wherever samples are
        close together.
    fractions : tuple of float, optional
        Shares of training, validation and test, 1 together. A share of 0 gives an empty part.
    buffer : float, optional
        Least distance in metres between samples (pixel centres, edges of patches) of different parts.
    block : float, optional
        Side of the squares in metres. Default: a twelfth of the longer side of the area, at least
        four buffers.
    whole_groups : bool, optional
        With blocks: leave a group whole, in the block that holds its middle, where the edge of a block would
        cut through a polygon. For groups that are small beside the blocks.
    footprint : float, optional
        Side in metres of the patch around each sample that a network sees. Distances are then kept between
        patches, not between their middles. A plan of patches knows its own.
    gap : str or float, optional
        By time: least time between training and what is held out, in days or as ``"90D"``.
    cuts : tuple of str, optional
        By time: first dates of validation and of test, such as ``("2021-01-01", "2022-01-01")``. Default:
        where `fractions` are met best and the fewest series straddle the date.
    seed : int, optional
        Seed; equal seeds give equal parts on every machine.

    Returns
    -------
    train, valid, test : Samples or PatchPlan
        In the order of the input.

    Raises
    ------
    LabelError
        If there is a single class.
    SplitError
        If there are too few samples, blocks or dates, positions or dates are unknown where they are needed,
        or a class cannot be in both training and test, naming it and what to do.
    OptionError
        If an option is not accepted.

    Examples
    --------
    >>> train, valid, test = split(samples, by="blocks", buffer=300)  # doctest: +SKIP
    >>> train, valid, test = split(PatchPlan(cube, 64, steps=12, horizon=1), by="time")  # doctest: +SKIP
    """
    data, places = splittable(samples, labels)
    found = decide(
        places, by=by, fractions=fractions, buffer=buffer, block=block, whole_groups=whole_groups,
        footprint=footprint, gap=gap, cuts=cuts, seed=seed,
    )  # fmt: skip
    parts: Parts | PlanParts = found.taken(data)
    return parts


def plan_split(  # noqa: PLR0913
    samples: Samples | PatchPlan | xr.Dataset,
    labels: xr.Dataset | None = None,
    *,
    by: By = "blocks",
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    buffer: float = 0.0,
    block: float | None = None,
    whole_groups: bool = False,
    footprint: float = 0.0,
    gap: Gap = 0.0,
    cuts: tuple[str, str] | None = None,
    seed: int = 0,
) -> Split:
    """Decide which part each sample is in, as a record that can be saved beside the data.

    Parameters
    ----------
    samples : Samples, PatchPlan or xarray.Dataset
        As for :func:`split`, like all that follows.
    labels : xarray.Dataset, optional
        Labels on the cube's grid.
    by : {"blocks", "groups", "random", "time"}, optional
        What stays together.
    fractions : tuple of float, optional
        Shares of training, validation and test.
    buffer : float, optional
        Least distance in metres.
    block : float, optional
        Side of the squares in metres.
    whole_groups : bool, optional
        Leave groups whole in blocks.
    footprint : float, optional
        Side in metres of what a network sees around each sample.
    gap : str or float, optional
        Least time.
    cuts : tuple of str, optional
        First dates of validation and of test.
    seed : int, optional
        Seed.

    Returns
    -------
    Split
        ``.apply(samples)`` gives the parts, ``.save(path)`` writes it, :func:`cubekit.load_split` reads it.

    Raises
    ------
    CubekitError
        As :func:`split`.

    Examples
    --------
    >>> found = plan_split(samples, by="blocks", buffer=300)  # doctest: +SKIP
    >>> found.save("split.parquet")  # doctest: +SKIP
    """
    _, places = splittable(samples, labels)
    return decide(
        places, by=by, fractions=fractions, buffer=buffer, block=block, whole_groups=whole_groups,
        footprint=footprint, gap=gap, cuts=cuts, seed=seed,
    )  # fmt: skip
