"""What to search for, checked before anything is asked."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime as datetime_
from typing import Any, Final, TypeAlias

import pandas as pd
import shapely

from cubekit.errors import OptionError
from cubekit.typing import BBox, SomeGeometry

DatetimeLike: TypeAlias = str | datetime_ | Sequence[str | datetime_ | None]
"""``"2023"``, ``"2023-05/2023-09"``, ``"2023-05-01T10:00:00Z/.."``, a datetime, or a pair."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A checked search."""

    boxes: tuple[BBox | None, ...] = (None,)
    """One box, two where it crosses 180 degrees, or None for everywhere."""

    geometry: dict[str, Any] | None = None
    datetime: str | None = None
    """Interval as the API wants it."""

    properties: Mapping[str, Any] | None = None
    """Conditions of the API's query extension."""

    shown: str = ""
    """The search as the caller gave it, for messages."""


def check_query(
    *,
    bbox: Sequence[float] | None = None,
    intersects: "SomeGeometry | None" = None,
    datetime: DatetimeLike | None = None,
    properties: Mapping[str, Any] | None = None,
) -> Query:
    """Check a search.

    Parameters
    ----------
    bbox : sequence of float, optional
        West, south, east, north in degrees (WGS 84); west > east crosses 180 degrees.
    intersects : shapely geometry or GeoJSON mapping, optional
        Area in WGS 84, instead of a box.
    datetime : str, datetime or pair, optional
        A period.
    properties : mapping, optional
        Conditions such as ``{"eo:cloud_cover": {"lt": 20}}``.

    Returns
    -------
    Query
        Ready to send.

    Raises
    ------
    OptionError
        Naming the argument, the value, and what is accepted.
    """
    if bbox is not None and intersects is not None:
        raise OptionError("Give either bbox or intersects, not both.")
    given = {"bbox": bbox, "intersects": intersects, "datetime": datetime, "query": properties}
    return Query(
        boxes=(None,) if bbox is None else check_bbox(bbox),
        geometry=None if intersects is None else _geometry(intersects),
        datetime=None if datetime is None else _interval(datetime),
        properties=properties,
        shown=", ".join(f"{name}={_short(value)}" for name, value in given.items() if value is not None),
    )


def check_bbox(bbox: Sequence[float]) -> tuple[BBox, ...]:
    """Check a box in WGS 84, and cut it where it crosses 180 degrees.

    Parameters
    ----------
    bbox : sequence of float
        West, south, east, north.

    Returns
    -------
    tuple of tuple
        One box, or two.

    Raises
    ------
    OptionError
        With a hint where latitudes and longitudes look swapped.
    """
    values = tuple(float(value) for value in bbox)
    if len(values) != 4 or not all(map(math.isfinite, values)):  # noqa: PLR2004
        raise OptionError(f"bbox={tuple(bbox)} must be four numbers: west, south, east, north in degrees.")
    west, south, east, north = values
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 180:  # noqa: PLR2004
        swapped = max(abs(west), abs(east)) <= 90 and max(abs(south), abs(north)) <= 180  # noqa: PLR2004
        hint = f" Are latitude and longitude swapped? Try {(south, west, north, east)}." if swapped else ""
        raise OptionError(f"bbox={values} leaves the globe; order is west, south, east, north.{hint}")
    if south >= north or west == east:
        raise OptionError(f"bbox={values} has no area; the order is west, south, east, north.")
    if west < east:
        return ((west, south, east, north),)
    if west - east < 180:  # noqa: PLR2004
        raise OptionError(
            f"bbox={values}: west is greater than east, which would go almost around the globe. "
            f"Try {(east, south, west, north)}."
        )
    return ((west, south, 180.0, north), (-180.0, south, east, north))


def _interval(datetime: DatetimeLike) -> str:
    parts = datetime.split("/") if isinstance(datetime, str) else datetime
    parts = [parts] if isinstance(parts, datetime_) else list(parts)
    try:
        if len(parts) not in (1, 2) or all(part in _OPEN for part in parts):
            raise ValueError("one date or two are needed")  # noqa: TRY301
        start, end = _bounds(parts[0])[0], _bounds(parts[-1])[1]
    except (ValueError, TypeError) as error:
        raise OptionError(
            f"datetime={datetime!r} is not a period ({error}); write '2023', '2023-05/2023-09', "
            "'2023-05-01/2023-05-16', or '2023-05-01/..'."
        ) from None
    if start is not None and end is not None and start > end:
        raise OptionError(f"datetime={datetime!r} ends before it starts.")
    return f"{_text(start)}/{_text(end)}"


_OPEN: Final = (None, "", "..")
_DATE: Final = re.compile(r"\d{4}(-\d{2}){0,2}")


def _bounds(part: str | datetime_ | None) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """Return first and last moment of a year, month, day or instant, in UTC; None for an open end."""
    if part in _OPEN:
        return None, None
    if isinstance(part, str) and _DATE.fullmatch(part):
        period = pd.Period(part)
        return period.start_time.tz_localize("UTC"), period.end_time.floor("us").tz_localize("UTC")
    time = pd.Timestamp(part)
    time = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
    return time, time


def _text(time: pd.Timestamp | None) -> str:
    if time is None:
        return ".."
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if time.microsecond else "%Y-%m-%dT%H:%M:%SZ")


def _geometry(intersects: "SomeGeometry") -> dict[str, Any]:
    try:
        given = intersects.get("geometry", intersects) if isinstance(intersects, Mapping) else intersects
        shape = shapely.geometry.shape(dict(given)) if isinstance(given, Mapping) else given
        west, south, east, north = shape.bounds
    except (AttributeError, ValueError, TypeError, KeyError, shapely.errors.ShapelyError) as error:
        raise OptionError(
            f"intersects is not a geometry ({error}); give shapely or GeoJSON in WGS 84."
        ) from None
    if shape.is_empty:
        raise OptionError("intersects is an empty geometry.")
    if west < -180 or south < -90 or east > 180 or north > 90:  # noqa: PLR2004
        raise OptionError(f"intersects has bounds {shape.bounds}, not degrees: reproject it to EPSG:4326.")
    return dict(shapely.geometry.mapping(shape))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"  # noqa: PLR2004
