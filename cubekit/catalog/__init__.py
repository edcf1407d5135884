"""What is known about satellite collections and their providers, read from ``catalogs/*.yaml``; no network.

The schema is described in ``docs/catalog.md`` and in the header of ``catalogs/sentinel-2.yaml``.
"""

from cubekit.catalog.files import SEARCH_PATH_VARIABLE, open_catalog
from cubekit.catalog.names import SENTINEL2, find_bands
from cubekit.catalog.records import Band, Catalog, Collection, Flag, Provider, Quality, bit_test

__all__ = [
    "SEARCH_PATH_VARIABLE",
    "SENTINEL2",
    "Band",
    "Catalog",
    "Collection",
    "Flag",
    "Provider",
    "Quality",
    "bit_test",
    "find_bands",
    "open_catalog",
]
