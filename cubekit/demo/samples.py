"""The sample data of each demo, by the name that a pipeline file gives in its key ``demo``."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, Protocol, cast

from cubekit.errors import PipelineError, did_you_mean


class Maker(Protocol):
    """Makes sample data in a folder, and keeps what serves them running while a job is done."""

    def __call__(
        self, folder: Path, *, seed: int, **options: Any
    ) -> AbstractContextManager[Mapping[str, object]]:
        """Return a context manager that gives the settings of the pipeline file for these data."""


SAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "fusion-pairs": "cubekit.demo.fusion:fusion_pairs",
        "sentinel-2-year": "cubekit.demo.landscape:sentinel_2_year",
        "yearly-vegetation": "cubekit.demo.vegetation:yearly_vegetation",
        "coarse-year": "cubekit.demo.fractions:coarse_year",
        "mountain-forest": "cubekit.demo.tree_species:mountain_forest",
    }
)
"""Name to the function that makes them, as ``module:function``."""


def sample_maker(name: str | None, pipeline: str) -> Maker:
    """Look up the sample data of a pipeline file.

    Parameters
    ----------
    name : str or None
        What the file names in its key ``demo``.
    pipeline : str
        The file, for the message.

    Returns
    -------
    Maker
        Its function.

    Raises
    ------
    PipelineError
        If the file names none, or one that there is not.
    """
    if name is None:
        raise PipelineError(
            f"{pipeline} names no sample data: run it without --demo, or give it a key 'demo'."
        )
    if name not in SAMPLES:
        raise PipelineError(f"{pipeline}: there are no sample data {name!r}. {did_you_mean(name, SAMPLES)}")
    return cast("Maker", resolve_name(SAMPLES[name]))
