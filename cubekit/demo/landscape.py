"""A year of Sentinel-2 over the sample landscape, served as a real STAC API."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("cubekit")

PORT = 47631
"""Where the scenes are served, if it is free: a cube remembers the addresses it was made from."""


@contextmanager
def sentinel_2_year(
    folder: Path, *, seed: int = 0, size: int = 500, dates: int = 24
) -> Iterator[Mapping[str, object]]:
    """Make the sample archive, and serve it on this machine.

    Parameters
    ----------
    folder : pathlib.Path
        Where it goes; what lies there finished is not made again.
    seed : int, optional
        Seed of landscape and clouds.
    size : int, optional
        Side of a scene in pixels of 10 m.
    dates : int, optional
        Dates in the year.

    Yields
    ------
    mapping
        ``api``, ``bbox``, ``crs``, ``labels``, ``truth``, ``classes``, ``colours``.
    """
    from cubekit.testing.archive import write_sample_archive
    from cubekit.testing.servers import file_server, stac_server

    log.info("sample archive: two overlapping scenes of Sentinel-2 type, %d dates", dates)
    archive = write_sample_archive(folder, seed=seed, size=size, dates=dates)
    with (
        file_server(archive.folder, port=PORT) as files,
        stac_server(archive.item_collection(files.url)) as api,
    ):
        log.info("STAC API at %s", api)
        yield {
            "api": api,
            "bbox": list(archive.bbox),
            "crs": archive.crs,
            "labels": str(archive.labels),
            "truth": str(archive.truth),
            "classes": dict(zip(archive.codes, archive.classes, strict=True)),
            "colours": dict(zip(archive.classes, archive.colours, strict=True)),
        }
