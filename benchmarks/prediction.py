"""Row 7: TempCNN over a scene, from store to store."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.composite import scratch
from benchmarks.inputs import Inputs
from benchmarks.measure import Bar, Clock, Facts, Row, workers
from cubekit.typing import Array

SIDE, TILE = 512, 256  # one shard of the store, in four tasks
BATCH = 1024


def _part(cube: Any) -> Any:
    """Return a whole shard of the scene: the rate does not depend on its size."""
    return cube.isel(y=slice(SIDE), x=slice(SIDE))


def with_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Predict into a resumable store."""
    import cubekit as ck

    model, cube = inputs.model(), _part(inputs.store())

    def build(part: Any, path: Path) -> Any:
        options: dict[str, Any] = {"workers": workers(), "progress": False}
        return ck.predict(model, part, out=path, outputs=("class",), **options)["class"]

    with scratch(inputs) as folder:
        build(cube.isel(y=slice(32), x=slice(32)), folder / "warm.zarr")
        with clock:
            found = build(cube, folder / "map.zarr")
        return _facts(clock, found.to_numpy())


def with_dask(inputs: Inputs, clock: Clock) -> Facts:
    """Map the model over Dask blocks by ``xarray.apply_ufunc``; torch keeps its own threads."""
    import dask
    import torch
    import xarray as xr

    model = inputs.model()

    def classify(x: Array) -> Array:
        flat = np.ascontiguousarray(x.reshape(-1, *x.shape[2:]), dtype="float32")
        with torch.no_grad():
            parts = [model.probabilities(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]
        classes: Array = np.concatenate(parts).argmax(axis=1).reshape(x.shape[:2]).astype("uint8")
        return classes

    def build(part: slice | None, path: Path) -> None:
        physical = _part(xr.open_zarr(inputs.folder / "cube.zarr")["data"])
        physical = physical if part is None else physical.isel(y=part, x=part)
        found = xr.apply_ufunc(
            classify,
            physical.chunk({"time": -1, "band": -1, "y": TILE, "x": TILE}),
            input_core_dims=[["time", "band"]],
            dask="parallelized",
            output_dtypes=["uint8"],
        )
        found.drop_attrs().drop_encoding().to_dataset(name="class").to_zarr(path, consolidated=False)

    with scratch(inputs) as folder:
        build(slice(32), folder / "warm.zarr")
        with clock, dask.config.set(scheduler="threads", num_workers=workers()):
            build(None, folder / "map.zarr")
        return _facts(clock, xr.open_zarr(folder / "map.zarr")["class"].to_numpy())


def bare(inputs: Inputs, clock: Clock) -> Facts:
    """Run the forward pass over series that are in memory already, one torch thread a worker: the limit."""
    import torch

    from cubekit.cube.contract import to_physical

    torch.set_num_threads(1)
    model = inputs.model()
    physical = to_physical(_part(inputs.store())["data"]).sel(band=list(model.card.bands))
    values = physical.transpose("y", "x", "time", "band").to_numpy()
    x = np.ascontiguousarray(values.reshape(-1, *values.shape[2:]), dtype="float32")
    filled = torch.from_numpy(np.nan_to_num(x))
    network = model.network

    def forward(start: int) -> Any:
        with torch.inference_mode():
            torch.set_num_threads(1)
            return network(filled[start : start + BATCH]).argmax(dim=1)

    forward(0)
    with clock, ThreadPoolExecutor(workers()) as pool:
        found = list(pool.map(forward, range(0, len(x), BATCH)))
    return {"kpx_per_cpu_s": sum(map(len, found)) / clock.facts["cpu"] / 1e3}


def _facts(clock: Clock, classes: Array) -> Facts:
    return {
        "check": float(classes.astype("f8").mean()),
        "kpx_per_cpu_s": classes.size / clock.facts["cpu"] / 1e3,
    }


ROWS = {
    "predict-tempcnn": Row(
        title=f"TempCNN over {SIDE} x {SIDE} pixels, store to store",
        cases={"cubekit": with_cubekit, "dask apply_ufunc": with_dask, "bare forward in RAM": bare},
        bars=(
            Bar(
                text="0.9 of the bare forward pass (issue 7)", against=("bare forward in RAM",), at_least=0.9
            ),
            Bar(text="2 x dask apply_ufunc (issue 7)", against=("dask apply_ufunc",), at_least=2),
        ),
        shown=("kpx_per_cpu_s",),
    )
}
