"""Predicted fine images beside the true one, each above the map of its errors."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cubekit.errors import ExportError
from cubekit.exports.style import EMPTY, FAINT, new_figure, styled
from cubekit.typing import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 5
"""Most methods in a row."""

_SIDE, _LONGEST = 1.75, 400  # inches of a panel; pixels of its longer side, at most


def fusion_figure(
    truth: FloatArray,
    predicted: Mapping[str, FloatArray],
    *,
    known: FloatArray | None = None,
    rgb: tuple[int, int, int] = (2, 1, 0),
    notes: Mapping[str, str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw the true image, each prediction, and below it the mean absolute error of its bands.

    Parameters
    ----------
    truth : numpy.ndarray
        True fine image ``(c, h, w)``, NaN where there is no data.
    predicted : mapping
        Method to its image ``(c, h, w)``.
    known : numpy.ndarray, optional
        Fine image of the earlier date ``(c, h, w)``; stands below the true one.
    rgb : tuple of int, optional
        Positions of the bands shown as red, green and blue; taken from the end where there are fewer bands.
    notes : mapping, optional
        Method to a few words below its name, such as a score.
    title : str, optional
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot. All images share one stretch, all errors one scale.

    Raises
    ------
    ExportError
        If there is nothing predicted, or sizes differ.
    """
    if not predicted or {image.shape for image in predicted.values()} != {truth.shape}:
        shapes = {name: image.shape for name, image in predicted.items()}
        raise ExportError(f"The true image has shape {truth.shape}, the predicted ones {shapes}.")
    bands = [min(band, len(truth) - 1) for band in rgb]
    step = -(-max(truth.shape[1:]) // _LONGEST)
    low, high = np.nanpercentile(truth[bands][:, ::step, ::step], (2, 98), axis=(1, 2))

    errors = {
        name: np.abs(image - truth)[:, ::step, ::step].mean(axis=0) for name, image in predicted.items()
    }
    look = partial(_colours, low=low, high=high)
    cells: dict[str, tuple[FloatArray, FloatArray | None]] = {
        "true image": (look(truth[bands, ::step, ::step]), None)
    }
    if known is not None:
        cells["true image"] = (cells["true image"][0], look(known[bands, ::step, ::step]))
    cells |= {name: (look(image[bands, ::step, ::step]), errors[name]) for name, image in predicted.items()}
    across, down = min(ACROSS, len(cells)), -(-len(cells) // ACROSS)
    height = _SIDE * min(2.0, truth.shape[1] / truth.shape[2])
    with styled():
        figure = new_figure(across * (_SIDE + 0.1) + 0.9, down * (2 * height + 0.62) + 0.4 * bool(title))
        if title:
            figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
        largest = float(np.nanpercentile(np.stack(list(errors.values())), 98)) or 1e-9
        for number, (name, (above, below)) in enumerate(cells.items()):
            row, column = divmod(number, across)
            places = [(2 * row + half) * across + column + 1 for half in (0, 1)]
            axes, lower = (figure.add_subplot(2 * down, across, place) for place in places)
            _show(axes, above, largest)
            axes.set_title(name, fontsize=8.5, pad=13)
            axes.annotate(
                (notes or {}).get(name, ""), (0, 1), (0, 4), xycoords="axes fraction",
                textcoords="offset points", fontsize=7, color=FAINT,
            )  # fmt: skip
            drawn = _show(lower, below, largest)
            if number == 0 and below is not None:
                lower.set_title("known image", fontsize=8.5)
        figure.colorbar(drawn, ax=figure.axes, label="mean absolute error of the bands", aspect=40, pad=0.01)
        return figure


def _colours(image: FloatArray, *, low: FloatArray, high: FloatArray) -> FloatArray:
    """Turn three bands ``(3, h, w)`` into colours ``(h, w, 3)``, grey where there is no data."""
    scaled = (image - low[:, None, None]) / (high - low + 1e-9)[:, None, None]
    empty = int(EMPTY[1:3], 16) / 255
    shown: FloatArray = np.where(np.isfinite(scaled).all(axis=0), scaled.clip(0, 1) ** 0.8, empty)
    return np.moveaxis(shown, 0, -1)


def _show(axes: "Axes", picture: FloatArray | None, largest: float) -> Any:
    """Draw colours, or errors ``(h, w)`` up to the largest."""
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.set_axis_off()
        return None
    axes.set_facecolor(EMPTY)
    return axes.imshow(picture, cmap="magma_r", vmin=0, vmax=largest, interpolation="nearest")
