"""What a comparison of networks tells: one table, one figure, and the maps side by side."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubekit.evaluation.accuracy import Accuracy
from cubekit.exports.figures import comparison_figure, panels_figure, save_figure
from cubekit.training.scores import Scores
from cubekit.typing import StrPath

CLASS_SCORES = {
    "overall accuracy": "overall",
    "macro F1": "macro_f1",
    "weighted F1": "weighted_f1",
    "kappa": "kappa",
}
"""Scores of classes, the first one decides the order."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method."""

    name: str
    """Of the network or baseline."""

    scores: Mapping[str, tuple[float, float]]
    """Score to its mean over the seeds and its standard deviation (0 for a single one)."""

    runs: int
    """Number of seeds."""

    parameters: int | None = None
    """Weights; None for baselines."""

    train_seconds: float | None = None
    """Mean time of training; None where nothing was trained here."""

    samples_per_second: float | None = None
    """Mean rate of prediction in memory; None for baselines and for networks that see patches."""

    megapixels_per_second: float | None = None
    """Mean rate at which the whole cube was mapped; None where no cube was given."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Networks and baselines, best first."""

    rows: tuple[Row, ...]
    """Methods by their first score."""

    maps: Mapping[str, xr.DataArray] = field(default_factory=dict)
    """Class map of each network, trained with the first seed; in the order of the rows."""

    reference: xr.DataArray | None = None
    """Labels or a map that the others are shown beside."""

    def table(self) -> str:
        """Write the comparison as a Markdown table.

        Returns
        -------
        str
            One line a method; means with the standard deviation over seeds.
        """
        names = list(self.rows[0].scores)
        rates = {
            "samples/s": ("samples_per_second", ",.0f"),
            "Mpx/s": ("megapixels_per_second", ".3g"),
        }
        shown = {
            head: (name, form)
            for head, (name, form) in rates.items()
            if any(getattr(row, name) is not None for row in self.rows)
        }
        heads = ["method", *names, "seeds", "parameters", "train s", *shown]
        lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for row in self.rows:
            cells = [row.name]
            for name in names:
                mean, spread = row.scores[name]
                cells.append(f"{mean:.4g} ± {spread:.2g}" if row.runs > 1 else f"{mean:.4g}")
            cells += [str(row.runs), _cell(row.parameters, ","), _cell(row.train_seconds, ".1f")]
            cells += [_cell(getattr(row, name), form) for name, form in shown.values()]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def save(self, folder: StrPath) -> Path:
        """Write ``comparison.csv``, ``.md`` and ``.png``, and ``maps.png`` where there are maps.

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
        if self.maps:
            save_figure(self.panels(), target / "maps.png")
        return target

    def panels(self, *, title: str | None = None) -> Any:
        """Draw all maps side by side, the reference first, each with its first score.

        Parameters
        ----------
        title : str, optional
            Heading.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot.
        """
        first = next(iter(self.rows[0].scores))
        notes = {
            row.name: f"{first} {row.scores[first][0]:.3f}"
            + (f" ± {row.scores[first][1]:.3f}" * (row.runs > 1))
            for row in self.rows
        }
        shown = ({} if self.reference is None else {"reference": self.reference}) | dict(self.maps)
        return panels_figure(shown, notes=notes, title=title)


def numbers(scores: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """Put the scores of several runs together.

    Parameters
    ----------
    scores : sequence of Accuracy or Errors
        One for each run, of one kind.

    Returns
    -------
    dict
        Name to mean and standard deviation, which is 0 for a single run.
    """
    if isinstance(scores[0], Accuracy):
        found = {
            name: [getattr(each, attribute) for each in scores] for name, attribute in CLASS_SCORES.items()
        }
    else:
        found = {
            name: [each.to_dict()[name.lower()] or np.nan for each in scores]
            for name in ("RMSE", "MAE", "bias", "R2")
        }
    return {
        name: (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
        for name, values in found.items()
    }


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


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
        "megapixels_per_second": row.megapixels_per_second,
    }
