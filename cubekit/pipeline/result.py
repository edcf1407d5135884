"""What a job is given to work in, and what it leaves behind."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

from cubekit.errors import PipelineError

Result = TypeVar("Result")

log = logging.getLogger("cubekit")


class Score(Protocol):
    """How good a method is, as a table, as plain values, and as one number."""

    @property
    def overall(self) -> float:
        """Return the one number that stands for it."""

    def table(self) -> str:
        """Return it as text."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind."""

    folder: Path
    """Folder that holds every file of the run."""

    files: Mapping[str, Path]
    """``cube``, ``model``, ``prediction``, ``result`` and what else the job makes."""

    scores: Mapping[str, Any]
    """Score by method, the trained network first; each has ``table()``, ``to_dict()`` and ``overall``."""

    seconds: Mapping[str, float]
    """Time spent, by step."""

    verdict: str = ""
    """In words: by how much the network beats the others, or does not."""

    def summary(self) -> str:
        """Say in a few lines how good the result is and where it lies.

        Returns
        -------
        str
            A table a method, the verdict, then the files.
        """
        tables = [f"{name}\n{score.table()}" for name, score in self.scores.items()]
        width = 1 + max(map(len, self.files), default=0)
        files = [f"  {name:<{width}}{path}" for name, path in self.files.items()]
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        parts = [*tables, self.verdict, "\n".join(["Results:", *files]), f"Time: {spent}."]
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Workplace:
    """Folder of a run, and the clock of its steps."""

    folder: Path
    """Folder for everything the run makes; the first step makes it."""

    overwrite: bool = False
    """Whether a cube that was made from other scenes or settings is replaced."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent so far, by step."""

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        """Do one step, say when it begins, and note how long it took.

        Parameters
        ----------
        name : str
            Of the step.
        work : callable
            What to do.

        Returns
        -------
        object
            What the work gives.

        Raises
        ------
        PipelineError
            If the folder cannot be made.
        """
        _make(self.folder)
        log.info("%s", name)
        start = monotonic()
        result = work()
        self.seconds[name] = round(monotonic() - start, 2)
        return result

    def finish(
        self, title: str, files: Mapping[str, Path], scores: Mapping[str, Score], *, verdict: str = ""
    ) -> RunResult:
        """Write ``result.json`` and give the result of the run.

        Parameters
        ----------
        title : str
            Of the job.
        files : mapping
            Name of each result to its path.
        scores : mapping
            Score by method, the trained network first.
        verdict : str, optional
            By how much the network beats the others, in words.

        Returns
        -------
        RunResult
            With the path of ``result.json`` among the files.
        """
        path = self.folder / "result.json"
        told = {name: score.to_dict() for name, score in scores.items()}
        path.write_text(json.dumps({"title": title, "scores": told, "seconds": self.seconds}, indent=1))
        return RunResult(self.folder, {**files, "result": path}, scores, self.seconds, verdict)


def _make(folder: Path) -> None:
    """Make the folder of a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(
            f"Cannot make the folder {folder}: {error.strerror}. Choose another out=."
        ) from error
