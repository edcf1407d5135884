"""A trained model over a table of pixel-months: one row of class and probabilities a pixel."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cubekit.batching.calendar import SeriesTable
from cubekit.batching.decode import decode
from cubekit.batching.earth_engine import DATE, FEATURES, months_of
from cubekit.batching.tables import LATITUDE, LONGITUDE, check_columns, first_of, read_table
from cubekit.catalog import SENTINEL2, find_bands
from cubekit.errors import ModelMismatchError, OptionError, StoreError
from cubekit.prediction.places import SHARE
from cubekit.training.match import date_differences
from cubekit.typing import FloatArray, StrPath

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

FAR = 10.0
"""Widths of the range that a model learned, by which the middle of a band may lie outside it."""


def predict_table(
    model: "Model",
    table: StrPath | SeriesTable,
    *,
    out: StrPath | None = None,
    date: str = DATE,
    scale: float = 1e-4,
    probabilities: bool = False,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Predict the class of every series of a table.

    Parameters
    ----------
    model : Model
        A classifier of pixel series.
    table : path or SeriesTable
        Pixel-months as exported from Earth Engine, labelled or not: see
        :func:`cubekit.batching.earth_engine.read_pixel_months`; put on the model's months, in the year that
        the table is of. Other tables: what :func:`cubekit.batching.series.load_series` returns.
    out : path, optional
        CSV to write.
    date : str, optional
        Column of the date, where a path is given.
    scale : float, optional
        Factor that makes reflectance of the bands, where a path is given.
    probabilities : bool, optional
        Whether to give the probability of every class too, in columns ``p_<class>``, as
        :func:`cubekit.prediction.places.map_of_places` wants them.
    overwrite : bool, optional
        Whether to replace what lies at `out`.

    Returns
    -------
    pandas.DataFrame
        One row a series, in the order of the table: ``lat``, ``lon`` (degrees, where known; else ``id``),
        ``predicted_class`` (missing where a band was never observed), ``probability``.

    Raises
    ------
    OptionError
        If the model is no classifier of series, or `out` is no CSV.
    ModelMismatchError
        If steps or dates are not the model's, or numbers lie far from what it learned.
    UnknownNameError
        If a column is missing.
    StoreError
        If there is something at `out` already.

    Examples
    --------
    >>> predict_table(load_model("runs/species"), "unlabelled.csv", out="predicted.csv")  # doctest: +SKIP
    """
    card = model.card
    if card.task != "classify" or card.form != "series":
        raise OptionError(f"The model ({card.network}, {card.form}) does not classify pixel series.")
    if out is not None:
        check_csv(Path(out), overwrite=overwrite)
    series = table if isinstance(table, SeriesTable) else _months(model, Path(table), date, scale)
    x = _fitting(model, series)
    likely = model.probabilities(x)
    frame = _frame(model, likely, series, probabilities=probabilities)
    if out is not None:
        write_csv(frame, Path(out))
    return frame


def _months(model: "Model", path: Path, date: str, scale: float) -> SeriesTable:
    """Read pixel-months onto the months that a model learned, in the year that most rows are of."""
    bands = model.card.bands
    columns = find_bands(bands, FEATURES, collection=SENTINEL2)
    if len(columns) < len(bands):
        raise OptionError(
            f"The model takes {', '.join(bands)}, which are no columns of an export from Earth Engine: read "
            f"{path.name!r} with cubekit.batching.series.load_series, and pass what it returns."
        )
    table = read_table(path)
    check_columns(table, [date], name=path.name)
    found = pd.to_datetime(table[date], utc=True).to_numpy("datetime64[ns]").astype("datetime64[M]")
    learned = model.card.dates().astype("datetime64[M]")
    years = sorted(range(-100, 101), key=abs)
    shifts = [np.timedelta64(12 * year, "M") for year in years]
    within = [int(((found >= learned[0] + by) & (found <= learned[-1] + by)).sum()) for by in shifts]
    shift = shifts[int(np.argmax(within))]  # the first of the best, and so the nearest year
    span = (str(learned[0] + shift), str(learned[-1] + shift))
    return months_of(table, name=path.name, date=date, bands=list(columns.values()), months=span, scale=scale)


def _fitting(model: "Model", series: SeriesTable) -> FloatArray:
    """Return physical values in the model's order, once dates and numbers are like those it learned."""
    card = model.card
    own = find_bands(card.bands, series.bands, collection=SENTINEL2)
    missing = [band for band in card.bands if band not in own]
    if missing:
        raise ModelMismatchError(f"The table has {', '.join(series.bands)}; the model needs {missing} too.")
    if wrong := date_differences(card, series.times):
        raise ModelMismatchError(f"The table does not fit the model: {wrong[0].replace('the cube', 'it')}.")
    order = [series.bands.index(own[band]) for band in card.bands]
    x = decode(series.x[:, :, order], series.encoding)
    scaling = card.normalisation
    for index, (band, low, width) in enumerate(zip(card.bands, scaling.shift, scaling.width, strict=True)):
        values = x[:, :, index]
        middle = float(np.median(values[~np.isnan(values)])) if not np.isnan(values).all() else low
        if abs(middle - low) > FAR * width:
            raise ModelMismatchError(
                f"Band {band!r} is about {middle:.4g} in the table; the model learned values of about "
                f"{low:.4g} to {low + width:.4g}: state what makes them alike, such as scale=0.0001."
            )
    return x


def _places(series: SeriesTable) -> FloatArray | None:
    """Return longitude and latitude (n, 2), where they are known."""
    names = [first_of(LONGITUDE, series.about), first_of(LATITUDE, series.about)]
    return None if None in names else series.about[names].to_numpy("float64")


def _frame(model: "Model", likely: FloatArray, series: SeriesTable, *, probabilities: bool) -> pd.DataFrame:
    """Put classes beside places."""
    names = model.card.classes.names
    known = ~np.isnan(likely).any(axis=1)
    filled = np.nan_to_num(likely)
    best = np.where(known, filled.argmax(axis=1), len(names))  # the entry after the last is None
    places = _places(series)
    found: dict[str, Any] = (
        {"id": series.names} if places is None else {"lat": places[:, 1], "lon": places[:, 0]}
    )
    found["predicted_class"] = np.array([*names, None], dtype=object)[best]
    found["probability"] = np.where(known, filled.max(axis=1), np.nan)
    if probabilities:
        found |= {f"{SHARE}{name}": likely[:, index] for index, name in enumerate(names)}
    return pd.DataFrame(found)


def without_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns of class probabilities.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`predict_table`.

    Returns
    -------
    pandas.DataFrame
        Where, which class, and how likely.
    """
    return frame[[name for name in frame if not str(name).startswith(SHARE)]]


def check_csv(target: Path, *, overwrite: bool) -> None:
    """Raise for a file that cannot be written, before anything is predicted.

    Parameters
    ----------
    target : pathlib.Path
        CSV to write.
    overwrite : bool
        Whether it may exist.

    Raises
    ------
    OptionError
        If it does not end in .csv.
    StoreError
        If it exists.
    """
    if target.suffix.lower() != ".csv":
        raise OptionError(f"out={str(target)!r} should end in .csv.")
    if target.exists() and not overwrite:
        raise StoreError(f"{str(target)!r} exists; pass overwrite=True to replace it.")


def write_csv(frame: pd.DataFrame, target: Path) -> None:
    """Write a table that is whole or not there; probabilities to four digits.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`predict_table`.
    target : pathlib.Path
        Replaced where it exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shares = [name for name in frame if name == "probability" or str(name).startswith(SHARE)]
    frame.round(dict.fromkeys(shares, 4)).to_csv(part, index=False)
    os.replace(part, target)  # noqa: PTH105  (the atomic one)
