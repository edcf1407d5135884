"""Runs a pipeline file on its sample data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from cubekit.demo.samples import sample_maker
from cubekit.pipeline.result import RunResult
from cubekit.pipeline.runner import compare_pipeline, locate, run
from cubekit.pipeline.schema import demo_of

if TYPE_CHECKING:
    from cubekit.pipeline.comparison import Comparison

PIPELINE = "land_cover"
"""What `cubekit demo` runs."""


def run_demo(
    out: Path,
    pipeline: str = PIPELINE,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    sample: Mapping[str, Any] | None = None,
) -> RunResult:
    """Make the sample data of a pipeline file, and run it on them.

    Parameters
    ----------
    out : pathlib.Path
        Folder for sample data (``archive``) and results. What lies there finished is not made again.
    pipeline : str, optional
        A pipeline file, or the name of one that ships.
    seed : int, optional
        Seed of the sample data and the training.
    settings : mapping, optional
        Values for parameters of the file, beside those that the sample data give.
    sample : mapping, optional
        Options of the sample data, such as ``{"size": 200}``.

    Returns
    -------
    RunResult
        Of the pipeline, with the scores.

    Raises
    ------
    PipelineError
        If the file names no sample data.
    MissingDependencyError
        If the extras ``torch`` and ``demo`` are not installed.
    """
    start = monotonic()
    with _sample_data(out, pipeline, seed, sample) as found:
        result = run(pipeline, out=out, overwrite=True, settings={**found, **(settings or {})})
    _tell(result, monotonic() - start)
    return result


def compare_demo(
    out: Path,
    pipeline: str = PIPELINE,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    sample: Mapping[str, Any] | None = None,
) -> "Comparison":
    """Make the sample data of a pipeline file, and compare its networks on them.

    Parameters
    ----------
    out : pathlib.Path
        As for :func:`run_demo`; a cube that it has left there is used.
    pipeline : str, optional
        A pipeline file, or the name of one that ships.
    seed : int, optional
        Seed of the sample data and the split.
    settings : mapping, optional
        Values for parameters of the file.
    sample : mapping, optional
        Options of the sample data.

    Returns
    -------
    Comparison
        ``print(….table())`` shows it.

    Raises
    ------
    PipelineError
        If the file names no sample data, or no networks.
    MissingDependencyError
        If the extras ``torch`` and ``demo`` are not installed.
    """
    with _sample_data(out, pipeline, seed, sample) as found:
        told = {**found, **(settings or {})}
        return compare_pipeline(pipeline, out=out, overwrite=True, settings=told)


@contextmanager
def _sample_data(
    out: Path, pipeline: str, seed: int, sample: Mapping[str, Any] | None
) -> Iterator[Mapping[str, object]]:
    """Make sample data and give the settings of the file for them."""
    make = sample_maker(demo_of(locate(pipeline)), str(pipeline))
    with make(out / "archive", seed=seed, **(sample or {})) as found:
        yield {**found, "seed": seed}


def _tell(result: RunResult, seconds: float) -> None:
    """Say where the results lie, how good the map is, and what to try next."""
    opened = [result.files[name] for name in ("report", "map") if name in result.files]
    hints = [f"open {path} in {place}" for path, place in zip(opened, ("a browser", "QGIS"), strict=False)]
    if "cube" in result.files:
        hints += [f"cubekit {verb} {result.files['cube']}" for verb in ("info", "verify")]
    hints.append("pipelines/*.yaml, as a start for your own area")
    lines = "\n".join(f"  {hint}" for hint in hints)
    print(f"\n{result.summary()}\n\nDone in {seconds:.0f} s. Try next:\n{lines}")  # noqa: T201
