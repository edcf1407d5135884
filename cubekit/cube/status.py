"""What became of each pixel while a cube was read, and the report that names what failed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.base import compute

from cubekit.errors import CubeError, check_kind
from cubekit.typing import Array, BoolArray

STATUS: Final = "status"
"""Name of the variable, dims as the main one."""

OUTSIDE: Final = 0
READ: Final = 1
EMPTY: Final = 2
MASKED: Final = 3
MISSING: Final = 4
FAILED: Final = 5
"""Reading failed of the first scene of the time step; one more for the second, and so on."""

NAMES: Final = ("outside", "read", "empty", "masked", "missing", "failed")
"""No scene is there; data; nodata in the file; taken by the mask; the scene lacks the asset; see `FAILED`."""

_LAST: Final = 255
_SHOWN: Final = 10


def failed(order: int) -> int:
    """Return the code for the failure of a scene.

    Parameters
    ----------
    order : int
        Its place within its time step, from 0.

    Returns
    -------
    int
        :data:`FAILED` or above.
    """
    return min(FAILED + order, _LAST)


def note(status: Array, where: BoolArray, code: int) -> None:
    """Note why pixels have no data: the gravest reason of any scene stays, and data wins over all.

    Parameters
    ----------
    status : numpy.ndarray of uint8
        Shape (y, x); changed in place.
    where : numpy.ndarray of bool
        Pixels that a scene covers without giving data.
    code : int
        Why.
    """
    np.maximum(status, np.uint8(code), out=status, where=where & (status != READ))


def attrs(scenes: int) -> dict[str, Any]:
    """Return CF attributes that explain the codes.

    Parameters
    ----------
    scenes : int
        Most scenes that share one time step.

    Returns
    -------
    dict
        ``flag_values`` and ``flag_meanings``.
    """
    extra = range(2, min(scenes, _LAST - FAILED + 1) + 1)
    meanings = [*NAMES, *(f"failed_scene_{number}" for number in extra)]
    return {
        "long_name": "what became of each pixel while it was read",
        "flag_values": np.arange(len(meanings), dtype=np.uint8),
        "flag_meanings": " ".join(meanings),
        "grid_mapping": "spatial_ref",
    }


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One asset whose reading failed."""

    time: np.datetime64
    """Time step."""

    band: str
    """Band of the cube that lacks its data."""

    item: str
    """Identifier of the item; empty where the cube does not tell its items any more."""

    pixels: int
    """How many have no data for it."""

    def __str__(self) -> str:
        return f"{str(self.time)[:10]} {self.band}: item {self.item!r}, {self.pixels:,} pixels"


@dataclass(frozen=True, kw_only=True)
class ReadStatus:
    """How the reading of a cube went; ``print`` says it."""

    pixels: dict[str, int]
    """Number of pixels, bands and dates counted apart, by name of status."""

    failures: tuple[Failure, ...]
    """What failed, by time, band and item."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed and no asset was missing."""
        return not self.failures and not self.pixels["missing"]

    def __str__(self) -> str:
        total = max(sum(self.pixels.values()), 1)
        lines = ["; ".join(f"{name} {count / total:.1%}" for name, count in self.pixels.items() if count)]
        lines += [f"failed: {failure}" for failure in self.failures[:_SHOWN]]
        more = len(self.failures) - _SHOWN
        return "\n".join(lines + ([f"failed: and {more} more"] if more > 0 else []))


def read_status(cube: xr.Dataset) -> ReadStatus:
    """Tell how the reading of a cube went, and name the items that failed.

    Parameters
    ----------
    cube : xarray.Dataset
        From :func:`cubekit.cube.load.open_cube` with ``on_error="record"``, or a store or part of it. Of a
        lazy cube the files are read now; of a store only the small variable ``status`` is.

    Returns
    -------
    ReadStatus
        Counts and failures; item names carry no address and no signature.

    Raises
    ------
    CubeError
        If the cube has no status: it was opened with ``on_error="raise"``, so nothing can have failed.
    """
    check_kind("cube", cube, xr.Dataset, "open one with cubekit.open_cube(…, on_error='record')")
    if STATUS not in cube:
        raise CubeError(
            "This cube has no variable 'status': open it with on_error='record'. With the default, "
            "on_error='raise', a failed read is an error, so what was computed has been read."
        )
    counts: Counter[int] = Counter()
    failures = []
    names = _items_by_time(cube)
    for time, found in _counted(cube[STATUS]):
        for band, row in found:
            counts.update(row)
            scenes = names.get(time, [])
            for code in sorted(code for code in row if code >= FAILED):
                item = scenes[code - FAILED] if code - FAILED < len(scenes) else ""
                failures.append(Failure(time=time, band=band, item=item, pixels=row[code]))
    pixels = {name: counts[code] for code, name in enumerate(NAMES)}
    pixels["failed"] = sum(count for code, count in counts.items() if code >= FAILED)
    return ReadStatus(pixels=pixels, failures=tuple(failures))


def _counted(status: xr.DataArray) -> Iterator[tuple[np.datetime64, list[tuple[str, dict[int, int]]]]]:
    """Count the codes of each date and band, a date at a time in memory for stores."""
    times, bands = status["time"].to_numpy(), [str(band) for band in status["band"].to_numpy()]
    counts = xr.apply_ufunc(
        _histogram,
        status,
        input_core_dims=[["y", "x"]],
        output_core_dims=[["code"]],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"code": _LAST + 1}},
        output_dtypes=[np.int64],
    )
    (table,) = compute(counts.transpose("time", "band", "code").data)  # type: ignore[no-untyped-call]
    for time, rows in zip(times, table, strict=True):
        yield (
            time,
            [
                (b, {int(code): int(row[code]) for code in np.flatnonzero(row)})
                for b, row in zip(bands, rows, strict=True)
            ],
        )


def _histogram(block: Array) -> Array:
    flat = block.reshape(-1, block.shape[-2] * block.shape[-1])
    counts = np.stack([np.bincount(row, minlength=_LAST + 1) for row in flat])
    return counts.reshape(*block.shape[:-2], _LAST + 1)


def _items_by_time(cube: xr.Dataset) -> dict[np.datetime64, list[str]]:
    """Return the items of each time step, in the order in which they lie over each other."""
    found: dict[np.datetime64, list[str]] = {}
    items, times = np.atleast_1d(cube.attrs.get("items", [])), np.atleast_1d(cube.attrs.get("item_times", []))
    for item, time in zip(items, times, strict=False):
        found.setdefault(np.datetime64(str(time), "ns"), []).append(str(item))
    return found
