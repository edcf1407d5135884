"""Bands under their several names: ``B2`` of a table is ``B02`` of a cube."""

from collections.abc import Iterable

from cubekit.catalog.files import open_catalog
from cubekit.errors import UnknownNameError

SENTINEL2 = "sentinel-2-l2a"
"""Collection whose names tables of Sentinel-2 use."""


def find_bands(wanted: Iterable[str], present: Iterable[str], *, collection: str) -> dict[str, str]:
    """Find bands among those present, by their own name or by another that the catalog knows them by.

    Parameters
    ----------
    wanted : iterable of str
        Such as the bands of a model.
    present : iterable of str
        Such as the bands of a cube.
    collection : str
        Canonical name or id of the collection whose names count; of one that the catalog does not know, and
        for names that mean no band of it, only equal names are the same.

    Returns
    -------
    dict
        Each wanted name that was found to its name among those present.
    """
    known = list(present)
    record = open_catalog().match(collection)

    def canonical(name: str) -> str:
        if record is None:
            return name
        try:
            return record.band(name).name
        except UnknownNameError:
            return name

    others = {canonical(name): name for name in reversed(known)}  # of two names the first counts
    found = {name: name if name in known else others.get(canonical(name)) for name in wanted}
    return {name: own for name, own in found.items() if own is not None}
