"""Labelled series from tables: one row for each sample and date, or one for each sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cubekit.batching.calendar import SeriesTable, Steps, series_of
from cubekit.batching.position import metric_positions
from cubekit.batching.samples import Samples
from cubekit.batching.tables import LATITUDE, LONGITUDE, by_place, check_columns, first_of, read_table, unfold
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, UnknownNameError
from cubekit.labels import ClassTable
from cubekit.typing import FloatArray, IntArray, StrPath


def read_series(  # noqa: PLR0913  (tables differ in many ways; all keyword-only)
    path: StrPath,
    *,
    label: str = "label",
    date: str = "date",
    bands: Sequence[str] | None = None,
    id: str | None = "sample_id",  # noqa: A002  (what such tables call it)
    group: str | None = None,
    near: float = 0.0,
    encoding: Encoding | None = None,
    steps: Steps = "equal",
    months: tuple[Any, Any] | None = None,
    missing: Sequence[float] = (),
    columns: str | None = None,
    dates: Sequence[Any] | None = None,
) -> Samples:
    """Read labelled series from a table.

    Step `i` of one series is put beside step `i` of every other. Series may come from different years, as
    reference data do: then ``times`` are the dates of the first sample, ``span`` holds the first and the last
    date of each, and a step may fall on another day of the year by at most half the usual gap between dates.

    Parameters
    ----------
    path : path
        Parquet or CSV; one row for each sample and date, or, with `columns`, one for each sample. Columns
        ``longitude`` and ``latitude`` (or ``lon`` and ``lat``, degrees), or the GeoJSON points in ``.geo`` of
        exports from Earth Engine, give positions, if they are there.
    label : str, optional
        Column of the class: text or whole numbers.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Columns of the bands, in the order wanted. Default: every column of floats that has no other role.
    id : str or None, optional
        Column that tells series apart. None: the rows of one place, to 0.1 m, are one series.
    group : str, optional
        Column of what must stay together when splitting, such as the field. Default: the place, so that two
        years of one pixel are one group; without positions, the series.
    near : float, optional
        Without `group`: places within so many metres of each other, and of those in turn, are one group.
        15 joins the pixels of 10 m that were taken around one field plot.
    encoding : Encoding, optional
        How the numbers are coded, such as ``Encoding(dtype="uint16", nodata=65535, scale=1e-4)``. Default:
        physical values, NaN where there is no data.
    steps : {"equal", "common", "months"}, optional
        Whether all series must have the same number of dates, are cut to the dates that all have, or are put
        on calendar months: of several rows of a month the earliest with data counts, a month without one has
        no data, and no row is ever given to another month or series.
    months : tuple, optional
        First and last month, such as ``("2022-01", "2022-12")``, with ``steps="months"``; rows outside do not
        count. Default: the months of the table, from the first to the last.
    missing : sequence of float, optional
        Numbers that mean "no data", such as -999, besides empty cells. They become the encoding's nodata.
    columns : str, optional
        For wide tables: names of the band columns with ``{band}`` and ``{step}``, such as ``"{band}_{step}"``
        for ``B02_01``. `date` is then made from `dates`.
    dates : sequence, optional
        For wide tables: the date of each step.

    Returns
    -------
    Samples
        In the order in which series first appear; classes sorted; positions in metres.

    Raises
    ------
    SourceError
        If the file is missing or is neither Parquet nor CSV.
    UnknownNameError
        If a column is missing.
    LabelError
        If a series has no class, or several; or series differ in their dates.
    OptionError
        If a number does not fit the encoding, or the columns or dates of a wide table do not fit it.

    Examples
    --------
    >>> samples = read_series("cbers_samples.parquet", bands=["ndvi"])  # doctest: +SKIP
    """
    found = load_series(
        path,
        date=date,
        bands=bands,
        id=id,
        other=(label, *([group] if group else [])),
        constant=(label,),
        encoding=encoding,
        steps=steps,
        months=months,
        missing=missing,
        columns=columns,
        dates=dates,
    )
    return labelled(found, label=label, group=group, near=near)


def load_series(  # noqa: PLR0913  (as read_series)
    path: StrPath,
    *,
    date: str = "date",
    bands: Sequence[str] | None = None,
    id: str | None = "sample_id",  # noqa: A002
    other: Sequence[str] = (),
    constant: Sequence[str] = (),
    encoding: Encoding | None = None,
    steps: Steps = "equal",
    months: tuple[Any, Any] | None = None,
    missing: Sequence[float] = (),
    columns: str | None = None,
    dates: Sequence[Any] | None = None,
) -> SeriesTable:
    """Read series from a table, labelled or not.

    Parameters
    ----------
    path : path
        Parquet or CSV, as for :func:`read_series`; so are the other parameters that it has too.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Columns of the bands.
    id : str or None, optional
        Column that tells series apart.
    other : sequence of str, optional
        Further columns that must be there, and are no bands.
    constant : sequence of str, optional
        Columns that must not change within a series.
    encoding : Encoding, optional
        How the numbers are coded.
    steps : {"equal", "common", "months"}, optional
        How series are put beside each other.
    months : tuple, optional
        First and last month.
    missing : sequence of float, optional
        Numbers that mean "no data".
    columns : str, optional
        For wide tables: names of the band columns.
    dates : sequence, optional
        For wide tables: the date of each step.

    Returns
    -------
    SeriesTable
        In the order in which series first appear.

    Raises
    ------
    SourceError, UnknownNameError, LabelError, OptionError
        As :func:`read_series`.
    """
    name = Path(path).name
    table, wide = _long_table(Path(path), columns, dates, date=date)
    check_columns(table, [*other, date, *([id] if id else []), *(bands or [])], name=name)
    place = (first_of(LONGITUDE, table), first_of(LATITUDE, table))
    chosen = tuple(bands) if bands else wide or _band_columns(table, used={id, date, *other, *place})
    if encoding is not None and encoding.nodata is not None:
        missing = (*missing, encoding.nodata)
    if missing:
        table[list(chosen)] = table[list(chosen)].mask(table[list(chosen)].isin(list(missing)))
    if id is None:
        id = "place"  # noqa: A001  (the argument, filled in)
        table[id] = by_place(table, name=name)
    return series_of(
        table,
        id=id,
        date=date,
        bands=chosen,
        constant=constant,
        steps=steps,
        months=months,
        encoding=encoding,
    )


def labelled(table: SeriesTable, *, label: str, group: str | None = None, near: float = 0.0) -> Samples:
    """Make samples of series that have a class.

    Parameters
    ----------
    table : SeriesTable
        Whose class does not change within a series.
    label : str
        Column of the class: text or whole numbers.
    group : str, optional
        Column of what must stay together.
    near : float, optional
        Metres within which places are one group, where no column says it.

    Returns
    -------
    Samples
        Classes sorted; positions in metres.

    Raises
    ------
    OptionError
        If `near` is below 0, or given beside `group`, or there are no positions.
    """
    y, classes = _classes(table.about[label])
    position, crs = _positions(table.about)
    return Samples(
        x=table.x,
        y=y,
        bands=table.bands,
        times=table.times,
        classes=classes,
        group=_groups(table.about, group, position, near),
        position=position,
        crs=crs,
        resolution=None,
        encoding=table.encoding,
        span=table.span,
    )


def _long_table(
    path: Path, columns: str | None, dates: Sequence[Any] | None, *, date: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a table as one row for each sample and date, and the bands of a wide one."""
    table = read_table(path)
    if columns is None:
        if dates is not None:
            raise OptionError("dates= goes with the wide tables that columns= describes.")
        return table, ()
    if dates is None:
        raise OptionError(f"columns={columns!r} counts steps: give the date of each with dates=.")
    return unfold(table, columns, dates, date=date)


def _band_columns(table: pd.DataFrame, used: set[str | None]) -> tuple[str, ...]:
    """Return the float columns without another role."""
    chosen = tuple(
        str(name) for name in table.columns if name not in used and pd.api.types.is_float_dtype(table[name])
    )
    if not chosen:
        raise UnknownNameError(
            f"The table has no columns of floats: name the bands with bands=. {list(table)}"
        )
    return chosen


def _classes(cells: "pd.Series[Any]") -> tuple[IntArray, ClassTable]:
    """Return the class index of each series and the classes, sorted."""
    codes, found = pd.factorize(cells, sort=True)
    numbers = [int(value) for value in found] if pd.api.types.is_integer_dtype(cells.dtype) else None
    return codes.astype("int16"), ClassTable.of([str(value) for value in found], codes=numbers)


def _positions(about: pd.DataFrame) -> tuple[FloatArray, str | None]:
    """Return positions in metres and their CRS, or NaN and None."""
    east, north = first_of(LONGITUDE, about), first_of(LATITUDE, about)
    if east is None or north is None:
        return np.full((len(about), 2), np.nan), None
    return metric_positions(about[east].to_numpy("float64"), about[north].to_numpy("float64"), "EPSG:4326")


def _groups(about: pd.DataFrame, group: str | None, position: FloatArray, near: float) -> IntArray:
    """Give what belongs together one number."""
    unknown = bool(np.isnan(position).any())
    if not near >= 0 or (near and (group is not None or unknown)):
        raise OptionError(
            f"near={near!r} should be metres, 0 or more, for a table with positions and without group=."
        )
    if group is not None:
        return pd.factorize(about[group])[0].astype("int64")
    if unknown:
        return np.arange(len(about))
    places, which = np.unique(position, axis=0, return_inverse=True)
    if near:
        return _clusters(places, near)[which.reshape(-1)]
    return which.reshape(-1).astype("int64")


def _clusters(places: FloatArray, near: float) -> IntArray:
    """Give one number to places within a distance of each other, and of those in turn."""
    pairs = cKDTree(places).query_pairs(near, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(len(places), len(places)))
    return np.asarray(connected_components(links, directed=False)[1], dtype="int64")
