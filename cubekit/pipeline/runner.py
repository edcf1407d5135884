"""Runs a pipeline file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cubekit import specs
from cubekit.errors import PipelineError
from cubekit.pipeline.jobs import JOBS
from cubekit.pipeline.result import RunResult, Workplace
from cubekit.pipeline.schema import read_pipeline
from cubekit.typing import StrPath

if TYPE_CHECKING:
    from cubekit.pipeline.comparison import Comparison


def run(
    pipeline: StrPath,
    *,
    out: StrPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> RunResult:
    """Run a whole job from scenes to a map and its report.

    Parameters
    ----------
    pipeline : str or path
        A pipeline file, or the name of one that ships with cubekit. Relative paths inside it start at the
        current folder.
    out : str or path, optional
        Folder for everything the run makes. Default: ``runs/<name of the file>``. Steps that lie there
        finished, made from the same inputs and settings, are not done again.
    settings : mapping, optional
        Values for parameters of the file.
    overwrite : bool, optional
        Whether to replace a cube in the folder that was made from other scenes or settings. Model, prediction
        and exports follow from the cube and are made anew where something before them has changed.

    Returns
    -------
    RunResult
        Paths, scores and times.

    Raises
    ------
    PipelineError
        If the file is wrong, names files that are not there, or the folder cannot be made.
    UnknownNameError
        If the network is not known; before anything is read.
    CubekitError
        From any step; finished steps stay, and running again goes on from there.

    Examples
    --------
    >>> import cubekit as ck
    >>> result = ck.run("cbers_bahia", settings={"epochs": 5})  # doctest: +SKIP
    """
    path = locate(pipeline)
    spec = read_pipeline(path, settings)
    folder = Path(out) if out is not None else Path("runs") / path.stem
    return JOBS[spec.task].steps()(spec, Workplace(folder, overwrite))


def compare_pipeline(
    pipeline: StrPath,
    *,
    out: StrPath | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> "Comparison":
    """Train the networks that a pipeline file names under ``compare``, and put them into one table.

    Parameters
    ----------
    pipeline : str or path
        A pipeline file, or the name of one that ships with cubekit.
    out : str or path, optional
        Folder for everything. Default: ``runs/<name of the file>``, where a run of the file has left its
        cube. The comparison goes into ``comparison`` in it.
    settings : mapping, optional
        Values for parameters of the file.
    overwrite : bool, optional
        As for :func:`run`.

    Returns
    -------
    Comparison
        ``print(….table())`` shows it.

    Raises
    ------
    PipelineError
        If the file is wrong, or has nothing to compare.
    CubekitError
        From any step; what is finished stays, and comparing again goes on from there.

    Examples
    --------
    >>> print(ck.compare_pipeline("land_cover", settings={"epochs": 5}).table())  # doctest: +SKIP
    """
    path = locate(pipeline)
    spec = read_pipeline(path, settings)
    work = JOBS[spec.task].comparison()
    if work is None:
        able = ", ".join(task for task, job in JOBS.items() if job.contest)
        raise PipelineError(f"{path}: there is no comparison for task {spec.task!r}, only for {able}.")
    return work(spec, Workplace(Path(out) if out is not None else Path("runs") / path.stem, overwrite))


def locate(pipeline: StrPath) -> Path:
    """Take a path as it is, and look a bare name up among the pipelines that ship.

    Parameters
    ----------
    pipeline : str or path
        A file, or the name of one that ships.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    PipelineError
        If there is no such file.
    UnknownNameError
        If no pipeline of this name ships.
    """
    path = Path(pipeline)
    if path.is_file():
        return path
    if path.suffix:
        raise PipelineError(f"There is no pipeline file at {path}.")
    return specs.find("pipelines", str(pipeline))
