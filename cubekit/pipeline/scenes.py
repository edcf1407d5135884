"""The first steps of every job that starts from scenes: find them, make the cube of them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cube.fallback import fall_back
from cubekit.errors import PipelineError
from cubekit.pipeline.sections import Cube, Grid, Source
from cubekit.sources.items import Items

log = logging.getLogger("cubekit")


class CubeJob(Protocol):
    """A job that says which scenes become which cube."""

    @property
    def source(self) -> Source | None:
        """Where scenes come from; None in a job that has tables alone, and builds no cube."""

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
    if spec.source is None:
        raise PipelineError("Key 'source' is missing: it says where the scenes of the cube come from.")
    items = open_scenes(spec.source)
    log.info("%d items", len(items))
    grid = None if spec.grid is None else cubekit.grid(**spec.grid.model_dump(exclude_none=True))
    cube = _composited(items, grid, spec.cube, mask=spec.cube.mask)
    if spec.cube.composite is not None and spec.cube.composite.fallback == "unmasked":
        cube = fall_back(cube, _composited(items, grid, spec.cube, mask=None))
    if spec.cube.fill is not None:
        cube = cubekit.fill_gaps(cube, how=spec.cube.fill, limit=spec.cube.fill_limit)
    if spec.cube.indices:
        cube = cubekit.add_indices(cube, spec.cube.indices)
    return cubekit.write(cube, path, layout=spec.cube.layout, overwrite=overwrite)


def _composited(items: Items, grid: GeoBox | None, words: Cube, *, mask: str | None) -> xr.Dataset:
    """Open the scenes, and make one image a period where that is wanted."""
    cube = cubekit.open_cube(
        items,
        grid,
        bands=words.bands,
        mask=mask,
        dilate=words.dilate if mask else 0,
        opening=words.opening if mask else 0,
        resampling=words.resampling,
        dtype=words.dtype,
    )
    if words.composite is None:
        return cube
    return cubekit.composite(cube, **words.composite.model_dump(exclude_none=True, exclude={"fallback"}))
