"""The demo: a sample archive, served as a real STAC API, turned into a map by a real pipeline."""

import json
import logging
from pathlib import Path
from time import monotonic

from cubekit.pipeline.runner import RunResult, run

log = logging.getLogger("cubekit")

PIPELINE = "sample_land_cover"


def run_demo(out: Path, *, seed: int = 0) -> RunResult:
    """Make the sample archive, serve it on this machine, and run the pipeline on it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for archive and results. What lies there finished is not made again.
    seed : int, optional
        Seed of the landscape, the clouds and the training.

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
    log.info("sample archive: two overlapping Sentinel-2-like scenes, 24 dates")
    archive = write_sample_archive(out / "archive", seed=seed)
    with file_server(archive.folder) as files, stac_server(archive.item_collection(files)) as api:
        log.info("STAC API at %s", api)
        result = run(
            PIPELINE,
            out=out,
            settings={
                "api": api,
                "bbox": list(archive.bbox),
                "crs": archive.crs,
                "labels": str(archive.labels),
                "truth": str(archive.truth),
                "classes": json.loads(json.dumps(dict(zip(archive.codes, archive.classes, strict=True)))),
                "colours": dict(zip(archive.classes, archive.colours, strict=True)),
                "seed": seed,
            },
        )
    _tell(result, monotonic() - start)
    return result


def _tell(result: RunResult, seconds: float) -> None:
    """Say where the results lie, how good the map is, and what to try next."""
    for name, accuracy in result.scores.items():
        print(f"\n{name}\n{accuracy.table()}")  # noqa: T201
    files = result.files
    print(  # noqa: T201
        f"\nDone in {seconds:.0f} s. The results:\n"
        f"  report   {files['report']}\n"
        f"  map      {files['map']}  (open it in QGIS)\n"
        f"  picture  {files['picture']}\n"
        f"  cube     {files['cube']}\n"
        f"  model    {files['model']}\n"
        "\nTry next:\n"
        f"  cubekit info {files['cube']}\n"
        f"  cubekit run {PIPELINE} --help\n"
        "  the README's Python example, and pipelines/*.yaml as a start for your own area"
    )
