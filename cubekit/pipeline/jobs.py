"""The kinds of jobs that a pipeline file can describe, by its key ``task``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cubekit.pipeline.result import RunResult, Workplace
    from cubekit.pipeline.sections import Pipeline


@dataclass(frozen=True)
class Job:
    """Where a kind of job is written; loaded when a file asks for it."""

    spec: str
    """Its words: a :class:`~cubekit.pipeline.sections.Pipeline`, as ``module:class``."""

    runner: str
    """Its steps: a function ``(spec, workplace) -> RunResult``, as ``module:function``."""

    def words(self) -> "type[Pipeline]":
        """Load the class that checks a file of this kind.

        Returns
        -------
        type
            A pydantic model.
        """
        return cast("type[Pipeline]", resolve_name(self.spec))

    def steps(self) -> "Callable[[Any, Workplace], RunResult]":
        """Load the function that does a job of this kind.

        Returns
        -------
        callable
            Takes the checked file and the folder.
        """
        return cast("Callable[[Any, Workplace], RunResult]", resolve_name(self.runner))


JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "classify": Job(
            "cubekit.pipeline.classify.spec:ClassifyPipeline", "cubekit.pipeline.classify.job:run_classify"
        ),
    }
)
"""Task to where its words and steps are."""
