"""Runs a pipeline file: each step is a few lines over the public functions."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from cubekit import specs
from cubekit.errors import PipelineError
from cubekit.pipeline import steps
from cubekit.pipeline.report import export_all
from cubekit.pipeline.schema import read_pipeline
from cubekit.typing import StrPath

log = logging.getLogger("cubekit")


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind."""

    folder: Path
    """Folder that holds every file of the run."""

    files: Mapping[str, Path]
    """``cube``, ``model``, ``prediction``, ``map``, ``picture``, ``report``, ``result``."""

    scores: Mapping[str, Any]
    """Accuracy by method on the test samples, and against the reference map where one is given."""

    seconds: Mapping[str, float]
    """Time spent, by step."""

    def summary(self) -> str:
        """Say in a few lines how good the result is and where it lies.

        Returns
        -------
        str
            A table a method, then the files.
        """
        tables = [f"{name}\n{accuracy.table()}" for name, accuracy in self.scores.items()]
        files = [f"  {name:<11}{path}" for name, path in self.files.items()]
        verdict = _verdict({name: score.overall for name, score in self.scores.items()})
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return "\n\n".join([*tables, verdict, "\n".join(["Results:", *files]), f"Time: {spent}."])


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
    path = _locate(pipeline)
    spec = read_pipeline(path, settings)
    folder = Path(out) if out is not None else Path("runs") / path.stem
    steps.check_inputs(spec)
    _make(folder)
    clock = _Clock()
    cube = clock.step("cube", lambda: steps.build_cube(spec, folder / "cube.zarr", overwrite=overwrite))
    labels = steps.labels_for(spec, cube)
    samples = clock.step("samples", lambda: steps.samples_for(spec, cube, labels))
    parts = steps.split_samples(spec, samples)
    model = clock.step("train", lambda: steps.train(spec, parts, folder / "model"))
    scores = clock.step("evaluate", lambda: steps.evaluate(spec, model, parts))
    prediction = clock.step(
        "predict", lambda: steps.predict_map(spec, model, cube, folder / "prediction.zarr")
    )
    reference = steps.compare_with_reference(spec, prediction, labels)
    made = steps.Made(spec, cube, labels, parts, model, scores, prediction, reference, clock.seconds)
    files = clock.step("export", lambda: export_all(made, folder))
    summary = {name: accuracy.to_dict() for name, accuracy in made.all_scores().items()}
    (folder / "result.json").write_text(
        json.dumps({"title": spec.title, "scores": summary, "seconds": clock.seconds}, indent=1)
    )
    return RunResult(folder, files | {"result": folder / "result.json"}, made.all_scores(), clock.seconds)


def _verdict(overall: Mapping[str, float]) -> str:
    """Say by how much the model, which stands first, beats the others on the same samples, or does not."""
    (model, own), *others = overall.items()
    lines = [f"Overall accuracy of {model} on the test samples: {own:.3f}."]
    for name, accuracy in others:
        if "against the reference" in name:
            lines.append(f"  {name}: {accuracy:.3f}")
        else:
            margin = 100 * (own - accuracy)
            told = (
                f"{margin:.1f} points better than" if margin > 0 else f"NOT better than ({margin:.1f} points)"
            )
            lines.append(f"  {told} {name} ({accuracy:.3f})")
    return "\n".join(lines)


def _make(folder: Path) -> None:
    """Make the folder of a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(
            f"Cannot make the folder {folder}: {error.strerror}. Choose another out=."
        ) from error


def _locate(pipeline: StrPath) -> Path:
    """Take a path as it is, and look a bare name up among the pipelines that ship."""
    path = Path(pipeline)
    if path.is_file():
        return path
    if path.suffix:
        raise PipelineError(f"There is no pipeline file at {path}.")
    return specs.find("pipelines", str(pipeline))


class _Clock:
    """Times steps and says when each begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def step(self, name: str, work: Any) -> Any:
        """Do one step and note how long it took."""
        log.info("%s", name)
        start = monotonic()
        result = work()
        self.seconds[name] = round(monotonic() - start, 2)
        return result
