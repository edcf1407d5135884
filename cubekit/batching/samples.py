"""Labelled series in memory: the small table that training reads, extracted once from a cube or a file."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import zarr

from cubekit.batching.decode import day_of_year, decode, valid_values
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError, StoreError
from cubekit.labels import ClassTable
from cubekit.typing import Array, BoolArray, FloatArray, IntArray, StrPath

_FORMAT = "cubekit samples 1"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Samples:
    """Labelled pixel series, as stored numbers.

    Everything has one entry for each sample, in the same order. Nothing is lazy.
    """

    x: Array
    """(n, time, band), stored numbers: see `encoding`."""

    y: Array
    """(n,) int16 class index, or (n, class) float32 shares of each class."""

    bands: tuple[str, ...]
    """Band names, in the order of `x`."""

    times: npt.NDArray[np.datetime64]
    """(time,) datetime64[ns] UTC. Where samples are from different years: the dates of the first sample; see
    `span`."""

    classes: ClassTable
    """Names, colours and codes by class index; may hold classes that no sample has."""

    group: IntArray
    """(n,) int64: samples of one number belong together (a polygon, a point) and must not be split."""

    position: FloatArray
    """(n, 2) float64 x and y in metres in `crs`; NaN where unknown."""

    crs: str | None
    """CRS of the positions; None where they are unknown."""

    resolution: float | None
    """Pixel size in metres; None where samples are no pixels of a grid."""

    encoding: Encoding
    """How stored numbers become physical ones."""

    span: npt.NDArray[np.datetime64] | None = None
    """(n, 2) datetime64[ns] first and last date of each series; None where `times` holds for all of them."""
    ancillary: FloatArray | None = None
    """(n, variable) float32, physical: what is known of a place beside the series, such as its altitude."""

    variables: tuple[str, ...] = ()
    """Names of the ancillary variables."""

    def __post_init__(self) -> None:
        n, shape = len(self.y), (len(self.y), len(self.times), len(self.bands))
        wanted = {"x": shape, "group": (n,), "position": (n, 2)}
        if self.y.ndim != 1:
            wanted["y"] = (n, len(self.classes))
        if self.span is not None:
            wanted["span"] = (n, 2)
        if self.ancillary is not None or self.variables:
            wanted["ancillary"] = (n, len(self.variables))
        for name, expected in wanted.items():
            found = np.shape(getattr(self, name))
            if found != expected:
                raise OptionError(f"Samples.{name} has shape {found}, expected {expected}.")
        if self.y.ndim == 1 and n and not (self.y.min() >= 0 and self.y.max() < len(self.classes)):
            raise OptionError(
                f"Samples.y holds {self.y.min()} to {self.y.max()}; class indices go from 0 to "
                f"{len(self.classes) - 1}."
            )

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        n, steps, bands = self.x.shape
        shown = ", ".join(f"{name} {count:.6g}" for name, count in self.counts().items())
        spans = self.spans()
        span = f", {_day(spans.min())} to {_day(spans.max())}" if steps and n else ""
        return (
            f"Samples: {n} series of {steps} steps x {bands} bands ({', '.join(self.bands)}){span}; "
            f"{self.nbytes / 1e6:.1f} MB {self.x.dtype}\n  classes: {shown}"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the series."""
        return int(self.x.nbytes)

    def counts(self) -> dict[str, float]:
        """Return how many samples each class has.

        Returns
        -------
        dict
            Count, or sum of shares, by class name; classes without samples included.
        """
        if self.y.ndim == 1:
            found = np.bincount(self.y.astype(np.intp), minlength=len(self.classes))
            return dict(zip(self.classes.names, found.tolist(), strict=True))
        return dict(zip(self.classes.names, self.y.sum(axis=0, dtype="float64").tolist(), strict=True))

    def take(self, index: IntArray | BoolArray | list[int]) -> "Samples":
        """Return some of the samples.

        Parameters
        ----------
        index : numpy.ndarray or list of int
            Positions, in any order, or a mask.

        Returns
        -------
        Samples
            A copy of those.
        """
        chosen = np.asarray(index)
        chosen = chosen if chosen.dtype == bool else chosen.astype(np.intp)
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            group=self.group[chosen],
            position=self.position[chosen],
            span=None if self.span is None else self.span[chosen],
            ancillary=None if self.ancillary is None else self.ancillary[chosen],
        )

    @classmethod
    def join(cls, several: Sequence["Samples"]) -> "Samples":
        """Put samples one after the other, such as those of several years of one place.

        Parameters
        ----------
        several : sequence of Samples
            Of the same bands, classes, coding, CRS and number of steps. Equal group numbers mean the same
            group, as they do where one set of labels was used for all years.

        Returns
        -------
        Samples
            In the order given; each keeps its own first and last date in ``span``.

        Raises
        ------
        OptionError
            Naming what differs.

        Examples
        --------
        >>> years = [extract(cube.sel(time=year), labels) for year in ("2020", "2021")]  # doctest: +SKIP
        >>> train, valid, test = split(Samples.join(years), by="time")  # doctest: +SKIP
        """
        if not several:
            raise OptionError("There are no samples to join.")
        first = several[0]
        for number, each in enumerate(several[1:], 1):
            for what in ("bands", "classes", "encoding", "crs", "resolution", "variables"):
                ours, theirs = (getattr(one, what) for one in (first, each))
                if repr(ours) != repr(theirs):  # NaN differs from itself
                    raise OptionError(f"Samples {number} have {what} {theirs}, the first have {ours}.")
            if len(each.times) != len(first.times):
                raise OptionError(
                    f"Samples {number} have {len(each.times)} steps, the first have {len(first.times)}."
                )
        names = ("x", "y", "group", "position", *(("ancillary",) if first.variables else ()))
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(each, name) for each in several]) for name in names
        }
        return replace(first, **joined, span=np.concatenate([each.spans() for each in several]))

    def spans(self) -> npt.NDArray[np.datetime64]:
        """Return the first and the last date of each series.

        Returns
        -------
        numpy.ndarray
            (n, 2) datetime64[ns]; NaT where series have no steps.
        """
        if self.span is not None:
            return self.span
        ends = self.times[[0, -1]] if len(self.times) else np.full(2, np.datetime64("NaT"))
        return np.broadcast_to(ends.astype("datetime64[ns]"), (len(self), 2))

    def physical(self) -> npt.NDArray[np.float32]:
        """Decode the series.

        Returns
        -------
        numpy.ndarray
            (n, time, band) float32, NaN where there is no data.
        """
        return decode(self.x, self.encoding)

    def valid(self) -> BoolArray:
        """Tell which values are data.

        Returns
        -------
        numpy.ndarray
            (n, time, band) bool.
        """
        return valid_values(self.x, self.encoding)

    def doy(self) -> IntArray:
        """Return the days of the year.

        Returns
        -------
        numpy.ndarray
            (time,) int16, 1 to 366.
        """
        return day_of_year(self.times)

    def digest(self) -> str:
        """Return a fingerprint of everything that training reads.

        Returns
        -------
        str
            SHA-256 in hexadecimal; equal on every machine for equal samples.
        """
        state = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for name, values in self._arrays().items():
            little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
            state.update(f"{name} {little.dtype.str} {little.shape}".encode())
            state.update(little.tobytes())
        return state.hexdigest()

    def save(self, path: StrPath, *, overwrite: bool = False) -> None:
        """Write a Zarr group.

        Parameters
        ----------
        path : path
            Folder to make, such as ``"samples.zarr"``. It appears when it is complete.
        overwrite : bool, optional
            Replace what is there.

        Raises
        ------
        StoreError
            If there is something at `path` already.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise StoreError(f"{str(target)!r} exists; pass overwrite=True to replace it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            group = zarr.open_group(part, mode="w", zarr_format=3, attributes=self._header())
            for name, values in self._arrays().items():
                group.create_array(name, data=values)
            if target.exists():
                shutil.rmtree(target)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @classmethod
    def load(cls, path: StrPath) -> "Samples":
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path
            Folder of the Zarr group.

        Returns
        -------
        Samples
            The same samples.

        Raises
        ------
        StoreError
            If there are no samples at `path`.
        """
        try:
            group = zarr.open_group(Path(path), mode="r")
        except FileNotFoundError as error:
            raise StoreError(f"No samples at {str(path)!r}: there is no Zarr group.") from error
        header: dict[str, Any] = dict(group.attrs)
        if header.get("format") != _FORMAT:
            raise StoreError(
                f"{str(path)!r} holds no samples: format is {header.get('format')!r}, not {_FORMAT!r}."
            )
        arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
        coding = header["encoding"] | {"nodata": _number(header["encoding"]["nodata"])}
        return cls(
            x=arrays["x"],
            y=arrays["y"],
            bands=tuple(header["bands"]),
            times=arrays["times"].astype("datetime64[ns]"),
            classes=ClassTable.from_attrs(header),
            group=arrays["group"],
            position=arrays["position"],
            crs=header["crs"],
            resolution=header["resolution"],
            encoding=Encoding(**coding),
            span=arrays["span"].astype("datetime64[ns]") if "span" in arrays else None,
            ancillary=arrays.get("ancillary"),
            variables=tuple(header.get("variables", ())),
        )

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays to write; times as nanoseconds since 1970."""
        times = self.times.astype("datetime64[ns]").astype("int64")
        arrays = {"x": self.x, "y": self.y, "times": times, "group": self.group, "position": self.position}
        if self.span is not None:
            arrays["span"] = self.span.astype("datetime64[ns]").astype("int64")
        return arrays if self.ancillary is None else arrays | {"ancillary": self.ancillary}

    def _header(self) -> dict[str, Any]:
        """Return the rest as JSON."""
        coding = asdict(self.encoding)
        nodata = _number(coding["nodata"])
        coding["nodata"] = "NaN" if nodata is not None and np.isnan(nodata) else nodata  # JSON has no NaN
        return {
            "format": _FORMAT,
            "bands": list(self.bands),
            **self.classes.attrs(),
            "crs": self.crs,
            "resolution": self.resolution,
            "encoding": coding,
            **({"variables": list(self.variables)} if self.variables else {}),
        }


def _day(time: np.datetime64) -> str:
    """Write a date without the time of day."""
    return str(time.astype("datetime64[D]"))


def _number(value: Any) -> float | None:
    """Read a nodata value as float; "NaN" is how JSON writes NaN."""
    return None if value is None else float(value)
