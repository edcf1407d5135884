"""Tables of samples as people have them: long, wide, or exported from Earth Engine, read as long ones."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet

from cubekit.errors import LabelError, OptionError, SourceError, UnknownNameError, did_you_mean

LONGITUDE, LATITUDE = ("longitude", "lon"), ("latitude", "lat")
"""Names of the columns with positions in degrees."""

POINT = ".geo"
"""Column of GeoJSON points in Earth Engine's exports."""

_DIGITS = 6  # of a degree: 0.1 m, so that one pixel keeps its place through rounding


def read_table(path: Path) -> pd.DataFrame:
    """Read a table, its geometry as columns of longitude and latitude.

    Parameters
    ----------
    path : pathlib.Path
        Parquet or CSV.

    Returns
    -------
    pandas.DataFrame
        All columns but binary geometry; of GeoJSON points, ``longitude`` and ``latitude``.

    Raises
    ------
    SourceError
        If the file is missing or is neither Parquet nor CSV.
    LabelError
        If there are no rows, or a geometry is no point.
    """
    if not path.is_file():
        raise SourceError(f"No table at {str(path)!r}.")
    if path.suffix.lower() == ".csv":
        table = pd.read_csv(path)
    elif path.suffix.lower() in {".parquet", ".geoparquet", ".pq"}:
        schema = pyarrow.parquet.read_schema(path)
        plain = [name for name in schema.names if name != "geometry"]
        table = pyarrow.parquet.read_table(path, columns=plain).to_pandas(ignore_metadata=True)
    else:
        raise SourceError(f"{path.name!r} is neither Parquet nor CSV by its suffix.")
    if table.empty:
        raise LabelError(f"{path.name!r} has no rows.")
    return _with_points(table) if POINT in table else table


def check_columns(table: pd.DataFrame, needed: Sequence[str], *, name: str) -> None:
    """Raise if a column is missing.

    Parameters
    ----------
    table : pandas.DataFrame
        To look into.
    needed : sequence of str
        Column names.
    name : str
        Of the file, for the message.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    """
    for column in needed:
        if column not in table:
            raise UnknownNameError(
                f"{name!r} has no column {column!r}. {did_you_mean(column, table.columns)}"
            )


def unfold(
    table: pd.DataFrame, pattern: str, dates: Sequence[Any], *, date: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Make a long table of a wide one.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each sample.
    pattern : str
        Names of its band columns with ``{band}`` and ``{step}``, such as ``"{band}_{step}"``; steps are whole
        numbers, in whatever width.
    dates : sequence
        Date of each step, first step first.
    date : str
        Name for the column of dates.

    Returns
    -------
    table : pandas.DataFrame
        One row for each sample and step; the columns that do not fit the pattern repeat.
    bands : tuple of str
        Bands in the order of the columns.

    Raises
    ------
    OptionError
        If the pattern lacks a field, no column fits it, or steps and dates differ in number.
    """
    found = _fitting(pattern, [str(name) for name in table])
    bands = tuple(dict.fromkeys(band for band, _ in found.values()))
    steps = sorted({step for _, step in found.values()})
    if len(steps) != len(dates):
        raise OptionError(
            f"The table has {len(steps)} steps ({steps[0]} to {steps[-1]}) and dates= names {len(dates)}: "
            "give the date of each step."
        )
    fixed = table.drop(columns=list(found))
    column = {where: name for name, where in found.items()}
    gaps = [(band, step) for band in bands for step in steps if (band, step) not in column]
    if gaps:
        raise OptionError(
            f"{len(gaps)} columns are missing, such as band {gaps[0][0]!r} of step {gaps[0][1]}."
        )
    parts = []
    for step, when in zip(steps, pd.to_datetime(list(dates), utc=True), strict=True):
        values = {band: table[column[band, step]].to_numpy() for band in bands}
        parts.append(fixed.assign(**values, **{date: when}))
    return pd.concat(parts, ignore_index=True), bands


def first_of(names: Sequence[str], table: pd.DataFrame) -> str | None:
    """Return the first name that is a column.

    Parameters
    ----------
    names : sequence of str
        To look for.
    table : pandas.DataFrame
        To look into.

    Returns
    -------
    str or None
        None if there is none.
    """
    return next((name for name in names if name in table), None)


def by_place(table: pd.DataFrame, *, name: str) -> "pd.Series[Any]":
    """Give the rows of one place one number.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns of positions.
    name : str
        Of the file, for the message.

    Returns
    -------
    pandas.Series
        Number of the place, in order of appearance; places equal to 0.1 m are one.

    Raises
    ------
    UnknownNameError
        If there are no positions.
    """
    place = [first_of(LONGITUDE, table), first_of(LATITUDE, table)]
    if None in place:
        raise UnknownNameError(
            f"{name!r} has no positions to tell series apart: name the column that does with id=."
        )
    rounded = table[place].round(_DIGITS)
    return rounded.groupby(place, sort=False, dropna=False).ngroup()


def _fitting(pattern: str, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return band and step of the columns that fit a pattern."""
    parts = re.split(r"\{(band|step)\}", pattern)
    if sorted(parts[1::2]) != ["band", "step"]:
        raise OptionError(f"columns={pattern!r} must hold {{band}} and {{step}} once each.")
    fields = {"band": "(?P<band>.+?)", "step": r"(?P<step>\d+)"}
    text = "".join(fields[part] if index % 2 else re.escape(part) for index, part in enumerate(parts))
    matches = {name: re.fullmatch(text, name) for name in names}
    found = {name: (match["band"], int(match["step"])) for name, match in matches.items() if match}
    if not found:
        raise OptionError(f"columns={pattern!r} fits none of {len(names)} columns, such as {names[-1]!r}.")
    return found


def _with_points(table: pd.DataFrame) -> pd.DataFrame:
    """Put the coordinates of GeoJSON points into columns."""
    places = np.array([_coordinates(text) for text in table[POINT]])
    return table.drop(columns=POINT).assign(longitude=places[:, 0], latitude=places[:, 1])


def _coordinates(text: object) -> tuple[float, float]:
    try:
        content = json.loads(str(text))
        east, north = content["coordinates"] if isinstance(content, dict) else content
        return float(east), float(north)
    except (ValueError, TypeError, KeyError):
        raise LabelError(
            f"Column {POINT!r} holds {str(text)[:80]!r}, expected a GeoJSON point: export points, or the "
            "middle of each polygon."
        ) from None
