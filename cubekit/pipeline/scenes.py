"""The first steps of every job that starts from scenes: find them, make the cube of them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import xarray as xr

import cubekit
from cubekit.errors import PipelineError
from cubekit.pipeline.sections import Cube, Grid, Source
from cubekit.sources.items import Items

log = logging.getLogger("cubekit")


class CubeJob(Protocol):
    """A job that says which scenes become which cube."""

    @property
    def source(self) -> Source:
        """Where scenes come from."""

    @property
    def grid(self) -> Grid | None:
        """Target grid."""

    @property
    def cube(self) -> Cube:
        """What to build from the scenes."""


def check_files(sources: Mapping[str, str]) -> None:
    """Raise unless every file that a job names is there.

    Parameters
    ----------
    sources : mapping
        Section of the pipeline file to the path in its key ``source``.

    Raises
    ------
    PipelineError
        Naming the first that is missing.
    """
    for name, source in sources.items():
        if not Path(source).exists():
            raise PipelineError(
                f"Key '{name}.source': there is no file at {source}. Relative paths start at {Path.cwd()}."
            )


def open_scenes(source: Source) -> Items:
    """Find or index the scenes of a pipeline."""
    if source.search is not None:
        return cubekit.search(**source.search.model_dump(exclude_none=True))
    if source.archive is not None:
        return cubekit.open_archive(**source.archive.model_dump(exclude_none=True))
    return cubekit.open_items(str(source.items))


def build_cube(spec: CubeJob, path: Path, *, overwrite: bool) -> xr.Dataset:
    """Open, mask, composite and fill the scenes, and write them; go on with or reuse what lies there."""
    items = open_scenes(spec.source)
    log.info("%d items", len(items))
    grid = None if spec.grid is None else cubekit.grid(**spec.grid.model_dump(exclude_none=True))
    cube = cubekit.open_cube(
        items,
        grid,
        bands=spec.cube.bands,
        mask=spec.cube.mask,
        dilate=spec.cube.dilate,
        opening=spec.cube.opening,
        resampling=spec.cube.resampling,
    )
    if spec.cube.composite is not None:
        cube = cubekit.composite(cube, **spec.cube.composite.model_dump(exclude_none=True))
    if spec.cube.fill is not None:
        cube = cubekit.fill_gaps(cube, how=spec.cube.fill, limit=spec.cube.fill_limit)
    if spec.cube.indices:
        cube = cubekit.add_indices(cube, spec.cube.indices)
    return cubekit.write(cube, path, layout=spec.cube.layout, overwrite=overwrite)
