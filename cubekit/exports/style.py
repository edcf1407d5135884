"""The look that all figures share, and how they become files; matplotlib without its global state."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
"""Text."""

FAINT = "#8a8a8a"
"""Axes, notes."""

EMPTY = "#e6e6e6"
"""Pixels without data."""

ACCENT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of lines and marks, told apart by colour-blind readers (Okabe, Ito: https://jfly.uni-koeln.de/color/)."""

DPI = 160
"""Pixels per inch of raster files."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw what is inside in the shared look; the caller's own settings stay.

    Yields
    ------
    None
        The look lasts as long as the block.
    """
    from matplotlib import rc_context

    with rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, not known to pyplot.

    Parameters
    ----------
    width, height : float
        Size in inches.

    Returns
    -------
    matplotlib.figure.Figure
        White, laid out by constraints.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def open_frame(axes: "Axes", *, grid: bool = True) -> None:
    """Leave only the left and lower spine, with a faint grid behind.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    grid : bool, optional
        Whether to draw horizontal lines.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis="y", color="#ececec", linewidth=0.7)


def png_bytes(figure: "Figure") -> bytes:
    """Return a figure as PNG, the same bytes for the same figure.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure.

    Returns
    -------
    bytes
        PNG.
    """
    stream = io.BytesIO()
    with styled():
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def save_figure(figure: "Figure", path: str | PathLike[str]) -> Path:
    """Write a figure; the file appears whole.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure.
    path : path
        Target, ``.png``.

    Returns
    -------
    pathlib.Path
        The file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    draft.write_bytes(png_bytes(figure))
    return draft.replace(target)
