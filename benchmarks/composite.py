"""Row 3: scenes, cloud mask, median of each period, Zarr."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.inputs import BANDS, CLOUDS, Inputs, check
from benchmarks.measure import Bar, Clock, Facts, Row, workers

SCENES = 6
EVERY = "QS"  # the archive has a date a month: three dates make a median
CHUNK = 512
_RESAMPLING = {"*": "bilinear", "SCL": "nearest"}


@contextmanager
def scratch(inputs: Inputs) -> Iterator[Path]:
    """Give a folder on the disk of the inputs, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=inputs.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def with_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Build the composite and write it as a resumable store."""
    import cubekit as ck

    items, grid = inputs.items(SCENES), inputs.grid()

    def build(box: Any, path: Path) -> Any:
        cube = ck.open_cube(items, box, bands=BANDS, mask="clouds+shadows", resampling="bilinear")
        return ck.write(ck.composite(cube, every=EVERY), path, workers=workers(), progress=False)

    with scratch(inputs) as folder:
        build(grid[:64, :64], folder / "warm.zarr")
        with clock:
            stored = build(grid, folder / "out.zarr")
        return {"check": check(stored["data"].sel(band="B02").to_numpy())}


def with_odc(inputs: Inputs, clock: Clock, **how: Any) -> Facts:
    """Load by odc-stac, mask and reduce by xarray, write by zarr: as its users do."""
    import dask
    import odc.stac
    import xarray as xr

    items, grid = inputs.stac(SCENES), inputs.grid()

    def build(box: Any, path: Path) -> None:
        cube = odc.stac.load(items, bands=[*BANDS, "SCL"], geobox=box, resampling=_RESAMPLING, **how)
        if "chunks" in how:
            cube = cube.chunk(time=-1)
        clear = ~cube["SCL"].isin([0, *CLOUDS])
        data = cube[list(BANDS)].where(clear & (cube[list(BANDS)] != 0))
        result = data.resample(time=EVERY).median().round().fillna(0).astype("uint16")
        result.to_zarr(path, consolidated=False)

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


_PEERS = ("odc-stac dask", "odc-stac pool")
ROWS = {
    "composite": Row(
        title=f"Composite: {SCENES} dates x 10 bands, cloud mask, quarterly median, Zarr",
        cases={
            "cubekit": with_cubekit,
            "odc-stac dask + xarray": with_odc_dask,
            "odc-stac pool + xarray": with_odc_pool,
        },
        bars=(
            Bar(
                text="8 x best peer (issue 12)",
                against=tuple(f"{peer} + xarray" for peer in _PEERS),
                at_least=8,
            ),
            Bar(
                text="half the peak memory of the best peer (issue 12)",
                measure="peak_mb",
                against=tuple(f"{peer} + xarray" for peer in _PEERS),
                at_least=2,
            ),
        ),
    )
}
