"""The pattern language of archive file names: text, ``*``, ``**/`` and fields in braces."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from cubekit.errors import OptionError

_FIELD: Final = re.compile(r"\{(?P<name>\w+)(?::(?P<format>[^{}]+))?\}|(?P<deep>\*\*/)|(?P<star>\*)")

_DIGITS: Final = {
    "%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{2}", "%d": r"\d{2}", "%j": r"\d{3}",
    "%H": r"\d{2}", "%M": r"\d{2}", "%S": r"\d{2}", "%f": r"\d{1,6}", "%b": r"[A-Za-z]{3}", "%%": "%",
    "%-m": r"\d{1,2}", "%-d": r"\d{1,2}",
}  # fmt: skip

DATE_FIELDS: Final = ("date", "end", "produced")
"""Fields that hold a date; ``end`` is the last day of a period that starts at ``date``, ``produced`` when the
file was made."""


@dataclass(frozen=True)
class FileFields:
    """What a file's name says."""

    band: str | None
    date: datetime | None
    end: datetime | None
    others: Mapping[str, str]
    produced: datetime | None = None
    year_alone: bool = False
    """Whether the date is a year without month and day."""


@dataclass(frozen=True)
class FilePattern:
    """A pattern for paths relative to an archive's folder, with ``/`` between folders.

    Attributes
    ----------
    text : str
        ``{band}`` is the band's name, ``{date:%Y%m%d}`` the date in `datetime.strptime` codes (``%-m`` and
        ``%-d`` where months and days come without their zero), ``{end:…}`` the last day of a period,
        ``{produced:…}`` when the file was made (of files that differ in nothing else the newest counts); any
        other ``{name}`` is kept as a property and tells scenes of one date
        apart. ``*`` is any text inside one name, ``**/`` any number of folders. A field that comes twice
        must read the same twice.
    """

    text: str

    def __post_init__(self) -> None:
        if set(_FIELD.sub("", self.text)) & {"{", "}"}:
            raise OptionError(
                f"Pattern {self.text!r} has a brace without its partner, or a field that is no name; "
                "write fields as {band} or {date:%Y%m%d}."
            )
        _ = self.regex  # complains about date codes before any file is looked at

    @cached_property
    def formats(self) -> dict[str, str]:
        """Date format of each date field."""
        return {
            field["name"]: field["format"] or "%Y-%m-%d"
            for field in _FIELD.finditer(self.text)
            if field["name"] in DATE_FIELDS
        }

    @property
    def fields(self) -> frozenset[str]:
        """Names of all fields."""
        return frozenset(field["name"] for field in _FIELD.finditer(self.text) if field["name"])

    @property
    def depth(self) -> int | None:
        """Number of folders above the file; None where ``**/`` allows any."""
        return None if "**/" in self.text else self.text.count("/")

    @property
    def base(self) -> str:
        """Folders that the pattern spells out before its first field or star, such as ``"ndvi/2019/"``."""
        first = _FIELD.search(self.text)
        return self.text[: self.text.rfind("/", 0, first.start() if first else None) + 1]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression for whole relative paths."""
        parts, end, seen = [], 0, set[str]()
        for field in _FIELD.finditer(self.text):
            parts.append(re.escape(self.text[end : field.start()]))
            end = field.end()
            name = field["name"]
            if not name:
                parts.append("(?:[^/]+/)*" if field["deep"] else "[^/]*?")
            elif name in seen:
                parts.append(f"(?P={name})")
            else:
                seen.add(name)
                parts.append(f"(?P<{name}>{self._field(name, field['format'])})")
        parts.append(re.escape(self.text[end:]))
        return re.compile("".join(parts))

    def _field(self, name: str, form: str | None) -> str:
        if name not in DATE_FIELDS:
            if form:
                raise OptionError(
                    f"Pattern {self.text!r}: only {DATE_FIELDS} take a format, found {{{name}:{form}}}."
                )
            return "[^/]+?"
        expression, rest = "", form or "%Y-%m-%d"
        while rest:
            code = rest[: 3 if rest.startswith("%-") else 2]
            if code.startswith("%") and code not in _DIGITS:
                known = " ".join(_DIGITS)
                raise OptionError(
                    f"Pattern {self.text!r}: date code {code!r} is not supported; known are {known}."
                )
            expression += _DIGITS.get(code) or re.escape(rest[0])
            rest = rest[len(code) :] if code in _DIGITS else rest[1:]
        return expression

    def match(self, path: str) -> FileFields | None:
        """Read the fields of a path.

        Parameters
        ----------
        path : str
            Relative to the archive's folder, with ``/`` between folders.

        Returns
        -------
        FileFields or None
            None where the path does not match. Dates are UTC.

        Raises
        ------
        ValueError
            If the digits are no date, such as month 13.
        """
        found = self.regex.fullmatch(path)
        if found is None:
            return None
        values = found.groupdict()
        dates = {name: _date(values.pop(name), form) for name, form in self.formats.items()}
        band = values.pop("band", None)
        form = self.formats.get("date", "%d").replace("%-", "%")
        year = not any(code in form for code in ("%m", "%d", "%j", "%b"))
        return FileFields(band, dates.get("date"), dates.get("end"), values, dates.get("produced"), year)


def _date(digits: str, form: str) -> datetime:
    """Read a date in UTC."""
    try:
        return datetime.strptime(digits, form.replace("%-", "%")).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{digits!r} is no date of the form {form}") from None
