"""Published series of land-cover fractions (a JSON file a pixel, CSV tables) as one dataset of pixels."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubekit.batching.levels import Level, read_level
from cubekit.batching.normalise import Normalisation
from cubekit.batching.position import metric_positions
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import LabelError, OptionError, SourceError, UnknownNameError, did_you_mean
from cubekit.labels import ClassTable
from cubekit.progress import progress as progress_bar
from cubekit.typing import Array, FloatArray, StrPath

ID = "square_id"
"""Column, and metadata key, that names a pixel."""

FAR = 4.0
"""Ancillary values farther from the published mean than this many standard deviations are told of."""

PAIR = ("precipitation", "evapotranspiration")
"""Ancillary variables that files were seen to exchange."""

_SUM = 1e-3  # shares of a row may miss 1 by this much: files hold a few decimals
_SHOWN = 5


def read_abundance(
    folder: StrPath,
    *,
    labels: StrPath | None = None,
    ancillary: StrPath | None = None,
    level: str = "N1",
    variables: Sequence[str] | None = None,
    year: int = 2013,
    expected: Normalisation | None = None,
) -> xr.Dataset:
    """Read published pixels: their series, what is known of their places, and their fractions.

    Both forms of the files are read: that for inference (series and ancillary values in one file) and that
    for training (``forward`` and ``backward`` records, ancillary values in a table). Backward records are
    copies and are not used: reversed series and gaps are made from the forward one. Gaps of the files
    (``deltas``) are computed anew as well.

    Parameters
    ----------
    folder : path
        Folder of JSON files named by the pixel, such as ``0000236.json``.
    labels : path, optional
        CSV with ``square_id`` and a column of fractions for each class, named by its code. It also says which
        pixels are read. Default: all files, without fractions.
    ancillary : path, optional
        CSV with ``square_id`` and the variables. Default: what the JSON files hold.
    level : {"N1", "N2"}, optional
        Which classes the columns of the labels are.
    variables : sequence of str, optional
        Ancillary variables, by name. Default: all of the published ones that every pixel has.
    year : int, optional
        Year of the first month.
    expected : Normalisation, optional
        Usual mean and spread of the ancillary variables, which values are held against. Default: as
        published.

    Returns
    -------
    xarray.Dataset
        In memory: ``reflectance (pixel, time, band)`` float32, 0 to 1, NaN where not observed; ``ancillary
        (pixel, variable)`` float32 in the units of the files; with labels ``abundance (pixel, class)``
        float32, 1 together, with the class table in its attributes. ``pixel`` holds the numbers of the
        pixels, sorted; ``longitude`` and ``latitude (pixel)`` degrees, NaN where unknown. ``to_zarr`` writes
        it.

    Raises
    ------
    SourceError
        If a file is missing, is no JSON, or has not the form.
    LabelError
        If shares of a row do not sum to one, or a pixel comes twice.
    UnknownNameError
        If a class or variable has no column.
    """
    known = read_level(level)
    root = Path(folder)
    table = None if labels is None else read_label_table(labels, known.classes)
    paths = _paths(root, None if table is None else [int(number) for number in table.index])
    records = []
    with progress_bar("pixels", len(paths), unit="files") as advance:
        for path in paths:
            records.append(_read_record(path, bands=len(known.bands)))
            advance()
    months = {len(record["values"]) for record in records}
    if len(months) > 1:
        raise SourceError(f"The files of {root} hold series of {sorted(months)} months; all must be as long.")
    extra = _ancillary(records, ancillary, variables, known)
    dataset = _dataset(records, extra, known, year=year)
    if table is not None:
        shares = table.loc[dataset["pixel"].to_numpy()].to_numpy("float32")
        attrs = {**known.classes.attrs(), "units": "1"}
        dataset["abundance"] = (("pixel", "class"), shares, attrs)
        dataset = dataset.assign_coords({"class": list(known.classes.names)})
    names = tuple(str(name) for name in dataset["variable"].to_numpy())
    if names:
        check_ancillary(extra, known.scaling(names) if expected is None else expected)
    return dataset


def read_label_table(path: StrPath, classes: ClassTable) -> pd.DataFrame:
    """Read fractions of pixels; columns are chosen by the codes of the classes, whatever else there is.

    Parameters
    ----------
    path : path
        CSV with ``square_id`` and a column for each class code.
    classes : ClassTable
        Classes, in the order wanted.

    Returns
    -------
    pandas.DataFrame
        Index ``square_id``, a column for each class name.

    Raises
    ------
    SourceError
        If it cannot be read.
    UnknownNameError
        If a column is missing.
    LabelError
        If a pixel comes twice, or shares do not sum to one.
    """
    table = _read_table(path)
    columns = [str(code) for code in classes.codes]
    for column in columns:
        if column not in table:
            raise UnknownNameError(f"{path} has no column {column!r}. {did_you_mean(column, table.columns)}")
    shares = table[columns].astype("float64")
    wrong = shares.index[~(np.abs(shares.sum(axis=1) - 1) <= _SUM) | (shares < 0).any(axis=1)]
    if len(wrong):
        raise LabelError(
            f"{path}: the shares of {len(wrong)} pixels are negative or do not sum to one, such as "
            f"{_some(wrong)}: are these all classes of the level?"
        )
    return shares.set_axis(list(classes.names), axis=1)


def check_ancillary(table: pd.DataFrame, expected: Normalisation) -> list[str]:
    """Warn of ancillary values that cannot be right.

    Parameters
    ----------
    table : pandas.DataFrame
        A row a pixel, a column a variable.
    expected : Normalisation
        Usual mean and standard deviation, by variable.

    Returns
    -------
    list of str
        What was warned of: values more than four standard deviations away, and precipitation and
        evapotranspiration that look exchanged.
    """
    names = [name for name in expected.bands if name in table]
    order = [expected.bands.index(name) for name in names]
    mean, std = np.array(expected.mean)[order], np.array(expected.std)[order]
    score = pd.DataFrame((table[names].to_numpy("float64") - mean) / std, index=table.index, columns=names)
    told = [
        f"{name} of {int(far.sum())} pixels lies more than {FAR:g} standard deviations from what is usual: "
        f"{_some(score.index[far])}"
        for name, far in ((name, score[name].abs() > FAR) for name in names)
        if far.any()
    ]
    if set(PAIR) <= set(names):
        told += _exchanged(table, score, dict(zip(names, zip(mean, std, strict=True), strict=True)))
    for line in told:
        warnings.warn(f"Ancillary values: {line}.", UserWarning, stacklevel=3)
    return told


def _exchanged(table: pd.DataFrame, score: pd.DataFrame, usual: dict[str, tuple[float, float]]) -> list[str]:
    """Name the pixels of which two variables would be far more usual if they were exchanged."""
    first, second = PAIR
    swapped = sum(
        ((table[other] - usual[name][0]) / usual[name][1]).abs()
        for name, other in ((first, second), (second, first))
    )
    as_is = score[first].abs() + score[second].abs()
    odd = (as_is > FAR) & (swapped < as_is / 2)
    if not odd.any():
        return []
    return [f"{first} and {second} look exchanged in {int(odd.sum())} pixels: {_some(table.index[odd])}"]


def abundance_samples(dataset: xr.Dataset) -> Samples:
    """Turn a dataset of pixels into samples.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`read_abundance`, with ``abundance``.

    Returns
    -------
    Samples
        One for each pixel; positions in metres where they are known.

    Raises
    ------
    LabelError
        If there are no fractions.
    """
    if "abundance" not in dataset:
        raise LabelError("The pixels have no fractions: read them with labels=.")
    place = dataset["longitude"].to_numpy(), dataset["latitude"].to_numpy()
    known = np.isfinite(place[0]).any()
    position, crs = metric_positions(*place, "EPSG:4326") if known else (np.stack(place, axis=1), None)
    variables = tuple(str(name) for name in dataset["variable"].to_numpy())
    return Samples(
        x=dataset["reflectance"].to_numpy(),
        y=dataset["abundance"].to_numpy(),
        bands=tuple(str(name) for name in dataset["band"].to_numpy()),
        times=dataset["time"].to_numpy().astype("datetime64[ns]"),
        classes=ClassTable.from_attrs(dataset["abundance"].attrs),
        group=np.arange(dataset.sizes["pixel"], dtype="int64"),
        position=position,
        crs=crs,
        resolution=None,
        encoding=Encoding(dtype="float32", nodata=np.nan),
        ancillary=dataset["ancillary"].to_numpy() if variables else None,
        variables=variables,
    )


def _paths(root: Path, wanted: Sequence[int] | None) -> list[Path]:
    """Return the files of the pixels, in the order of their numbers."""
    if not root.is_dir():
        raise SourceError(f"There is no folder {root}.")
    if wanted is None:
        found = sorted(root.glob("*.json"))
        if not found:
            raise SourceError(
                f"{root} holds no JSON files; expected one for each pixel, such as 0000236.json."
            )
        return found
    paths = [root / f"{number:07d}.json" for number in sorted(wanted)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise SourceError(
            f"{root} lacks {len(missing)} of {len(paths)} pixels of the labels: {_some(missing)}."
        )
    return paths


def _read_record(path: Path, *, bands: int) -> dict[str, Any]:
    """Read one pixel."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        series = content["ts_data"].get("forward", content["ts_data"])
        values, mask = (np.array(series[name], "float64") for name in ("values", "masks"))
        about = content.get("metadata", {})
        number = int(about.get(ID, path.stem))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} is no pixel with ts_data (values, masks): {type(error).__name__}: {error}."
        ) from error
    if values.ndim != 2 or values.shape[1] != bands or mask.shape != values.shape:  # noqa: PLR2004  (t, c)
        raise SourceError(
            f"{path}: values have shape {values.shape}, masks {mask.shape}; expected (months, {bands}) both."
        )
    # a copy, whatever stood under the mask: hidden values must not be able to reach a network
    return {
        "number": number,
        "values": np.where(mask > 0, values, np.nan),
        "ancillary": content.get("ancillary_data") or {},
        "place": _place(about.get(".geo")),
    }


def _place(geo: Any) -> tuple[float, float]:
    """Return longitude and latitude of a GeoJSON point, which tables of Earth Engine hold as text."""
    point = json.loads(geo) if isinstance(geo, str) else geo
    if not isinstance(point, dict) or point.get("type") != "Point":
        return np.nan, np.nan
    longitude, latitude = (float(number) for number in point["coordinates"][:2])
    return longitude, latitude


def _ancillary(
    records: Sequence[dict[str, Any]], path: StrPath | None, names: Sequence[str] | None, level: Level
) -> pd.DataFrame:
    """Return the ancillary variables by name, never by their order in a file."""
    numbers = pd.Index([record["number"] for record in records], name=ID)
    if path is None:
        table = pd.DataFrame([record["ancillary"] for record in records], index=numbers)
    else:
        table = _read_table(path)
        absent = numbers.difference(table.index)
        if len(absent):
            raise SourceError(f"{path} has no row for {len(absent)} pixels: {_some(absent)}.")
        table = table.loc[numbers]
    if names is None:
        chosen = [name for name in level.ancillary.bands if name in table and bool(table[name].notna().all())]
    else:
        chosen = list(names)
        for name in chosen:
            if name not in table:
                raise UnknownNameError(f"No ancillary variable {name!r}. {did_you_mean(name, table.columns)}")
    return table[chosen].astype("float64")


def _dataset(
    records: Sequence[dict[str, Any]], extra: pd.DataFrame, level: Level, *, year: int
) -> xr.Dataset:
    """Put the pixels side by side, sorted by number."""
    numbers = np.array([record["number"] for record in records])
    if len(np.unique(numbers)) < len(numbers):
        raise LabelError("Several files hold the same pixel: give each square_id one file.")
    order = np.argsort(numbers)
    values: FloatArray = np.stack([record["values"] for record in records])[order] * level.scale
    place: FloatArray = np.array([record["place"] for record in records])[order]
    if {"longitude", "latitude"} <= set(extra):
        told = extra[["longitude", "latitude"]].to_numpy("float64")[order]
        place = np.where(np.isnan(place), told, place)
    first = np.datetime64(f"{year:04d}-01", "M")
    times: Array = np.arange(first, first + np.timedelta64(values.shape[1], "M")).astype("datetime64[ns]")
    return xr.Dataset(
        {
            "reflectance": (("pixel", "time", "band"), values.astype("float32"), {"units": "1"}),
            "ancillary": (("pixel", "variable"), extra.to_numpy("float32")[order]),
        },
        coords={
            "pixel": numbers[order],
            "time": times,
            "band": list(level.bands),
            "variable": np.array(list(extra.columns), dtype=object),
            "longitude": ("pixel", place[:, 0], {"units": "degrees_east"}),
            "latitude": ("pixel", place[:, 1], {"units": "degrees_north"}),
        },
    )


def _read_table(path: StrPath) -> pd.DataFrame:
    """Read a CSV with one row a pixel."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"Cannot read the table {path}: {error}.") from error
    if ID not in table:
        raise UnknownNameError(f"{path} has no column {ID!r}. {did_you_mean(ID, table.columns)}")
    repeated = table[ID][table[ID].duplicated()]
    if len(repeated):
        raise LabelError(f"{path} has several rows for {len(repeated)} pixels: {_some(repeated)}.")
    return table.set_index(ID)


def _some(values: Any) -> str:
    """List the first few."""
    shown = [str(value) for value in list(values)[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(values) > _SHOWN else "")


def as_inputs(dataset: xr.Dataset, variables: Sequence[str], bands: Sequence[str]) -> dict[str, FloatArray]:
    """Return what a model takes of a dataset of pixels, bands and variables chosen by name.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`read_abundance`.
    variables : sequence of str
        Ancillary variables of the model.
    bands : sequence of str
        Bands of the model.

    Returns
    -------
    dict
        ``x`` and, where there are variables, ``ancillary``.

    Raises
    ------
    OptionError
        If a band or variable is missing.
    """
    for dim, names in (("band", bands), ("variable", variables)):
        known = [str(name) for name in dataset[dim].to_numpy()]
        for name in names:
            if name not in known:
                raise OptionError(f"The pixels have no {dim} {name!r}. {did_you_mean(name, known)}")
    inputs = {"x": dataset["reflectance"].sel(band=list(bands)).to_numpy()}
    if variables:
        inputs["ancillary"] = dataset["ancillary"].sel(variable=list(variables)).to_numpy()
    return inputs
