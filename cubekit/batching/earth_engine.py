"""Tables of Sentinel-2 pixel-months as people export them from Earth Engine, read as they were meant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cubekit.batching.calendar import SeriesTable, series_of
from cubekit.batching.samples import Samples
from cubekit.batching.series import labelled
from cubekit.batching.tables import by_place, check_columns, read_table
from cubekit.cube.indices import index_columns
from cubekit.errors import OptionError, UnknownNameError
from cubekit.typing import StrPath

FEATURES = (
    "AOT", "B1", "B11", "B12", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9",
    "EVI", "NDVI", "NDWI", "TCI_B", "TCI_G", "TCI_R", "WVP",
)  # fmt: skip
"""Columns of an export, in the order that models see them; a table may lack some."""

INDICES = ("EVI", "NDVI", "NDWI")
"""Those that are computed anew: from stored integers, the constant 1 in EVI would count for nothing."""

MISSING = -999
"""What masked pixels are exported as."""

DATE, CLASS, QUALITY = "image_date", "Class", "QA60"
"""Columns of the date, of the species, and of the cloud flags."""

CLOUDS = 1 << 10 | 1 << 11
"""Flags of QA60: opaque clouds, and cirrus."""

NEAR = 15.0
"""Metres: joins the 2 x 2 pixels of 10 m around a field plot into one group."""

_SCALED = {"AOT": 1e-3, "WVP": 1e-3, "TCI_B": 1 / 255, "TCI_G": 1 / 255, "TCI_R": 1 / 255}


def read_pixel_months(
    path: StrPath,
    *,
    label: str = CLASS,
    date: str = DATE,
    bands: Sequence[str] | None = None,
    months: tuple[Any, Any] | None = None,
    scale: float = 1e-4,
    group: str | None = None,
    near: float = NEAR,
) -> Samples:
    """Read labelled pixel-months of Sentinel-2, exported from Earth Engine, as monthly series.

    One row is one pixel in one month. Rows of one place, to 0.1 m, are one series; of several rows of a month
    the earliest with data counts; a month without one has no data, and no other pixel's. Masked values are
    -999 or empty, and so are rows whose ``QA60``, where there is such a column, tells of clouds or cirrus.

    Parameters
    ----------
    path : path
        CSV or Parquet with ``.geo`` (GeoJSON points), or ``longitude`` and ``latitude`` in degrees.
    label : str, optional
        Column of the class.
    date : str, optional
        Column of the date, such as 2022-03-05.
    bands : sequence of str, optional
        Of :data:`FEATURES`. Default: those that the table has. The indices among them are computed from
        reflectance, whether the table has them or not.
    months : tuple, optional
        First and last month, such as ``("2022-01", "2022-12")``. Default: those of the table.
    scale : float, optional
        Factor that makes reflectance 0-1 of the bands; 1 where the export did that.
    group : str, optional
        Column of what must stay together when splitting, such as the plot.
    near : float, optional
        Without `group`: places within so many metres of each other, and of those in turn, are one group.

    Returns
    -------
    Samples
        ``(n, month, band)`` physical values, float32, NaN where there is no data; classes in alphabetical
        order.

    Raises
    ------
    SourceError
        If the file is missing or is neither Parquet nor CSV.
    UnknownNameError
        If a column is missing.
    LabelError
        If a place has several classes, or a row none.
    OptionError
        If `months` is no span of months.

    Examples
    --------
    >>> samples = read_pixel_months("plots.csv")  # doctest: +SKIP
    >>> train, valid, test = split(samples, by="groups")  # doctest: +SKIP
    """
    found = load_pixel_months(
        path, date=date, bands=bands, months=months, scale=scale, other=(label, *([group] if group else []))
    )
    return labelled(found, label=label, group=group, near=0.0 if group else near)


def load_pixel_months(
    path: StrPath,
    *,
    date: str = DATE,
    bands: Sequence[str] | None = None,
    months: tuple[Any, Any] | None = None,
    scale: float = 1e-4,
    other: Sequence[str] = (),
) -> SeriesTable:
    """Read pixel-months, labelled or not.

    Parameters
    ----------
    path : path
        CSV or Parquet.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Features wanted.
    months : tuple, optional
        First and last month.
    scale : float, optional
        Factor that makes reflectance of the bands.
    other : sequence of str, optional
        Further columns that must be there; the first must not change within a series.

    Returns
    -------
    SeriesTable
        Physical values, float32.

    Raises
    ------
    SourceError, UnknownNameError, LabelError, OptionError
        As :func:`read_pixel_months`.
    """
    return months_of(
        read_table(Path(path)),
        name=Path(path).name,
        date=date,
        bands=bands,
        months=months,
        scale=scale,
        other=other,
    )


def months_of(
    table: pd.DataFrame,
    *,
    name: str,
    date: str = DATE,
    bands: Sequence[str] | None = None,
    months: tuple[Any, Any] | None = None,
    scale: float = 1e-4,
    other: Sequence[str] = (),
) -> SeriesTable:
    """Make monthly series of a table that was read already.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`cubekit.batching.tables.read_table`.
    name : str
        Of its file, for messages.
    date : str, optional
        Column of the date.
    bands : sequence of str, optional
        Features wanted.
    months : tuple, optional
        First and last month.
    scale : float, optional
        Factor that makes reflectance of the bands.
    other : sequence of str, optional
        Further columns that must be there; the first must not change within a series.

    Returns
    -------
    SeriesTable
        Physical values, float32.

    Raises
    ------
    UnknownNameError, LabelError, OptionError
        As :func:`load_pixel_months`.
    """
    chosen = tuple(bands) if bands else tuple(feature for feature in FEATURES if feature in table)
    unknown = [band for band in chosen if band not in FEATURES]
    if unknown or not chosen:
        raise UnknownNameError(
            f"{name!r}: {unknown or 'none of its columns'} is no feature of such tables, which are "
            f"{', '.join(FEATURES)}. Other tables: cubekit.read_series."
        )
    own = [band for band in chosen if band not in INDICES]
    indices = [band for band in chosen if band in INDICES]
    check_columns(table, [*own, *_sources(indices), date, *other], name=name)
    if not scale > 0:
        raise OptionError(f"scale={scale!r} should be above 0: 0.0001 for integers, 1 for reflectance.")
    columns = list(dict.fromkeys((*own, *_sources(indices))))
    values = _physical(table, columns, scale)
    if indices:
        found = index_columns(values.to_numpy(), columns, indices, collection="sentinel-2")
        values = values.assign(**dict(zip(indices, found.T, strict=True)))
    kept = table.drop(columns=[column for column in values if column in table])
    kept = pd.concat([kept, values], axis=1).assign(place=by_place(table, name=name))
    return series_of(
        kept, id="place", date=date, bands=chosen, constant=other[:1], steps="months", months=months
    )


def _sources(indices: Sequence[str]) -> tuple[str, ...]:
    """Return the bands that indices are made of."""
    needed = {"EVI": ("B2", "B4", "B8"), "NDVI": ("B4", "B8"), "NDWI": ("B3", "B8")}
    return tuple(dict.fromkeys(band for index in indices for band in needed[index]))


def _physical(table: pd.DataFrame, columns: list[str], scale: float) -> pd.DataFrame:
    """Return columns as physical values, NaN where masked or cloudy."""
    values = table[columns].to_numpy("float64")
    hidden = np.isnan(values) | (values == MISSING)
    if QUALITY in table:
        flags = table[QUALITY].fillna(0).clip(lower=0).astype("int64").to_numpy()
        hidden |= (flags & CLOUDS != 0)[:, None]
    factors = [_SCALED.get(column, scale) for column in columns]
    return pd.DataFrame(
        np.where(hidden, np.nan, values * factors).astype("float32"), columns=columns, index=table.index
    )
