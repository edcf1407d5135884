"""One coding for scenes of all processing versions, decided once for each item."""

import re
from typing import TYPE_CHECKING

from cubekit.errors import CubeError
from cubekit.security import redact

if TYPE_CHECKING:
    import pystac

    from cubekit.cube.reader import Form

SENTINEL2 = "sentinel2-baseline"
"""Rule of Sentinel-2: since processing baseline 04.00 (January 2022) stored = reflectance * 10000 + 1000."""

_OFFSET_SINCE = (4, 0)
_IN_PRODUCT_NAME = re.compile(r"_N(\d\d)(\d\d)_")  # S2A_MSIL2A_20200714T115221_N0214_R123_…
_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_TOLERANCE = 1e-6


def sentinel2_offset(item: "pystac.Item", offset: float | None) -> float:
    """Tell what to add to the scaled pixels of a Sentinel-2 item to get reflectance.

    Parameters
    ----------
    item : pystac.Item
        Of any provider.
    offset : float or None
        What the asset's metadata says, if anything. Used last: at some providers it is -0.1 also for files
        from which the offset has been taken (Element84/earth-search issues 66 and 71).

    Returns
    -------
    float
        -0.1 or 0.0.

    Raises
    ------
    CubeError
        When neither the provider's flag, nor the baseline, nor the asset says.

    Notes
    -----
    In this order: ``earthsearch:boa_offset_applied`` (true: the provider has taken the offset); the baseline
    (``s2:processing_baseline``, ``processing:version``, or the product's name); `offset`. The sensing date is
    no guide: old scenes have been reprocessed. Before baseline 04.00 there was no offset to take.
    """
    flag, baseline = offset_flag(item), baseline_of(item)
    if baseline is not None and baseline < _OFFSET_SINCE:
        return 0.0
    if flag is not None:
        return 0.0 if flag else -0.1
    if baseline is not None:
        return -0.1
    if offset is not None:
        return offset
    raise CubeError(
        f"Item {item.id!r} says neither its processing baseline (s2:processing_baseline) nor an offset: "
        "its pixels cannot be brought to one coding with other scenes. Add the property, or leave it out."
    )


def offset_flag(item: "pystac.Item") -> bool | None:
    """Return whether the provider says to have taken the offset from the pixels.

    Parameters
    ----------
    item : pystac.Item
        Sentinel-2 item.

    Returns
    -------
    bool or None
        None where the item is silent.
    """
    flag = next((item.properties[key] for key in _FLAGS if key in item.properties), None)
    return None if flag is None else bool(flag)


def baseline_of(item: "pystac.Item") -> tuple[int, int] | None:
    """Return the processing baseline of an item.

    Parameters
    ----------
    item : pystac.Item
        Sentinel-2 item.

    Returns
    -------
    tuple of int or None
        Such as (5, 10); None where properties and product name are silent.
    """
    for key in ("s2:processing_baseline", "processing:version", "sentinel2:processing_baseline"):
        parts = str(item.properties.get(key, "")).strip().split(".")
        if len(parts) == 2 and all(part.isdigit() for part in parts):  # noqa: PLR2004
            return int(parts[0]), int(parts[1])
    for name in (item.properties.get("s2:product_uri"), item.properties.get("sentinel:product_id"), item.id):
        if found := _IN_PRODUCT_NAME.search(str(name)):
            return int(found[1]), int(found[2])
    return None


def shift_of(form: "Form", scale: float, offset: float, where: str) -> int:
    """Return what to add to stored numbers so that another coding describes them.

    Parameters
    ----------
    form : Form
        Coding of the file.
    scale, offset : float
        Coding of the cube.
    where : str
        Item and asset, for the message.

    Returns
    -------
    int
        0 where the codings are the same.

    Raises
    ------
    CubeError
        Where no whole number does it.
    """
    if abs(form.scale - scale) > _TOLERANCE * abs(scale):
        raise CubeError(_cannot(form, scale, offset, where))
    shift = (form.offset - offset) / scale
    if abs(shift - round(shift)) > 1e-3:  # noqa: PLR2004  (a thousandth of a stored number)
        raise CubeError(_cannot(form, scale, offset, where))
    return round(shift)


def _cannot(form: "Form", scale: float, offset: float, where: str) -> str:
    return (
        f"{redact(where)}: stored numbers mean stored * {form.scale:g} + {form.offset:g}, but the cube "
        f"uses stored * {scale:g} + {offset:g}, and no whole number turns one into the other. "
        "Open with dtype='float32' for physical values."
    )
