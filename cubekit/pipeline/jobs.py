"""The kinds of jobs that a pipeline file can describe, by its key ``task``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from cubekit.pipeline.comparison import Comparison
    from cubekit.pipeline.result import RunResult, Workplace
    from cubekit.pipeline.sections import Pipeline


@dataclass(frozen=True)
class Job:
    """Where a kind of job is written; loaded when a file asks for it."""

    spec: str
    """Its words: a :class:`~cubekit.pipeline.sections.Pipeline`, as ``module:class``."""

    runner: str
    """Its steps: a function ``(spec, workplace) -> RunResult``, as ``module:function``."""

    contest: str | None = None
    """How networks are compared on it: a function ``(spec, workplace) -> Comparison``, or none."""

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

    def comparison(self) -> "Callable[[Any, Workplace], Comparison] | None":
        """Load the function that compares networks on a job of this kind.

        Returns
        -------
        callable or None
            Takes the checked file and the folder; None where there is none.
        """
        return cast("Any", resolve_name(self.contest)) if self.contest else None


JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "classify": Job(
            "cubekit.pipeline.classify.spec:ClassifyPipeline",
            "cubekit.pipeline.classify.job:run_classify",
            "cubekit.pipeline.classify.contest:compare_classify",
        ),
        "fuse": Job(
            "cubekit.pipeline.fuse.spec:FusePipeline",
            "cubekit.pipeline.fuse.job:run_fuse",
            "cubekit.pipeline.fuse.job:compare_fusion",
        ),
        "forecast": Job(
            "cubekit.pipeline.forecast.spec:ForecastPipeline", "cubekit.pipeline.forecast.job:run_forecast"
        ),
        "fractions": Job(
            "cubekit.pipeline.fractions.spec:FractionsPipeline",
            "cubekit.pipeline.fractions.job:run_fractions",
        ),
    }
)
"""Task to where its words and steps are."""
