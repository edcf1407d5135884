"""A split as a thing of its own: how it was made, which part each sample is in, and the file that says so."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow.parquet
import xarray as xr

from cubekit.batching.assign import PARTS
from cubekit.batching.patches import PatchPlan
from cubekit.batching.places import Places
from cubekit.batching.position import crs_name
from cubekit.batching.samples import Samples
from cubekit.batching.units import splittable
from cubekit.cube.contract import geobox_of
from cubekit.errors import SplitError
from cubekit.labels import ClassTable
from cubekit.labels.classes import UNLABELLED
from cubekit.typing import FloatArray, IntArray, StrPath

_FORMAT = "cubekit split 1"
_KEY = b"cubekit"  # of the file's metadata
_CLOSE = 0.01  # metres by which a position may differ: rounding in projections, never another pixel
_COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#bbbbbb")  # training, validation, test, dropped
_NAMES = (*PARTS, "dropped")

Parts = tuple[Samples, Samples, Samples]
PlanParts = tuple[PatchPlan, PatchPlan, PatchPlan]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Which part each sample or patch is in. Made by :func:`cubekit.plan_split`."""

    part: IntArray
    """(n,) int8: 0 training, 1 validation, 2 test, -1 dropped because it lies too near to another part."""

    places: Places
    """Where, when and of which class each is."""

    options: Mapping[str, Any]
    """How it was made, as JSON: ``by``, ``fractions``, ``seed``, ``buffer``, ``block``, ``origin`` of the
    blocks (x, y) and more."""

    def __len__(self) -> int:
        return len(self.part)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{int((self.part == (index if index < len(PARTS) else -1)).sum())} {name}"
            for index, name in enumerate(_NAMES)
        )
        return f"Split of {len(self)} {self.places.what} by {self.options['by']}: {sizes}"

    @overload
    def apply(self, samples: PatchPlan, labels: xr.Dataset | None = None) -> PlanParts: ...

    @overload
    def apply(self, samples: Samples | xr.Dataset, labels: xr.Dataset | None = None) -> Parts: ...

    def apply(
        self, samples: Samples | PatchPlan | xr.Dataset, labels: xr.Dataset | None = None
    ) -> Parts | PlanParts:
        """Part samples or patches as was decided.

        Parameters
        ----------
        samples : Samples, PatchPlan or xarray.Dataset
            Those that the split was made of, perhaps read anew on another machine.
        labels : xarray.Dataset, optional
            As for :func:`cubekit.split`.

        Returns
        -------
        train, valid, test : Samples or PatchPlan
            In the order of the input.

        Raises
        ------
        SplitError
            If they are not the samples that the split was made of, naming the first difference.
        """
        data, places = splittable(samples, labels)
        self._check_fit(places)
        parts: Parts | PlanParts = self.taken(data)
        return parts

    def taken(self, data: Samples | PatchPlan) -> Any:
        """Return the parts of data that is known to fit.

        Parameters
        ----------
        data : Samples or PatchPlan
            One entry for each of the split.

        Returns
        -------
        tuple
            Training, validation, test.
        """
        return tuple(data.take(np.flatnonzero(self.part == index)) for index in range(len(PARTS)))

    def _check_fit(self, places: Places) -> None:
        """Raise unless data is what the split was made of."""
        own = self.places
        if (own.what, len(own)) != (places.what, len(places)):
            raise SplitError(
                f"The split is of {len(own)} {own.what}, these are {len(places)} {places.what}: {_ANEW}"
            )
        if own.names != places.names:
            raise SplitError(f"The split knows classes {own.names}, these are {places.names}: {_ANEW}")
        off = ~np.isclose(own.position, places.position, rtol=0, atol=_CLOSE, equal_nan=True).all(axis=1)
        wrong = {
            "position": off if own.crs == places.crs else np.ones(len(own), bool),
            "group": own.group != places.group,
            "dates": (own.target.astype("int64") != places.target.astype("int64")).any(axis=1),
            "class": _main(own.weights) != _main(places.weights),
        }
        for what, differ in wrong.items():
            if differ.any():
                raise SplitError(
                    f"{int(differ.sum())} of {len(own)} {own.what} have another {what} than when the split "
                    f"was made, first number {int(differ.argmax())}: {_ANEW}"
                )

    def digest(self) -> str:
        """Return a fingerprint of the parts and of how they were made.

        Returns
        -------
        str
            SHA-256 in hexadecimal.
        """
        state = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for values in (self.part.astype("int8"), self.places.group.astype("<i8"), _main(self.places.weights)):
            state.update(np.ascontiguousarray(values).tobytes())
        return state.hexdigest()

    def _header(self) -> dict[str, Any]:
        """Return what is no table."""
        places = self.places
        return {
            "format": _FORMAT,
            "options": dict(self.options),
            "what": places.what,
            "crs": places.crs,
            "footprint": places.footprint,
            "resolution": places.resolution,
            "names": list(places.names),
        }

    def save(self, path: StrPath) -> Path:
        """Write a GeoParquet file: one point for each sample, with its part, group, class and dates.

        Parameters
        ----------
        path : path
            Such as ``"split.parquet"``; replaced in one step. QGIS opens it.

        Returns
        -------
        pathlib.Path
            The file.
        """
        import geopandas as gpd

        target, places = Path(path), self.places
        table = pd.DataFrame(
            {
                "part": np.array(_NAMES, object)[self.part % len(_NAMES)],
                "group": places.group.astype("int64"),
                "class": np.array(places.names, object)[_main(places.weights)],
                "x": places.position[:, 0],
                "y": places.position[:, 1],
            }
            | _columns_of_dates(places)
        )
        points = gpd.points_from_xy(table["x"], table["y"])
        buffer = io.BytesIO()
        gpd.GeoDataFrame(table, geometry=points, crs=places.crs).to_parquet(buffer, index=False)
        buffer.seek(0)
        arrow = pyarrow.parquet.read_table(buffer)
        header = json.dumps(self._header() | {"digest": self.digest()}).encode()
        arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, _KEY: header})
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            pyarrow.parquet.write_table(arrow, beside, compression="zstd")
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        return target

    def layer(self, cube: xr.Dataset) -> xr.DataArray:
        """Draw the parts on a grid.

        Parameters
        ----------
        cube : xarray.Dataset
            Whose grid is drawn on.

        Returns
        -------
        xarray.DataArray
            ``split`` (y, x) int8: 0 training, 1 validation, 2 test, 3 dropped, -1 where there is no sample;
            with names and colours, so that it can be written into a store, exported and shown like labels.

        Raises
        ------
        SplitError
            If no position is known.
        """
        places, grid = self.places, geobox_of(cube)
        if places.crs is None:
            raise SplitError("The samples of this split have no positions: there is nothing to draw.")
        values = np.full(grid.shape, UNLABELLED, "int8")
        pixels = _pixels(places, grid)
        for part in (-1, 0, 1, 2):  # what counts lies on top, where patches overlap
            for top, bottom, left, right in pixels[self.part == part]:
                values[top:bottom, left:right] = part % len(_NAMES)
        table = ClassTable.of(list(_NAMES), colours=list(_COLOURS))
        coords = {name: cube.coords[name] for name in ("y", "x", "spatial_ref") if name in cube.coords}
        attrs = {**table.attrs(), "long_name": "part of the split"}
        return xr.DataArray(values, dims=("y", "x"), coords=coords, name="split", attrs=attrs)


def load_split(path: StrPath) -> Split:
    """Read what :meth:`Split.save` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Split
        The same split: ``load_split(path).apply(samples)`` gives the same parts on every machine.

    Raises
    ------
    SplitError
        If the file is missing, holds no split, or was changed.
    """
    source = Path(path)
    if not source.is_file():
        raise SplitError(f"There is no split at {str(source)!r}: write one with plan_split(…).save(path).")
    try:
        arrow = pyarrow.parquet.read_table(source)
        header = json.loads((arrow.schema.metadata or {})[_KEY])
    except (OSError, ValueError, KeyError) as error:
        raise SplitError(f"{str(source)!r} holds no split of cubekit: {type(error).__name__}.") from error
    if header.get("format") != _FORMAT:
        raise SplitError(f"{str(source)!r} is of format {header.get('format')!r}, expected {_FORMAT!r}.")
    table = {name: arrow[name].to_numpy() for name in arrow.column_names if name != "geometry"}
    names = tuple(header["names"])
    dates = {
        name: np.stack([table[f"{name}_first"], table[f"{name}_last"]], axis=1).astype("datetime64[ns]")
        for name in ("span", "target")
    }
    code = {name: index for index, name in enumerate(names)}
    found = Split(
        part=np.array([_CODES[each] for each in table["part"]], "int8"),
        places=Places(
            what=header["what"],
            position=np.stack([table["x"], table["y"]], axis=1),
            crs=header["crs"],
            footprint=header["footprint"],
            resolution=header["resolution"],
            group=table["group"],
            weights=np.eye(len(names))[[code[each] for each in table["class"]]],
            names=names,
            **dates,
        ),
        options=header["options"],
    )
    if found.digest() != header["digest"]:
        raise SplitError(f"{str(source)!r} was changed since it was written: split anew, or copy it again.")
    return found


_ANEW = "split anew with the options of this split, or apply it to the data that it was made of."
_CODES = {name: index if index < len(PARTS) else -1 for index, name in enumerate(_NAMES)}


def _main(weights: FloatArray) -> IntArray:
    """Return the class that each sample has most of, as int64."""
    main: IntArray = weights.argmax(axis=1).astype("<i8")
    return main


def _columns_of_dates(places: Places) -> dict[str, Any]:
    """Return dates as columns of a table."""
    return {
        f"{name}_{end}": getattr(places, name)[:, number]
        for name in ("span", "target")
        for number, end in enumerate(("first", "last"))
    }


def _pixels(places: Places, grid: Any) -> IntArray:
    """Return (n, 4) rows and columns of a grid that samples or patches take."""
    from pyproj import Transformer

    back = Transformer.from_crs(places.crs, crs_name(grid), always_xy=True)
    x, y = back.transform(*places.position.T)
    to = ~grid.transform
    column, row = to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f
    half = places.footprint / 2 / places.resolution if places.footprint and places.resolution else 0.5
    low = np.nan_to_num(np.stack([row, column], axis=1) - half, nan=-1e9)
    first = np.round(low).astype("int64")
    last = (first + max(1, round(2 * half))).clip(0)
    first = first.clip(0)
    return np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], axis=1)
