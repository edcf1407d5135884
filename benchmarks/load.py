"""Scenes onto one grid in memory, from local files and over HTTP, 40 ms for each request."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from benchmarks.inputs import BANDS, FINE, Inputs, check
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers
from cubekit.testing.servers import Fault, file_server
from cubekit.typing import Array

CHUNK, IN_FLIGHT, DELAY = 512, 16, 0.04


@dataclass(frozen=True)
class Job:
    """What a row loads, and how."""

    bands: Sequence[str]
    resampling: str = "nearest"
    scenes: int = 2
    threads: int = workers()
    remote: bool = False
    moved: bool = False
    """Whether the grid is in another CRS than the files."""


Prepare = Callable[[Job, Inputs, int, str | None, Any], Callable[[], Array]]
"""Parses so many items found under an address, and returns what loads them onto a grid."""


def cubekit(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Open a lazy cube in its default blocks, and load it."""
    import cubekit as ck

    items = inputs.items(count, base)
    options: dict[str, Any] = {"bands": job.bands, "resampling": job.resampling}
    return lambda: ck.load(ck.open_cube(items, grid, **options))["data"].values


def odc_dask(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Load by odc-stac through Dask."""
    return _odc(job, inputs.stac(count, base), grid, chunks={"y": CHUNK, "x": CHUNK})


def odc_pool(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Load by odc-stac with its own pool of threads."""
    return _odc(job, inputs.stac(count, base), grid, pool=job.threads)


def _odc(job: Job, items: Any, grid: Any, **how: Any) -> Callable[[], Array]:
    import odc.stac

    if job.remote:
        odc.stac.configure_rio(cloud_defaults=True)

    def run() -> Array:
        cube = odc.stac.load(items, bands=job.bands, geobox=grid, resampling=job.resampling, **how)
        values: Array = cube.to_dataarray("band").transpose("time", "band", "y", "x").to_numpy()
        return values

    return run


def stackstac(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Stack by stackstac, as stored integers (its default, float64, takes longer)."""
    from rasterio.enums import Resampling

    options = {
        "epsg": grid.crs.epsg,
        "resolution": 10,
        "bounds": tuple(grid.boundingbox),
        "snap_bounds": False,
        "dtype": "uint16",
        "fill_value": np.uint16(0),
        "rescale": False,
        "chunksize": CHUNK,
        "resampling": Resampling[job.resampling],
    }
    stack, items = importlib.import_module("stackstac").stack, inputs.records(count, base)
    return lambda: stack(items, assets=list(job.bands), **options).to_numpy()


def rioxarray(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Open each file by rioxarray, bring it onto the grid where it is not, and stack all."""
    import rioxarray as rio
    from rasterio.enums import Resampling

    records = inputs.records(count, base)

    def band(href: str) -> Any:
        opened: Any = rio.open_rasterio(href)
        with opened as layer:
            plain = layer.squeeze("band", drop=True)
            if (layer.rio.crs, layer.rio.transform(), plain.shape) == (
                grid.crs,
                grid.transform,
                grid.shape.yx,
            ):
                return plain.to_numpy()
            how = Resampling[job.resampling]
            return plain.rio.reproject(
                str(grid.crs), shape=grid.shape.yx, transform=grid.transform, resampling=how
            ).to_numpy()

    def run() -> Array:
        hrefs = [item["assets"][name]["href"] for item in records for name in job.bands]
        with ThreadPoolExecutor(job.threads) as pool:
            return np.stack(list(pool.map(band, hrefs))).reshape(count, len(job.bands), *grid.shape.yx)

    return run


def bare(job: Job, inputs: Inputs, count: int, base: str | None, grid: Any) -> Callable[[], Array]:
    """Decode the same files with rasterio at their own resolution, whole: the limit."""
    import rasterio

    del grid
    hrefs = [item["assets"][band]["href"] for item in inputs.records(count, base) for band in job.bands]

    def decode(href: str) -> Array:
        with rasterio.open(href) as file:
            values: Array = file.read(1)
            return values

    def run() -> Array:
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            ThreadPoolExecutor(job.threads) as pool,
        ):
            return list(pool.map(decode, hrefs))[0]  # noqa: RUF015  (all are decoded)

    return run


def case_of(prepare: Prepare, job: Job) -> Case:
    """Make a case: warm up on two parts of a local scene, one across its rim, then load."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        grid = inputs.other_grid() if job.moved else inputs.grid()
        middle = grid.shape.x // 2
        for top in (middle, 0):
            prepare(job, inputs, 1, None, grid[top : top + 600, middle : middle + 600])()
        with _reached(inputs, job) as (base, requests):
            run = prepare(job, inputs, job.scenes, base, grid)
            with clock, dask.config.set(scheduler="threads", num_workers=job.threads):
                values = run()
            return {"check": check(values), **requests()} if values.ndim > 2 else requests()

    return case


@contextmanager
def _reached(inputs: Inputs, job: Job) -> Iterator[tuple[str | None, Callable[[], dict[str, float]]]]:
    """Serve the archive if need be; give its address, and what counts the requests."""
    if not job.remote:
        yield None, dict
        return
    with file_server(inputs.folder / "archive", faults=[Fault(path="/*", delay=DELAY)]) as server:
        yield server.url, lambda: {"requests": len(server.requests())}


PEERS: dict[str, Prepare] = {
    "odc-stac pool": odc_pool,
    "odc-stac dask": odc_dask,
    "stackstac": stackstac,
    "rioxarray": rioxarray,
}


def _row(title: str, job: Job, *bars: Bar) -> Row:
    cases: dict[str, Prepare] = {"cubekit": cubekit, **PEERS, "bare decode": bare}
    return Row(
        title=f"{title}, {job.scenes} dates x {len(job.bands)} bands",
        cases={name: case_of(prepare, job) for name, prepare in cases.items()},
        bars=bars,
        shown=("requests",) if job.remote else (),
        tolerance=0.01 if job.moved else 1e-3,
    )


def _ahead(ratio: float, issue: int, *against: str) -> Bar:
    named = against[0] if against else "best peer"
    return Bar(text=f"over {named} (issue {issue})", against=against or tuple(PEERS), at_least=ratio)


ROWS = {
    "load-mixed": _row(
        "Load 10 m and 20 m bands on one grid, bilinear",
        Job(BANDS, "bilinear"),
        _ahead(5, 12),
        _ahead(3, 3, "odc-stac dask"),
    ),
    "load-nearest": _row("The same, nearest", Job(BANDS), _ahead(3, 3, "odc-stac dask")),
    "load-one": _row(
        "Load 10 m bands on their own grid",
        Job(FINE, scenes=3),
        _ahead(1.1, 12),
        Bar(text="of bare decode (issue 3)", against=("bare decode",), at_least=1 / 1.2),
    ),
    "load-reproject": _row(
        "Load 10 m and 20 m bands in another CRS, bilinear",
        Job(BANDS, "bilinear", scenes=1, moved=True),
        _ahead(4, 12),
    ),
    "http": _row(
        f"Load over HTTP, 40 ms a request, {IN_FLIGHT} threads",
        Job(FINE, threads=IN_FLIGHT, remote=True),
        _ahead(1.8, 12),
        Bar(
            text="requests of odc-stac dask over cubekit's (issue 12)",
            measure="requests",
            against=("odc-stac dask",),
            at_least=2,
        ),
    ),
}
