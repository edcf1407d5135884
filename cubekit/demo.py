"""The demo: a sample archive, served as a real STAC API, turned into a map by a real pipeline."""

import logging
from pathlib import Path
from time import monotonic

from cubekit.pipeline.runner import RunResult, run

log = logging.getLogger("cubekit")

PIPELINE = "sample_land_cover"

PORT = 47631
"""Where the scenes are served, if it is free: a cube remembers the addresses it was made from."""


def run_demo(out: Path, *, seed: int = 0, size: int = 500, dates: int = 24, epochs: int = 20) -> RunResult:
    """Make the sample archive, serve it on this machine, and run the pipeline on it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for archive and results. What lies there finished is not made again.
    seed : int, optional
        Seed of the landscape, the clouds and the training.
    size : int, optional
        Side of a scene in pixels of 10 m.
    dates : int, optional
        Dates in the year.
    epochs : int, optional
        Epochs of training.

    Returns
    -------
    RunResult
        Of the pipeline, with the scores.

    Raises
    ------
    MissingDependencyError
        If the extras ``torch`` and ``demo`` are not installed.
    """
    from cubekit.testing.archive import write_sample_archive
    from cubekit.testing.servers import file_server, stac_server

    start = monotonic()
    log.info("sample archive: two overlapping scenes of Sentinel-2 type, %d dates", dates)
    archive = write_sample_archive(out / "archive", seed=seed, size=size, dates=dates)
    with (
        file_server(archive.folder, port=PORT) as files,
        stac_server(archive.item_collection(files.url)) as api,
    ):
        log.info("STAC API at %s", api)
        result = run(
            PIPELINE,
            out=out,
            overwrite=True,
            settings={
                "api": api,
                "bbox": list(archive.bbox),
                "crs": archive.crs,
                "labels": str(archive.labels),
                "truth": str(archive.truth),
                "classes": dict(zip(archive.codes, archive.classes, strict=True)),
                "colours": dict(zip(archive.classes, archive.colours, strict=True)),
                "epochs": epochs,
                "seed": seed,
            },
        )
    _tell(result, monotonic() - start)
    return result


def _tell(result: RunResult, seconds: float) -> None:
    """Say where the results lie, how good the map is, and what to try next."""
    print(  # noqa: T201
        f"\n{result.summary()}\n\nDone in {seconds:.0f} s. Try next:\n"
        f"  open {result.files['report']} in a browser, {result.files['map']} in QGIS\n"
        f"  cubekit info {result.files['cube']}\n"
        f"  cubekit verify {result.files['cube']}\n"
        "  the Python example in the README, which starts from this archive\n"
        "  pipelines/*.yaml, as a start for your own area"
    )
