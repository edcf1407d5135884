"""Figures without a map: confusion matrix, learning curves, series by class."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cubekit.errors import ExportError
from cubekit.exports.style import ACCENT, FAINT, INK, new_figure, open_frame, styled
from cubekit.labels import ClassTable
from cubekit.typing import Array, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 14
"""More classes than this get no numbers in the cells of a confusion matrix."""


class ConfusionLike(Protocol):
    """What a confusion figure needs; :class:`cubekit.evaluation.accuracy.Accuracy` is one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""

    @property
    def confusion(self) -> IntArray:
        """Counts ``(true, predicted)``."""


class SeriesLike(Protocol):
    """What a series figure needs; :class:`cubekit.batching.samples.Samples` is one."""

    @property
    def y(self) -> Array:
        """Class index ``(n,)``."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names."""

    @property
    def times(self) -> Array:
        """Dates ``(time,)``."""

    @property
    def classes(self) -> ClassTable:
        """Class table."""

    def physical(self) -> FloatArray:
        """Return ``(n, time, band)`` with NaN gaps."""


def confusion_figure(accuracy: ConfusionLike, *, title: str = "Confusion matrix") -> "Figure":
    """Draw a confusion matrix, coloured by the share of each true class.

    Parameters
    ----------
    accuracy : Accuracy
        With ``classes`` and ``confusion`` ``(true, predicted)``.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are the truth. Counts in the cells, producer's accuracy to the right of each row, user's accuracy
        below each column.
    """
    counts, names = np.asarray(accuracy.confusion), list(accuracy.classes)
    size = len(names)
    side = float(np.clip(0.52 * size, 2.4, 7.5))
    with styled():
        figure = new_figure(side + 2.4, side + 1.5)
        axes = figure.add_subplot()
        axes.imshow(_shares(counts, axis=1), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(title, pad=22)
        axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(1, size) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, size) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2)
        axes.tick_params(which="minor", length=0)
        if size <= MANY:
            _cell_counts(axes, counts)
        _margins(axes, counts)
        return figure


def curve_figure(
    history: Sequence[Mapping[str, float]], *, title: str = "Learning curves", kept: int | None = None
) -> "Figure":
    """Draw losses and scores by epoch.

    Parameters
    ----------
    history : sequence of mapping
        One record an epoch: ``epoch``, and numbers named such as ``train_loss``, ``valid_loss``,
        ``valid_f1``. ``seconds`` is left out.
    title : str, optional
        Heading.
    kept : int, optional
        Epoch whose weights were kept, marked by a line. Default: the one with the least ``valid_loss``.

    Returns
    -------
    matplotlib.figure.Figure
        Losses on the left, scores on the right where there are any.

    Raises
    ------
    ExportError
        If the history is empty.
    """
    if not history:
        raise ExportError("The history holds no epoch, so there is no curve to draw.")
    epochs = [record.get("epoch", i + 1) for i, record in enumerate(history)]
    found = dict.fromkeys(name for record in history for name in record)
    names = [name for name in found if name not in {"epoch", "seconds", "learning_rate"}]
    panels = [
        panel for panel in ([n for n in names if "loss" in n], [n for n in names if "loss" not in n]) if panel
    ]
    best = kept if kept is not None else _best_epoch(history, epochs)
    with styled():
        figure = new_figure(3.7 * len(panels) + 0.4, 2.9)
        for column, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), column + 1)
            _curves(axes, epochs, {n: [record.get(n, np.nan) for record in history] for n in panel})
            axes.set_ylabel("loss" if "loss" in panel[0] else "score")
            if best is not None:
                axes.axvline(best, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
                axes.annotate(
                    f"kept: {best:g}", (best, 1.0), (0, 1), xycoords=("data", "axes fraction"), fontsize=7,
                    textcoords="offset points", ha="center", va="bottom", color=FAINT,
                )  # fmt: skip
            if column == 0:
                axes.set_title(title, pad=14)
        return figure


def series_figure(samples: SeriesLike, *, value: str | None = None, title: str | None = None) -> "Figure":
    """Draw the mean series of each class, with the middle half of its samples as a band.

    Parameters
    ----------
    samples : Samples
        Labelled series.
    value : str, optional
        A band, or ``"ndvi"`` computed from ``nir`` and ``red`` (``B08``, ``B04``). Default: ``ndvi`` where
        it can be had, else the first band.
    title : str, optional
        Default: names the value.

    Returns
    -------
    matplotlib.figure.Figure
        Lines in the classes' colours; the band goes from the 25th to the 75th percentile. Classes without
        samples are left out.

    Raises
    ------
    ExportError
        If the value cannot be had from the bands.
    """
    values, name = _series_values(samples, value)
    with styled():
        figure = new_figure(7.0, 3.4)
        axes = figure.add_subplot()
        open_frame(axes)
        for index, (label, colour) in enumerate(
            zip(samples.classes.names, samples.classes.colours, strict=True)
        ):
            own = values[np.asarray(samples.y) == index]
            if len(own):
                _one_series(axes, np.asarray(samples.times), own, label, colour)
        axes.set_title(title or f"{name} by class: mean, middle half of the samples", pad=8)
        axes.set_ylabel(name)
        axes.margins(x=0.01)
        date_axis(axes)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, labelspacing=0.6)
        return figure


def _shares(counts: IntArray, *, axis: int) -> FloatArray:
    """Divide by the sum along an axis; empty rows give 0."""
    total = counts.sum(axis=axis, keepdims=True)
    return np.asarray(counts / np.maximum(total, 1))


def _cell_counts(axes: "Axes", counts: IntArray) -> None:
    """Write counts into the cells, white on dark ones, faint where zero."""
    shares = _shares(counts, axis=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "#c4c4c4" if count == 0 else "white" if shares[row, column] > 0.55 else INK  # noqa: PLR2004
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7.5, color=colour)


def _margins(axes: "Axes", counts: IntArray) -> None:
    """Write producer's accuracy beside the rows, user's accuracy above the columns."""
    size, right = len(counts), np.diag(counts)
    per_row, per_column = right / np.maximum(counts.sum(1), 1), right / np.maximum(counts.sum(0), 1)
    for i in range(size):
        axes.text(size - 0.35, i, f"{per_row[i]:.0%}", va="center", fontsize=7.5, color=INK)
        axes.text(i, -0.62, f"{per_column[i]:.0%}", ha="center", va="bottom", fontsize=7.5, color=INK)
    axes.text(size - 0.35, -0.62, "producer's ↓", va="bottom", fontsize=6.5, color=FAINT)
    axes.text(-0.62, -0.62, "user's →", ha="right", va="bottom", fontsize=6.5, color=FAINT)


def _best_epoch(history: Sequence[Mapping[str, float]], epochs: Sequence[float]) -> float | None:
    """Return the epoch with the least validation loss."""
    losses = [record.get("valid_loss", np.nan) for record in history]
    return None if np.isnan(losses).all() else epochs[int(np.nanargmin(losses))]


def _curves(axes: "Axes", epochs: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    """Draw lines of one panel."""
    from matplotlib.ticker import MaxNLocator

    open_frame(axes)
    for (name, values), colour in zip(curves.items(), ACCENT * len(curves), strict=False):
        mark = "o" if len(epochs) == 1 else None
        axes.plot(epochs, values, color=colour, linewidth=1.6, marker=mark, label=_spoken(name))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.legend(loc="best")


def _spoken(name: str) -> str:
    """Turn a column name into words."""
    words = name.replace("valid_", "validation ").replace("train_", "training ").replace("_", " ")
    return words.replace("f1", "F1")


def _series_values(samples: SeriesLike, value: str | None) -> tuple[FloatArray, str]:
    """Return ``(n, time)`` and how to call it."""
    physical, bands = samples.physical(), list(samples.bands)
    nir = next((bands.index(name) for name in ("nir", "B08", "B8") if name in bands), None)
    red = next((bands.index(name) for name in ("red", "B04", "B4") if name in bands), None)
    if value in bands or (value is None and (nir is None or red is None)):
        name = value or bands[0]
        return physical[..., bands.index(name)], name.upper() if name in {"ndvi", "evi"} else name
    if value not in {None, "ndvi"} or nir is None or red is None:
        raise ExportError(f"value={value!r} cannot be had from the bands {', '.join(bands)}.")
    above, below = physical[..., nir] - physical[..., red], physical[..., nir] + physical[..., red]
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0), "NDVI"


def _one_series(axes: "Axes", times: Array, own: FloatArray, label: str, colour: str) -> None:
    """Draw one class; dates without any value make gaps."""
    seen = np.isfinite(own).any(axis=0)
    mean, low, high = (np.full(len(times), np.nan) for _ in range(3))
    mean[seen] = np.nanmean(own[:, seen], axis=0)
    low[seen], high[seen] = np.nanpercentile(own[:, seen], (25, 75), axis=0)
    axes.fill_between(times, low, high, color=colour, alpha=0.14, linewidth=0)
    mark = "o" if len(times) <= 30 else None  # noqa: PLR2004  (more would merge into the line)
    axes.plot(
        times, mean, color=colour, linewidth=1.8, marker=mark, markersize=2.6, label=f"{label} ({len(own):,})"
    )


def date_axis(axes: "Axes") -> None:
    """Label dates as shortly as they can be told apart.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def comparison_figure(scores: Mapping[str, tuple[float, float]], *, label: str) -> "Figure":
    """Draw one score of several methods, best on top.

    Parameters
    ----------
    scores : mapping
        Method to mean and standard deviation, in the order to be drawn.
    label : str
        Name of the score.

    Returns
    -------
    matplotlib.figure.Figure
        A dot for the mean and a line one standard deviation to either side.
    """
    names = list(scores)
    with styled():
        figure = new_figure(6.0, 0.42 * len(names) + 1.1)
        axes = figure.add_subplot()
        open_frame(axes)
        for place, (mean, spread) in enumerate(scores.values()):
            axes.errorbar(mean, place, xerr=spread or None, fmt="o", color=ACCENT[0], markersize=5, capsize=3)
            axes.annotate(
                f"{mean:.3g}", (mean, place), (0, 6), textcoords="offset points", ha="center", fontsize=7,
                color=FAINT,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.7)
        axes.set_xlabel(label)
        axes.margins(x=0.1)
        return figure


class CalibrationLike(Protocol):
    """What a reliability figure needs; :class:`cubekit.evaluation.calibration.Calibration` is one."""

    @property
    def confidence(self) -> FloatArray:
        """Mean probability of the chosen class in each bin."""

    @property
    def accuracy(self) -> FloatArray:
        """Share of right classes in each bin."""

    @property
    def counts(self) -> IntArray:
        """Samples in each bin."""

    @property
    def error(self) -> float:
        """Expected calibration error."""


def reliability_figure(calibration: CalibrationLike, *, title: str = "Are probabilities honest?") -> "Figure":
    """Draw how often predictions of like confidence are right.

    Parameters
    ----------
    calibration : Calibration
        Bins of confidence.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        A dot a bin, larger for more samples; on the diagonal a model is as sure as it is right.
    """
    with styled():
        figure = new_figure(3.6, 3.4)
        axes = figure.add_subplot()
        open_frame(axes)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
        share = np.asarray(calibration.counts) / max(1, int(np.sum(calibration.counts)))
        axes.scatter(
            calibration.confidence, calibration.accuracy, s=12 + 260 * share, color=ACCENT[0], zorder=3
        )
        axes.set_title(title, pad=8)
        axes.set(xlabel="probability of the chosen class", ylabel="share that is right")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), aspect="equal")
        axes.text(0.03, 0.97, f"calibration error {calibration.error:.3f}", va="top", fontsize=7.5, color=INK)
        return figure
