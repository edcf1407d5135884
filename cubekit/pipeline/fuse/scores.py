"""How good predicted images are, beside the baselines: one table for all."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cubekit.evaluation.fusion_metrics import METRICS

RIVAL = "F1 + (C2 - C1)"
"""The baseline that a network has to beat to be worth its training."""


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """Eleven scores of one method, means over the test pairs."""

    values: Mapping[str, float]
    """Score by name (:data:`cubekit.evaluation.fusion_metrics.METRICS`)."""

    pairs: Sequence[Mapping[str, Any]] = ()
    """The same for each test pair, with its dates."""

    parameters: int | None = None
    """Weights; None for baselines."""

    train_seconds: float | None = None
    """Time of training; None where nothing was trained here."""

    predict_seconds: float | None = None
    """Time of predicting all test scenes."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained."""

    @property
    def overall(self) -> float:
        """The root mean squared error."""
        return self.values["RMSE"]

    def table(self) -> str:
        """Write the scores as a Markdown table.

        Returns
        -------
        str
            One line.
        """
        return table_of({"": self})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it.

        Returns
        -------
        dict
            NaN and infinity become None.
        """
        return {
            "scores": {name: _plain(value) for name, value in self.values.items()},
            "pairs": [{name: _plain(value) for name, value in pair.items()} for pair in self.pairs],
            "parameters": self.parameters,
            "train_seconds": self.train_seconds,
            "predict_seconds": self.predict_seconds,
            "settings": dict(self.settings),
        }


def mean_scores(found: Sequence[Mapping[str, Any]], **facts: Any) -> MethodScores:
    """Average the scores of the test pairs; nothing is left out.

    Parameters
    ----------
    found : sequence of mapping
        Scores of each pair, with what else is to be told of it.
    **facts
        Other fields of :class:`MethodScores`.

    Returns
    -------
    MethodScores
        A score that is not defined for a pair is not defined for the mean.
    """
    means = {name: float(np.mean([each[name] for each in found])) for name in METRICS}
    return MethodScores(values=means, pairs=tuple(found), **facts)


def ranked(scores: Mapping[str, MethodScores]) -> dict[str, MethodScores]:
    """Order methods by their error.

    Parameters
    ----------
    scores : mapping
        Method to its scores.

    Returns
    -------
    dict
        The same, lowest root mean squared error first.
    """
    return dict(sorted(scores.items(), key=lambda item: item[1].overall))


def table_of(scores: Mapping[str, MethodScores]) -> str:
    """Write several methods as one Markdown table.

    Parameters
    ----------
    scores : mapping
        Method to its scores, in the order of the lines.

    Returns
    -------
    str
        Eleven scores, number of weights and seconds.
    """
    heads = ["method", *METRICS, "parameters", "train s", "predict s"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, score in scores.items():
        cells = [name, *(f"{score.values[metric]:.4g}" for metric in METRICS)]
        cells.append("-" if score.parameters is None else f"{score.parameters:,}")
        spent = (score.train_seconds, score.predict_seconds)
        cells += ["-" if seconds is None else f"{seconds:.1f}" for seconds in spent]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_tables(scores: Mapping[str, MethodScores], folder: Path) -> dict[str, Path]:
    """Write the table as Markdown and, pair by pair, as CSV.

    Parameters
    ----------
    scores : mapping
        Method to its scores.
    folder : pathlib.Path
        Where to.

    Returns
    -------
    dict
        ``table`` and ``metrics``.
    """
    files = {"table": folder / "comparison.md", "metrics": folder / "metrics.csv"}
    files["table"].write_text(table_of(scores) + "\n", encoding="utf-8")
    text = io.StringIO()
    rows = [{"method": name, **pair} for name, score in scores.items() for pair in score.pairs]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files["metrics"].write_text(text.getvalue(), encoding="utf-8")
    return files


def verdict(scores: Mapping[str, MethodScores]) -> str:
    """Say of each network whether it beats the baseline that needs no training.

    Parameters
    ----------
    scores : mapping
        Method to its scores; networks have parameters.

    Returns
    -------
    str
        A line each.
    """
    trained = {name: score for name, score in scores.items() if score.parameters is not None}
    others = {name: score for name, score in scores.items() if score.parameters is None}
    if not others:
        return ""
    rival = RIVAL if RIVAL in others else min(others, key=lambda name: others[name].overall)
    best = others[rival].overall
    lines = [f"RMSE of {rival}, which learns nothing: {best:.4f}."]
    for name, score in trained.items():
        share = 100 * (1 - score.overall / best)
        budget = (
            f"{score.settings.get('epochs')} epochs of {score.settings.get('patches')} patches, "
            f"{score.train_seconds or 0:.0f} s"
        )
        told = f"{share:.1f} % better" if share > 0 else f"NOT better ({-share:.1f} % worse)"
        lines.append(f"  {name}: {score.overall:.4f}, {told}, after {budget}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
