"""Several networks on the same samples and seeds: series and patches, one split, one table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.errors import OptionError
from cubekit.nn.registry import Task
from cubekit.pipeline.comparison import Comparison, Row, numbers
from cubekit.pipeline.contest import Contest, Contestant, Trial, label_of
from cubekit.pipeline.patches import PATCHES
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model
from cubekit.training.fit import SPLIT
from cubekit.training.scores import score_baselines
from cubekit.typing import StrPath


def compare(  # noqa: PLR0913
    networks: Sequence[Contestant],
    train: Samples | Examples,
    valid: Samples | Examples | None,
    test: Samples | Examples,
    *,
    seeds: Sequence[int] = (0,),
    task: Task | None = None,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    cube: xr.Dataset | None = None,
    patches: Mapping[str, Any] | None = None,
    reference: xr.DataArray | None = None,
    split: Split | None = None,
    out: StrPath | None = None,
) -> Comparison:
    """Train or load several networks on the same samples and seeds, and score them beside the baselines.

    With `cube`, networks that see patches take part on the same split: they train on patches in which no
    pixel of another part lies, with a loss on the training pixels only, and are scored where their map meets
    the test pixels. Every network then maps the cube.

    Parameters
    ----------
    networks : sequence of str, torch.nn.Module or Model
        Names in the registry, networks of your own, or trained models, which are only scored.
    train : Samples or Examples
        Training samples.
    valid : Samples, Examples or None
        Validation samples: they choose the epoch.
    test : Samples or Examples
        What is scored.
    seeds : sequence of int, optional
        Each network is trained once with each; the table gives mean and spread.
    task : {"classify", "fractions", "forecast", "fuse"}, optional
        Kind of problem, for networks of your own.
    settings : mapping, optional
        Arguments of :func:`cubekit.fit` that all networks share, such as ``{"epochs": 20}``.
    arguments : mapping, optional
        Name of a network to its own arguments, such as ``{"unet": {"width": 16}}``.
    cube : xarray.Dataset, optional
        What the samples were extracted from; may be lazy, a store is faster.
    patches : mapping, optional
        For networks that see patches: ``size`` and ``stride`` in pixels (default 32, half of it), ``flips``
        (whether patches are mirrored and turned at random, default true), and arguments of
        :func:`cubekit.fit` in place of those in `settings`, such as ``{"epochs": 40, "batch": 8}``.
    reference : xarray.DataArray, optional
        Class map that the pictures begin with, such as the labels.
    split : Split, optional
        The split that the samples come from, of :func:`cubekit.plan_split`: written into `out` and beside
        every model.
    out : path, optional
        Folder for table and figures, and for the models, one folder for each network and seed.

    Returns
    -------
    Comparison
        ``print(….table())`` shows it.

    Raises
    ------
    OptionError
        If there is no network or no seed, a setting is not one of :func:`cubekit.fit`, or a network sees
        patches and there is no cube.
    CubekitError
        From training; networks that are done stay in `out` and are not trained again.

    Examples
    --------
    >>> compare(["tempcnn", "ltae"], train, valid, test, seeds=range(3))  # doctest: +SKIP
    >>> compare(["conv1d", "unet"], train, valid, test, cube=cube, patches={"size": 64})  # doctest: +SKIP
    """
    if not networks or not len(seeds):
        raise OptionError(f"compare needs networks and seeds; found {len(networks)} and {len(seeds)}.")
    folder = None if out is None else Path(out)
    contest = Contest(
        train=train,
        valid=valid,
        test=test,
        task=task,
        settings=settings or {},
        arguments=arguments or {},
        cube=cube,
        patches=patches or {},
        split=split,
        folder=folder,
    )
    contest.check(networks)
    rows: list[Row] = []
    maps: dict[str, xr.DataArray] = {}
    for number, network in enumerate(networks):
        label = label_of(network, number)
        dice = seeds if not isinstance(network, Model) else seeds[:1]
        trials = [contest.trial(network, label, seed, drawn=seed == dice[0]) for seed in dice]
        rows.append(_row(label, trials))
        if trials[0].drawn is not None:
            maps[label] = trials[0].drawn
    rows += _baselines(contest, trials[0].model, seeds)
    first = next(iter(rows[0].scores))
    ordered = sorted(rows, key=lambda row: row.scores[first][0], reverse=first == "overall accuracy")
    maps = {row.name: maps[row.name] for row in ordered if row.name in maps}
    result = Comparison(rows=tuple(ordered), maps=maps, reference=reference)
    if folder is not None:
        result.save(folder)
        if split is not None:
            split.save(folder / SPLIT)
        told = {**contest.settings, "patches": {**PATCHES, **contest.patches}, "seeds": list(seeds)}
        (folder / "settings.json").write_text(json.dumps(told, default=str))
    return result


def _row(label: str, trials: Sequence[Trial]) -> Row:
    """Put the runs of one network together."""
    return Row(
        name=label,
        scores=numbers([trial.scores for trial in trials]),
        runs=len(trials),
        parameters=trials[0].model.card.parameters,
        train_seconds=_mean([trial.train_seconds for trial in trials]),
        samples_per_second=_mean([trial.samples_per_second for trial in trials]),
        megapixels_per_second=_mean([trial.megapixels_per_second for trial in trials]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _baselines(contest: Contest, model: Model, seeds: Sequence[int]) -> list[Row]:
    """Score the baselines, with each seed where they depend on it."""
    classes = model.card.task == "classify"
    runs = [
        score_baselines(model, contest.train, contest.test, seed=seed)
        for seed in (seeds if classes else seeds[:1])
    ]
    return [Row(name=name, scores=numbers([run[name] for run in runs]), runs=len(runs)) for name in runs[0]]
