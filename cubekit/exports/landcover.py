"""The report of a class map: scores against baselines, map, areas, samples, training, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import xarray as xr

from cubekit.evaluation.area import AreaEstimate
from cubekit.evaluation.calibration import Calibration
from cubekit.exports.cartography import area_text, pixel_area
from cubekit.exports.figures import (
    confusion_figure,
    curve_figure,
    map_figure,
    reliability_figure,
    rgb_figure,
    series_figure,
    split_figure,
)
from cubekit.exports.maps import class_areas
from cubekit.exports.report import KeyFigure, Picture, Report, Section, Table
from cubekit.labels import class_table
from cubekit.typing import FloatArray, IntArray

FEW = 30
"""Fewer test samples of a class than this give scores that say little."""


class Scores(Protocol):
    """What a report needs of scores; :class:`cubekit.evaluation.accuracy.Accuracy` is one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""

    @property
    def confusion(self) -> IntArray:
        """Counts ``(true, predicted)``."""

    @property
    def support(self) -> IntArray:
        """True samples of each class."""

    @property
    def overall(self) -> float:
        """Overall accuracy."""

    @property
    def producers(self) -> FloatArray:
        """Producer's accuracy of each class."""

    @property
    def users(self) -> FloatArray:
        """User's accuracy of each class."""

    @property
    def f1(self) -> FloatArray:
        """F1 of each class."""

    @property
    def macro_f1(self) -> float:
        """Mean F1."""

    @property
    def kappa(self) -> float:
        """Cohen's kappa."""


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """A predicted class map and all that is known of it; what is not given is not shown."""

    title: str
    """Heading."""

    prediction: xr.Dataset
    """Variable ``class``, and ``margin`` if it shall be shown. Written or in memory: it is read often."""

    accuracy: Scores
    """Scores of the model on the test samples."""

    baselines: Mapping[str, Scores] = field(default_factory=dict)
    """Name to scores of simpler methods on the same samples."""

    reference: Mapping[str, Scores] = field(default_factory=dict)
    """Name to scores of the map against something else, such as a reference map."""

    cube: xr.Dataset | None = None
    """Cube that was classified; its clearest date is shown."""

    areas: AreaEstimate | None = None
    """Areas with confidence intervals, in hectares or pixels."""

    areas_note: str = ""
    """When these areas hold."""

    calibration: Calibration | None = None
    """How honest the probabilities are on the test samples."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    """Name (``training``, ``validation``, ``test``) to samples: map of the split, series of the first."""

    history: Sequence[Mapping[str, float]] = ()
    """Records of the epochs."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """Data and settings, name to value."""

    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from, name to text."""

    warnings: Sequence[str] = ()
    """Added to those that the scores give rise to."""


def class_map_report(result: ClassMap) -> Report:
    """Put together the report of a predicted class map.

    Parameters
    ----------
    result : ClassMap
        Map, scores, and what else is known.

    Returns
    -------
    Report
        For :func:`cubekit.exports.report.write_report`.
    """
    sections = [
        Section(
            title="Map",
            pictures=_maps(result.prediction, result.cube),
            tables=[_area_table(result), *_estimated_areas(result)],
        ),
        _accuracy_section(result),
    ]
    if result.parts or result.history:
        sections.append(_training_section(result))
    if result.settings:
        sections.append(Section(title="Data and settings", tables=[Table.of(result.settings)]))
    return Report(
        title=result.title,
        summary=_summary(result),
        key_figures=_key_figures(result),
        warnings=[*result.warnings, *_doubts(result.accuracy, result.baselines)],
        sections=sections,
        provenance=result.provenance,
    )


def _summary(result: ClassMap) -> str:
    """Say in a sentence or two what was made."""
    prediction, accuracy = result.prediction, result.accuracy
    start, end = (prediction.attrs.get(f"time_coverage_{which}", "") for which in ("start", "end"))
    time = f", from observations of {start} to {end}" if start and end else ""
    size = " x ".join(f"{prediction.sizes[dim]:,}" for dim in ("y", "x"))
    return (
        f"A map of {len(class_table(prediction))} classes, {size} pixels{time}. "
        f"{accuracy.overall:.1%} of {int(accuracy.support.sum()):,} test samples, "
        "which the model has not seen, get the right class."
    )


def _key_figures(result: ClassMap) -> list[KeyFigure]:
    """Return what a reader should see first."""
    accuracy, others = result.accuracy, result.baselines.items()
    overall = ", ".join(f"{name} {score.overall:.1%}" for name, score in others)
    macro = ", ".join(f"{name} {_three_digits(score.macro_f1)}" for name, score in others)
    return [
        KeyFigure(label="Overall accuracy, test samples", value=f"{accuracy.overall:.1%}", note=overall),
        KeyFigure(label="Macro F1, test samples", value=_three_digits(accuracy.macro_f1), note=macro),
        *(
            KeyFigure(label=name, value=f"{score.overall:.1%}", note=f"of {int(score.support.sum()):,}")
            for name, score in result.reference.items()
        ),
        _largest_class(result.prediction),
    ]


def _largest_class(prediction: xr.Dataset) -> KeyFigure:
    """Return the largest class with its share and area."""
    table, counts = class_table(prediction), class_areas(prediction["class"])
    area = pixel_area(prediction)
    largest, total = int(counts.argmax()), max(1, int(counts.sum()))
    size = "" if area is None else f"{area_text(counts[largest] * area)} of {area_text(total * area)}"
    return KeyFigure(
        label=f"Largest class: {table.names[largest]}", value=f"{counts[largest] / total:.1%}", note=size
    )


def _doubts(accuracy: Scores, baselines: Mapping[str, Scores]) -> list[str]:
    """Return what the scores themselves warn of."""
    doubts = [
        f"The model is not better than {name}: {accuracy.overall:.1%} against {score.overall:.1%} are right."
        for name, score in baselines.items()
        if score.overall >= accuracy.overall
    ]
    rare = [
        f"{name} ({n})"
        for name, n in zip(accuracy.classes, accuracy.support.tolist(), strict=True)
        if n < FEW
    ]
    if rare:
        doubts.append(f"Few test samples, so scores that say little: {', '.join(rare)}.")
    never = [
        name
        for name, n, found in zip(
            accuracy.classes, accuracy.support, accuracy.confusion.sum(axis=0), strict=True
        )
        if n and not found
    ]
    if never:
        doubts.append(f"Never predicted on the test samples: {', '.join(never)}.")
    return doubts


def _maps(prediction: xr.Dataset, cube: xr.Dataset | None) -> list[Picture]:
    """Return the map, how sure it is, and what the scene looks like."""
    pictures = [
        Picture.of(
            map_figure(prediction, title="Predicted class"), "Predicted class of every pixel.", wide=True
        )
    ]
    if cube is not None:
        pictures.append(Picture.of(rgb_figure(cube), "The scene on the clearest date of the cube."))
    if "margin" in prediction:
        pictures.append(
            Picture.of(
                map_figure(prediction, variable="margin", title="How sure the model is"),
                "Lead of the best class over the second: low where the model is torn.",
            )
        )
    return pictures


def _area_table(result: ClassMap) -> Table:
    """Return the area of each class."""
    table, counts = class_table(result.prediction), class_areas(result.prediction["class"])
    area = pixel_area(result.prediction)
    total = max(1, int(counts.sum()))
    rows = [
        [name, f"{int(n):,}", f"{n / total:.1%}", *([] if area is None else [f"{100 * n * area:,.1f}"])]
        for name, n in zip(table.names, counts, strict=True)
    ]
    columns = ["class", "pixels", "share", *([] if area is None else ["hectares"])]
    return Table(
        columns=columns,
        rows=rows,
        colours=table.colours,
        caption="Area by counting pixels, not bias-adjusted",
    )


def _estimated_areas(result: ClassMap) -> list[Table]:
    """Return the areas that the test samples speak for, with their intervals."""
    found = result.areas
    if found is None:
        return []
    rows = [
        [
            name,
            f"{found.mapped[i]:,.1f}",
            f"{found.area[i]:,.1f} ± {found.area_margin[i]:,.1f}",
            f"{found.users[i]:.3f} ± {found.users_margin[i]:.3f}",
            f"{found.producers[i]:.3f} ± {found.producers_margin[i]:.3f}",
        ]
        for i, name in enumerate(found.classes)
    ]
    colours = _colours(result.prediction)
    table = Table(
        columns=["class", "mapped", "estimated area", "user's accuracy", "producer's accuracy"],
        rows=rows,
        colours=[colours.get(name, "") for name in found.classes],
        caption=f"Error-adjusted areas with {found.level:.0%} confidence intervals (Olofsson et al. 2014), "
        f"in hectares where the map's unit is known. {result.areas_note}",
    )
    return [table]


def _accuracy_section(result: ClassMap) -> Section:
    """Return scores by method and by class."""
    every = {"this model": result.accuracy, **result.baselines, **result.reference}
    pictures = [Picture.of(confusion_figure(result.accuracy, title="Test samples"), "Rows are the truth.")]
    pictures += [
        Picture.of(confusion_figure(score, title=name), "Rows are the truth.")
        for name, score in result.reference.items()
    ]
    if result.calibration is not None:
        pictures.append(
            Picture.of(
                reliability_figure(result.calibration),
                "Probability of the chosen class against the share that is right, on the test samples.",
            )
        )
    return Section(
        title="Accuracy",
        pictures=pictures,
        tables=[method_table(every), class_score_table(result.accuracy, _colours(result.prediction))],
    )


def _colours(prediction: xr.Dataset) -> dict[str, str]:
    """Return the colour of each class."""
    table = class_table(prediction)
    return dict(zip(table.names, table.colours, strict=True))


def method_table(every: Mapping[str, Scores]) -> Table:
    """Put the scores of several methods side by side.

    Parameters
    ----------
    every : mapping
        Name of each method to its scores.

    Returns
    -------
    Table
        One row a method.
    """
    rows = [
        [
            name,
            f"{int(s.support.sum()):,}",
            f"{s.overall:.1%}",
            _three_digits(s.macro_f1),
            _three_digits(s.kappa),
        ]
        for name, s in every.items()
    ]
    return Table(columns=["method", "samples", "overall accuracy", "macro F1", "kappa"], rows=rows)


def class_score_table(accuracy: Scores, colours: Mapping[str, str]) -> Table:
    """Show the scores of each class.

    Parameters
    ----------
    accuracy : Scores
        Of one method.
    colours : mapping
        Class name to colour, where it is known.

    Returns
    -------
    Table
        One row a class.
    """
    columns = (accuracy.producers, accuracy.users, accuracy.f1)
    rows = [
        [name, f"{int(accuracy.support[i]):,}", *(_three_digits(column[i]) for column in columns)]
        for i, name in enumerate(accuracy.classes)
    ]
    return Table(
        columns=["class", "test samples", "producer's accuracy", "user's accuracy", "F1"],
        rows=rows,
        colours=[colours.get(name, "") for name in accuracy.classes],
        caption="Producer's accuracy: share of the true class that was found. "
        "User's accuracy: share of the predicted class that is right.",
    )


def _three_digits(value: float) -> str:
    """Write a score, a dash where it is not defined."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def _training_section(result: ClassMap) -> Section:
    """Return samples and learning curves."""
    pictures = []
    placed = {
        name: part for name, part in result.parts.items() if np.isfinite(part.position).all(axis=1).any()
    }
    if placed:
        pictures.append(
            Picture.of(
                split_figure(placed, background=result.prediction["class"]),
                "Samples by part of the split.",
                wide=True,
            )
        )
    if result.parts:
        first = next(iter(result.parts.values()))
        pictures.append(
            Picture.of(series_figure(first), "Mean series of each class in the training samples.")
        )
    if result.history:
        pictures.append(Picture.of(curve_figure(result.history), "Loss and scores by epoch."))
    return Section(title="Samples and training", pictures=pictures)
