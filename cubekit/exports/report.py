"""One self-contained HTML page: key figures first, then sections of figures, tables and text."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from cubekit.errors import ExportError

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True, kw_only=True)
class KeyFigure:
    """A number that a reader should see first."""

    label: str
    """What it is, in a few words."""

    value: str
    """The number with its unit, as it shall be read."""

    note: str = ""
    """What to compare it with, such as a baseline."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its caption."""

    png: bytes
    """PNG file."""

    caption: str
    """What is to be seen; also read aloud in place of the picture."""

    wide: bool = False
    """Whether it takes the whole width, for maps; others stand side by side where there is room."""

    @classmethod
    def of(cls, figure: "Figure", caption: str, *, wide: bool = False) -> "Picture":
        """Draw a matplotlib figure.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
            Such as :func:`cubekit.exports.figures.map_figure` returns.
        caption : str
            What is to be seen.
        wide : bool, optional
            Whether it takes the whole width.

        Returns
        -------
        Picture
            The figure as PNG.
        """
        from cubekit.exports.style import png_bytes

        return cls(png=png_bytes(figure), caption=caption, wide=wide)

    @property
    def source(self) -> str:
        """The file as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; columns of numbers are set to the right."""

    columns: Sequence[str]
    """Headings."""

    rows: Sequence[Sequence[str]]
    """Cells, as they shall be read."""

    caption: str = ""
    """What the rows are."""

    colours: Sequence[str] = ()
    """``#rrggbb`` of each row, drawn before its first cell; empty for none."""

    def __post_init__(self) -> None:
        wrong = [colour for colour in self.colours if not re.fullmatch("#[0-9a-fA-F]{6}|", colour)]
        if wrong:  # it goes into a style attribute, where escaping alone does not make text harmless
            raise ExportError(f"Colour {wrong[0]!r} of a table row is not written as '#rrggbb'.")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Tell which columns hold numbers only; the first names its row."""
        return tuple(
            column > 0 and bool(self.rows) and all(_is_number(row[column]) for row in self.rows)
            for column in range(len(self.columns))
        )

    @classmethod
    def of(cls, pairs: Mapping[str, object], *, caption: str = "") -> "Table":
        """Write settings or facts as two columns.

        Parameters
        ----------
        pairs : mapping
            Name to value.
        caption : str, optional
            What they are.

        Returns
        -------
        Table
            Without headings.
        """
        return cls(columns=(), rows=[(name, str(value)) for name, value in pairs.items()], caption=caption)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; what it does not have is left out."""

    title: str
    """Heading."""

    text: str = ""
    """Paragraphs, an empty line between them."""

    pictures: Sequence[Picture] = ()
    """Figures."""

    tables: Sequence[Table] = ()
    """Tables."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page."""

    title: str
    """Heading, such as the title of the pipeline."""

    summary: str
    """What was done and what came out, in a sentence or two."""

    key_figures: Sequence[KeyFigure] = ()
    """Numbers to be seen first."""

    warnings: Sequence[str] = ()
    """What a reader must know before using the result; shown above everything else."""

    sections: Sequence[Section] = ()
    """Parts, in the order of reading."""

    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from: items, digests, versions, commands."""


def write_report(path: str | PathLike[str], report: Report, *, made: datetime | None = None) -> Path:
    """Write a report as one HTML file that needs nothing else: images inside, no scripts, no addresses.

    Parameters
    ----------
    path : path
        Target, ``.html``; replaced when the new page is whole.
    report : Report
        What to say. Every text is escaped.
    made : datetime.datetime, optional
        Time at the foot of the page. Default: now.

    Returns
    -------
    pathlib.Path
        The file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    draft.write_text(render_report(report, made=made), "utf-8")
    return draft.replace(target)


def render_report(report: Report, *, made: datetime | None = None) -> str:
    """Return a report as HTML.

    Parameters
    ----------
    report : Report
        What to say.
    made : datetime.datetime, optional
        Time at the foot of the page. Default: now.

    Returns
    -------
    str
        The page.
    """
    from cubekit import __version__

    time = (made or datetime.now(UTC)).astimezone(UTC)
    return _template().render(report=report, version=__version__, made=f"{time:%Y-%m-%d %H:%M} UTC")


@cache
def _template() -> "Template":
    """Compile the page's template once."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files("cubekit.exports").joinpath(TEMPLATE).read_text("utf-8"))


def _is_number(cell: str) -> bool:
    """Tell whether a cell is read as a number, or is a dash that stands for none."""
    return re.fullmatch(r"[-+±]?[\d,]*\.?\d+ ?%?|-|", cell.strip()) is not None
