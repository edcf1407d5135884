"""Scenes, cloud mask, median of each month, Zarr: by threads, and by one and two processes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import BANDS, CLOUDS, SCENES, Inputs, check
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers

EVERY = "MS"  # the dates are a week apart: four make a median
CHUNK, SIDE = 512, 1024
_RESAMPLING = {"*": "bilinear", "SCL": "nearest"}


@contextmanager
def scratch(inputs: Inputs) -> Iterator[Path]:
    """Give a folder on the disk of the inputs, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=inputs.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _composite(items: Any, box: Any) -> Any:
    import cubekit as ck

    cube = ck.open_cube(items, box, bands=BANDS, mask="clouds+shadows", resampling="bilinear")
    return ck.composite(cube, every=EVERY)


def with_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Build the composite and write it as a resumable store."""
    import cubekit as ck

    items, grid = inputs.items(SCENES, dense=True), inputs.grid(SIDE)

    def build(box: Any, path: Path) -> Any:
        return ck.write(_composite(items, box), path, workers=workers(), progress=False)

    with scratch(inputs) as folder:
        build(grid[:600, :600], folder / "warm.zarr")
        with clock:
            stored = build(grid, folder / "out.zarr")
        return {"check": check(stored["data"].sel(band="B02").to_numpy())}


def _reduced(data: Any, clear: Any) -> Any:
    """Mask and reduce as users of xarray do; back to stored integers."""
    data = data.where(clear & (data != 0))
    return data.resample(time=EVERY).median().round().fillna(0).astype("uint16")


def with_odc(inputs: Inputs, clock: Clock, **how: Any) -> Facts:
    """Load by odc-stac, mask and reduce by xarray, write by zarr: as its users do."""
    import dask
    import odc.stac
    import xarray as xr

    items, grid = inputs.stac(SCENES, dense=True), inputs.grid(SIDE)

    def build(box: Any, path: Path) -> None:
        cube = odc.stac.load(items, bands=[*BANDS, "SCL"], geobox=box, resampling=_RESAMPLING, **how)
        if "chunks" in how:
            cube = cube.chunk(time=-1)
        clear = ~cube["SCL"].isin([0, *CLOUDS])
        _reduced(cube[list(BANDS)], clear).to_zarr(path, consolidated=False)

    with scratch(inputs) as folder:
        build(grid[:64, :64], folder / "warm.zarr")
        with clock, dask.config.set(scheduler="threads", num_workers=workers()):
            build(grid, folder / "out.zarr")
        stored = xr.open_zarr(folder / "out.zarr", mask_and_scale=False)
        return {"check": check(stored["B02"].to_numpy())}


def with_odc_dask(inputs: Inputs, clock: Clock) -> Facts:
    """Load through Dask."""
    return with_odc(inputs, clock, chunks={"y": CHUNK, "x": CHUNK})


def with_odc_pool(inputs: Inputs, clock: Clock) -> Facts:
    """Load with a pool of threads into memory."""
    return with_odc(inputs, clock, pool=workers())


def with_stackstac(inputs: Inputs, clock: Clock) -> Facts:
    """Stack bands and quality by stackstac, the rest as for odc-stac."""
    import importlib

    import dask
    import xarray as xr
    from rasterio.enums import Resampling

    stack, items = importlib.import_module("stackstac").stack, inputs.records(SCENES, dense=True)
    options: dict[str, Any] = {"resolution": 10, "snap_bounds": False, "rescale": False, "chunksize": CHUNK}

    def build(box: Any, path: Path) -> None:
        place = {"epsg": box.crs.epsg, "bounds": tuple(box.boundingbox)}
        place |= {"fill_value": np.uint16(0), "dtype": "uint16"}
        data = stack(items, assets=list(BANDS), resampling=Resampling.bilinear, **place, **options)
        codes = stack(items, assets=["SCL"], resampling=Resampling.nearest, **place, **options)
        clear = ~codes.squeeze("band", drop=True).isin([0, *CLOUDS])
        found = _reduced(data.chunk(time=-1).reset_coords(drop=True), clear.reset_coords(drop=True))
        found.drop_attrs().to_dataset(name="data").to_zarr(path, consolidated=False)

    with scratch(inputs) as folder:
        build(inputs.grid(SIDE)[:64, :64], folder / "warm.zarr")
        with clock, dask.config.set(scheduler="threads", num_workers=workers()):
            build(inputs.grid(SIDE), folder / "out.zarr")
        stored = xr.open_zarr(folder / "out.zarr", mask_and_scale=False)
        return {"check": check(stored["data"].sel(band="B02").to_numpy())}


def on_processes(count: int) -> Case:
    """Return a case that builds the composite on a local cluster of processes with one thread each."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        from distributed import Client, LocalCluster

        import cubekit as ck

        items, grid = inputs.items(SCENES, dense=True), inputs.grid()

        def build(box: Any, path: Path, client: Any) -> Any:
            return ck.write(_composite(items, box), path, scheduler=client, progress=False)

        with (
            scratch(inputs) as folder,
            LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
            Client(cluster) as client,  # type: ignore[no-untyped-call]
        ):
            build(grid[:1024, :1024], folder / "warm.zarr", client)
            before = sum(client.run(_cpu).values())
            with clock:
                build(grid, folder / "out.zarr", client)
            clock.facts["cpu"] += sum(client.run(_cpu).values()) - before
            clock.facts["peak_mb"] = max(client.run(_peak).values())
            return {}

    return case


def _cpu() -> float:
    import time

    return time.process_time()


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


PEERS = {
    "odc-stac dask + xarray": with_odc_dask,
    "odc-stac pool + xarray": with_odc_pool,
    "stackstac + xarray": with_stackstac,
}
ROWS = {
    "composite": Row(
        title=f"Composite: {SCENES} dates x 10 bands, cloud mask, monthly median, Zarr",
        cases={"cubekit": with_cubekit, **PEERS},
        bars=(
            Bar(text="over best peer (issue 12)", against=tuple(PEERS), at_least=8),
            Bar(
                text="peak memory of the leanest peer over cubekit's (issue 12)",
                measure="peak_mb",
                against=tuple(PEERS),
                at_least=2,
            ),
        ),
    ),
    "dask-scaling": Row(
        title=f"The same with {SCENES} whole scenes on Dask processes of one thread (peak of one worker)",
        cases={"cubekit": on_processes(1), "cubekit, 2 processes": on_processes(2)},
        bars=(
            Bar(
                text="2 processes over 1 (no bar in the issue; 1.6 taken)",
                case="cubekit, 2 processes",
                against=("cubekit",),
                at_least=1.6,
            ),
        ),
    ),
}
