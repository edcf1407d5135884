"""Row 6: pixel series from a store: those with labels, and all of them."""

from typing import Any

import numpy as np

from benchmarks.inputs import Inputs, check
from benchmarks.measure import Bar, Clock, Facts, Row, workers

PATCH = 64


def _labels(inputs: Inputs, cube: Any) -> Any:
    import cubekit as ck

    return ck.load_labels(inputs.folder / "archive" / "labels.gpkg", cube, column="class", inward=20)


def _plain(inputs: Inputs) -> Any:
    """Return the cube as users of plain xarray open it: stored numbers, Dask blocks of the store's shards."""
    import xarray as xr

    return xr.open_zarr(inputs.folder / "cube.zarr", mask_and_scale=False)["data"]


def labelled_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Extract the series of all labelled pixels."""
    import dask

    from cubekit.batching.extract import extract

    cube = inputs.store()
    labels = _labels(inputs, cube)
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        samples = extract(cube, labels, progress=False)
    return {"check": float(samples.x.astype("f8").mean()), "series": len(samples)}


def labelled_xarray(inputs: Inputs, clock: Clock) -> Facts:
    """Index the lazy cube at the labelled pixels, all at once."""
    import dask
    import xarray as xr

    rows, columns = np.nonzero(_labels(inputs, inputs.store())["label"].to_numpy() >= 0)
    at = {"y": xr.DataArray(rows, dims="n"), "x": xr.DataArray(columns, dims="n")}
    cube = _plain(inputs)
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        x = cube.isel(at).transpose("n", "time", "band").to_numpy()
    return {"check": _seen(x), "series": len(x)}


def labelled_xbatcher(inputs: Inputs, clock: Clock) -> Facts:
    """Walk over all patches and take the labelled pixels of each."""
    import dask
    import xbatcher

    wanted = _labels(inputs, inputs.store())["label"] >= 0
    cube = _plain(inputs).to_dataset(name="data").assign(wanted=wanted.reset_coords(drop=True))
    found = []
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        for patch in xbatcher.BatchGenerator(cube, input_dims=_patch_dims(cube)):
            inside = patch["wanted"].to_numpy()
            found.append(patch["data"].to_numpy()[:, :, inside].transpose(2, 0, 1))
    x = np.concatenate(found)
    return {"check": _seen(x), "series": len(x)}


def _seen(x: Any) -> float:
    """Return the mean of those series that hold any data, as `extract` leaves out the others."""
    return float(x[(x != 0).any(axis=(1, 2))].astype("f8").mean())


def _patch_dims(cube: Any) -> dict[str, int]:
    """Return square patches of all dates and bands, the edges not lost."""
    side = next(n for n in range(PATCH, 0, -1) if cube.sizes["y"] % n == cube.sizes["x"] % n == 0)
    return {"time": cube.sizes["time"], "band": cube.sizes["band"], "y": side, "x": side}


def dense_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Give every pixel as a series, window by window of a chunk plan."""
    import dask

    from cubekit.batching.plan import ChunkPlan

    cube = inputs.store()["data"]
    ChunkPlan(cube[..., :64, :64])[0].to_numpy()
    total, pixels = 0.0, 0
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        for window in ChunkPlan(cube):
            x = _as_series(window)
            total, pixels = total + check(x) * len(x), pixels + len(x)
    return _rate(clock, total, pixels)


def dense_xbatcher(inputs: Inputs, clock: Clock) -> Facts:
    """Give every pixel as a series, from patches that xbatcher cuts from the lazy cube."""
    import dask
    import xbatcher

    cube = _plain(inputs)
    cube[..., :64, :64].compute()
    total, pixels = 0.0, 0
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        for patch in xbatcher.BatchGenerator(cube, input_dims=_patch_dims(cube)):
            x = _as_series(patch)
            total, pixels = total + check(x) * len(x), pixels + len(x)
    return _rate(clock, total, pixels)


def _as_series(window: Any) -> Any:
    values = window.transpose("y", "x", "time", "band").to_numpy()
    return np.ascontiguousarray(values.reshape(-1, *values.shape[2:]))


def _rate(clock: Clock, total: float, pixels: int) -> Facts:
    return {"check": total / pixels, "kpx_per_cpu_s": pixels / clock.facts["cpu"] / 1e3}


ROWS = {
    "series-labelled": Row(
        title="Series of all labelled pixels, from a store",
        cases={
            "cubekit": labelled_cubekit,
            "xarray pointwise": labelled_xarray,
            "xbatcher patches": labelled_xbatcher,
        },
        bars=(Bar(text="4 x xbatcher (issue 12)", against=("xbatcher patches",), at_least=4),),
        shown=("series",),
    ),
    "series-dense": Row(
        title="Every pixel as a series, in order, from a store",
        cases={"cubekit": dense_cubekit, "xbatcher patches": dense_xbatcher},
        bars=(
            Bar(text="4 x xbatcher (issue 12)", against=("xbatcher patches",), at_least=4),
            Bar(
                text="200,000 px per core-second (issue 5)",
                measure="kpx_per_cpu_s",
                at_least=200,
            ),
        ),
        shown=("kpx_per_cpu_s",),
        tolerance=0.05,  # the sparse sample falls on other pixels
    ),
}
