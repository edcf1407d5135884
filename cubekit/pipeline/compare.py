"""Several networks on the same samples and seeds: one table, one figure."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from cubekit.batching.samples import Samples
from cubekit.batching.split_record import Split
from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import Accuracy
from cubekit.exports.figures import comparison_figure, save_figure
from cubekit.nn.registry import Task
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model
from cubekit.training.fit import SPLIT, fit
from cubekit.training.scores import Scores, score_beside_baselines
from cubekit.typing import StrPath

Contestant = str | nn.Module | Model
"""Name of a network, a network of one's own, or a model that is trained already."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method."""

    name: str
    """Of the network or baseline."""

    scores: Mapping[str, tuple[float, float]]
    """Score to its mean over the seeds and its standard deviation (0 for a single one)."""

    runs: int
    """Number of seeds."""

    parameters: int | None
    """Weights; None for baselines."""

    train_seconds: float | None
    """Mean time of training; None where nothing was trained here."""

    samples_per_second: float | None
    """Mean rate of prediction; None for baselines."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Networks and baselines, best first."""

    rows: tuple[Row, ...]
    """Methods by their first score."""

    def table(self) -> str:
        """Write the comparison as a Markdown table.

        Returns
        -------
        str
            One line a method; means with the standard deviation over seeds.
        """
        names = list(self.rows[0].scores)
        heads = ["method", *names, "seeds", "parameters", "train s", "samples/s"]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for row in self.rows:
            cells = [row.name]
            for name in names:
                mean, spread = row.scores[name]
                cells.append(f"{mean:.4g} ± {spread:.2g}" if row.runs > 1 else f"{mean:.4g}")
            cells += [
                str(row.runs),
                "-" if row.parameters is None else f"{row.parameters:,}",
                "-" if row.train_seconds is None else f"{row.train_seconds:.1f}",
                "-" if row.samples_per_second is None else f"{row.samples_per_second:,.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def save(self, folder: StrPath) -> Path:
        """Write ``comparison.csv``, ``comparison.md`` and ``comparison.png``.

        Parameters
        ----------
        folder : path
            Made if absent.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / "comparison.md").write_text(self.table() + "\n", encoding="utf-8")
        with (target / "comparison.csv").open("w", encoding="utf-8", newline="") as file:
            records = [_flat(row) for row in self.rows]
            writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
        first = next(iter(self.rows[0].scores))
        figure = comparison_figure({row.name: row.scores[first] for row in self.rows}, label=first)
        save_figure(figure, target / "comparison.png")
        return target


def compare(  # noqa: PLR0913
    networks: Sequence[Contestant],
    train: Samples | Examples,
    valid: Samples | Examples | None,
    test: Samples | Examples,
    *,
    seeds: Sequence[int] = (0,),
    task: Task | None = None,
    settings: Mapping[str, Any] | None = None,
    split: Split | None = None,
    out: StrPath | None = None,
) -> Comparison:
    """Train or load several networks on the same samples and seeds, and score them beside the baselines.

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
    split : Split, optional
        The split that the samples come from, of :func:`cubekit.plan_split`: written into `out` and beside
        every model.
    out : path, optional
        Folder for table and figure, and for the models, one folder for each network and seed.

    Returns
    -------
    Comparison
        ``print(….table())`` shows it.

    Raises
    ------
    OptionError
        If there is no network or no seed, or a setting is not one of :func:`cubekit.fit`.
    CubekitError
        From training; networks that are done stay in `out` and are not trained again.

    Examples
    --------
    >>> compare(["tempcnn", "ltae"], train, valid, test, seeds=range(3))  # doctest: +SKIP
    """
    if not networks or not len(seeds):
        raise OptionError(f"compare needs networks and seeds; found {len(networks)} and {len(seeds)}.")
    options = dict(settings or {})
    taken = sorted({"seed", "out", "split", "task", "valid"} & set(options))
    if taken:
        raise OptionError(f"settings= holds {taken}, which compare decides itself: pass seeds=, out=, task=.")
    folder = None if out is None else Path(out)
    rows: list[Row] = []
    others: dict[str, Scores] = {}
    for number, network in enumerate(networks):
        label = _label(network, number)
        trials: list[tuple[Scores, Model, float | None, float]] = []
        for seed in seeds if not isinstance(network, Model) else seeds[:1]:
            start = perf_counter()
            if isinstance(network, Model):
                model, spent = network, None
            else:
                place = None if folder is None else folder / f"{label}-{seed}"
                model = fit(network, train, valid, task=task, seed=seed, out=place, split=split, **options)
                spent = perf_counter() - start
            start = perf_counter()
            _predict(model, test)
            rate = len(test) / (perf_counter() - start)
            scores = score_beside_baselines(model, train, test, seed=seed, others=not others)
            trials.append((scores.pop(model.card.network), model, spent, rate))
            others = others or scores
        rows.append(_row(label, trials))
    rows += [
        Row(name=name, scores=_numbers([score]), runs=1, parameters=None, train_seconds=None,
            samples_per_second=None)
        for name, score in others.items()
    ]  # fmt: skip
    first = next(iter(rows[0].scores))
    result = Comparison(
        rows=tuple(sorted(rows, key=lambda row: row.scores[first][0], reverse=first == "overall accuracy"))
    )
    if folder is not None:
        result.save(folder)
        if split is not None:
            split.save(folder / SPLIT)
        (folder / "settings.json").write_text(json.dumps(options | {"seeds": list(seeds)}, default=str))
    return result


def _predict(model: Model, test: Samples | Examples) -> None:
    """Run the model over the samples, to see how long it takes."""
    inputs = {"x": test.physical()} if isinstance(test, Samples) else dict(test.arrays)
    inputs.pop("y", None)
    if model.card.task == "classify":
        model.probabilities(inputs["x"])
    else:
        model.apply(inputs)


def _row(label: str, trials: Sequence[tuple[Scores, Model, float | None, float]]) -> Row:
    """Put the runs of one network together."""
    times = [spent for _, _, spent, _ in trials if spent is not None]
    return Row(
        name=label,
        scores=_numbers([scores for scores, _, _, _ in trials]),
        runs=len(trials),
        parameters=trials[0][1].card.parameters,
        train_seconds=float(np.mean(times)) if times else None,
        samples_per_second=float(np.mean([rate for _, _, _, rate in trials])),
    )


def _numbers(scores: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of each score."""
    if isinstance(scores[0], Accuracy):
        names = {"overall accuracy": "overall", "macro F1": "macro_f1", "kappa": "kappa"}
        found = {name: [getattr(each, field) for each in scores] for name, field in names.items()}
    else:
        found = {
            name: [each.to_dict()[name.lower()] or np.nan for each in scores]
            for name in ("RMSE", "MAE", "bias", "R2")
        }
    return {
        name: (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
        for name, values in found.items()
    }


def _label(network: Contestant, number: int) -> str:
    """Name a network in the table."""
    if isinstance(network, str):
        return network
    if isinstance(network, Model):
        return (
            f"{network.card.network.rpartition('.')[2]} (trained {network.card.created[:10]}, {number + 1})"
        )
    return f"{type(network).__name__}-{number + 1}"


def _flat(row: Row) -> dict[str, object]:
    """Return a line of the CSV file."""
    scores = {
        f"{name} {what}": value
        for name, pair in row.scores.items()
        for what, value in zip(("mean", "sd"), pair, strict=True)
    }
    return {
        "method": row.name,
        **scores,
        "seeds": row.runs,
        "parameters": row.parameters,
        "train_seconds": row.train_seconds,
        "samples_per_second": row.samples_per_second,
    }
