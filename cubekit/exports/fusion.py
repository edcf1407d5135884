"""Predicted fine images beside the true one, each above the map of its errors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cubekit.errors import ExportError
from cubekit.exports.style import EMPTY, FAINT, new_figure, styled
from cubekit.typing import FloatArray

if TYPE_CHECKING:
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

    def colours(image: FloatArray) -> FloatArray:
        scaled = (image[bands, ::step, ::step] - low[:, None, None]) / (high - low + 1e-9)[:, None, None]
        shown = np.where(np.isfinite(scaled).all(axis=0), scaled.clip(0, 1) ** 0.8, int(EMPTY[1:3], 16) / 255)
        return np.moveaxis(shown, 0, -1)

    errors = {
        name: np.abs(image - truth)[:, ::step, ::step].mean(axis=0) for name, image in predicted.items()
    }
    largest = float(np.nanpercentile(np.stack(list(errors.values())), 98)) or 1e-9
    cells = {"true image": (colours(truth), None if known is None else colours(known))}
    cells |= {name: (colours(image), errors[name]) for name, image in predicted.items()}
    across, down = min(ACROSS, len(cells)), -(-len(cells) // ACROSS)
    height = _SIDE * min(2.0, truth.shape[1] / truth.shape[2])
    with styled():
        figure = new_figure(across * (_SIDE + 0.1) + 0.9, down * (2 * height + 0.62) + 0.4 * bool(title))
        if title:
            figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
        drawn = None
        for number, (name, (above, below)) in enumerate(cells.items()):
            row, column = divmod(number, across)
            for half, picture in enumerate((above, below)):
                axes = figure.add_subplot(2 * down, across, (2 * row + half) * across + column + 1)
                axes.set_xticks([])
                axes.set_yticks([])
                if picture is None:
                    axes.set_axis_off()
                    continue
                if picture.ndim == 3:  # noqa: PLR2004  (h, w, colour)
                    axes.imshow(picture, interpolation="nearest")
                else:
                    axes.set_facecolor(EMPTY)
                    drawn = axes.imshow(
                        picture, cmap="magma_r", vmin=0, vmax=largest, interpolation="nearest"
                    )
                if not half:
                    axes.set_title(name, fontsize=8.5, pad=13)
                    axes.annotate(
                        (notes or {}).get(name, ""), (0, 1), (0, 4), xycoords="axes fraction",
                        textcoords="offset points", fontsize=7, color=FAINT,
                    )  # fmt: skip
                elif number == 0:
                    axes.set_title("known image", fontsize=8.5)
        if drawn is not None:
            figure.colorbar(
                drawn, ax=figure.axes, label="mean absolute error of the bands", aspect=40, pad=0.01
            )
        return figure
