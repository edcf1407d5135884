"""Pixel series from a store: those with labels, and all of them, shuffled."""

from typing import Any

import numpy as np

from benchmarks.inputs import Inputs
from benchmarks.measure import Bar, Clock, Facts, Row, workers

PATCH, BATCH = 64, 4096


def _plain(inputs: Inputs, chunks: Any = None) -> Any:
    """Return the cube as users of plain xarray open it: stored numbers."""
    import xarray as xr

    return xr.open_zarr(inputs.layout("128"), mask_and_scale=False, chunks=chunks)["data"]


def _cube(inputs: Inputs) -> Any:
    import cubekit as ck

    return ck.open(inputs.layout("128"))


def labelled_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Extract the series of all labelled pixels."""
    import dask

    from cubekit.batching.extract import extract

    cube = _cube(inputs)
    labels = inputs.labels(cube)
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        samples = extract(cube, labels, progress=False)
    return {"check": float(samples.x.astype("f8").mean()), "series": len(samples)}


def labelled_xarray(inputs: Inputs, clock: Clock) -> Facts:
    """Index the lazy cube at the labelled pixels, all at once."""
    import dask
    import xarray as xr

    rows, columns = np.nonzero(inputs.labels(_cube(inputs))["label"].to_numpy() >= 0)
    at = {"y": xr.DataArray(rows, dims="n"), "x": xr.DataArray(columns, dims="n")}
    cube = _plain(inputs, {})
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        x = cube.isel(at).transpose("n", "time", "band").to_numpy()
    return {"check": _seen(x), "series": len(x)}


def labelled_xbatcher(inputs: Inputs, clock: Clock) -> Facts:
    """Walk over all patches and take the labelled pixels of each."""
    import xbatcher

    wanted = inputs.labels(_cube(inputs))["label"] >= 0
    cube = _plain(inputs).to_dataset(name="data").assign(wanted=wanted.reset_coords(drop=True).load())
    found = []
    with clock:
        for patch in xbatcher.BatchGenerator(cube, input_dims=_patch_dims(cube)):
            inside = patch["wanted"].to_numpy()
            found.append(patch["data"].to_numpy()[:, :, inside].transpose(2, 0, 1))
    x = np.concatenate(found)
    return {"check": _seen(x), "series": len(x)}


def _seen(x: Any) -> float:
    """Return the mean of those series that hold any data, as `extract` leaves out the others."""
    return float(x[(x != 0).any(axis=(1, 2))].astype("f8").mean())


def _patch_dims(cube: Any) -> dict[str, int]:
    return {"time": cube.sizes["time"], "band": cube.sizes["band"], "y": PATCH, "x": PATCH}


def dense_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Stream the series of all pixels in shuffled batches, as stored numbers."""
    from cubekit.batching.torch import batches

    cube = _cube(inputs)
    next(iter(batches(cube.isel(y=slice(64), x=slice(64)), "pixels", stored=True)))
    total = pixels = 0
    with clock:
        for each in batches(cube, "pixels", batch=BATCH, shuffle=True, stored=True):
            total, pixels = total + int(each["x"][:, 0, 0].long().sum()), pixels + len(each["x"])
    return _rate(clock, total, pixels)


def dense_xbatcher(inputs: Inputs, clock: Clock) -> Facts:
    """Cut tiles of 64 pixels in shuffled order and flatten each: its pixels are a batch."""
    import torch
    import xbatcher

    generator = xbatcher.BatchGenerator(_plain(inputs), input_dims=_patch_dims(_plain(inputs)))
    order = np.random.default_rng(0).permutation(len(generator)).tolist()
    total = pixels = 0
    with clock:
        for number in order:
            values = generator[number].transpose("y", "x", "time", "band").to_numpy()
            x = torch.from_numpy(np.ascontiguousarray(values.reshape(-1, *values.shape[2:])))
            total, pixels = total + int(x[:, 0, 0].long().sum()), pixels + len(x)
    return _rate(clock, total, pixels)


def stacked_xbatcher(inputs: Inputs, clock: Clock) -> Facts:
    """Stack rows and columns into samples and cut batches of them: a corner only, it takes long."""
    import xbatcher

    corner = _plain(inputs, {}).isel(y=slice(128), x=slice(128))
    stacked = corner.drop_vars(["spatial_ref"], errors="ignore").stack(sample=("y", "x"))
    sizes = {"sample": BATCH, "time": stacked.sizes["time"], "band": stacked.sizes["band"]}
    total = pixels = 0
    with clock:
        for each in xbatcher.BatchGenerator(stacked, input_dims=sizes, preload_batch=False):
            x = each.transpose("sample", "time", "band").to_numpy()
            total, pixels = total + int(x[:, 0, 0].astype("i8").sum()), pixels + len(x)
    facts = dict(_rate(clock, total, pixels))
    del facts["check"]  # of a corner
    return facts


def dense_bare(inputs: Inputs, clock: Clock) -> Facts:
    """Read all chunks in order, without making series of them: the limit."""
    import zarr

    array: Any = zarr.open_group(inputs.layout("128"), mode="r")["data"]
    with clock:
        values = np.asarray(array[:])
    return _rate(clock, int(values[0, 0].astype("i8").sum()), values.shape[2] * values.shape[3])


def _rate(clock: Clock, total: float, pixels: int) -> Facts:
    cpu, wall = clock.facts["cpu"], clock.facts["wall"]
    return {
        "check": total / pixels,
        "us": wall / pixels * 1e6,
        "cpu_us": cpu / pixels * 1e6,
        "kpx_per_s": pixels / wall / 1e3,
        "kpx_per_cpu_s": pixels / cpu / 1e3,
    }


ROWS = {
    "series-labelled": Row(
        title="Series of all labelled pixels, from a store",
        cases={
            "cubekit": labelled_cubekit,
            "xarray pointwise": labelled_xarray,
            "xbatcher patches": labelled_xbatcher,
        },
        bars=(Bar(text="over xbatcher (issue 12)", against=("xbatcher patches",), at_least=4),),
        shown=("series",),
    ),
    "series-dense": Row(
        title="Every pixel as a series, shuffled batches of 4096 (us: of one series)",
        cases={
            "cubekit": dense_cubekit,
            "xbatcher tiles": dense_xbatcher,
            "xbatcher stacked": stacked_xbatcher,
            "zarr, whole": dense_bare,
        },
        bars=(
            Bar(
                text="over xbatcher (issue 12)",
                measure="us",
                against=("xbatcher tiles", "xbatcher stacked"),
                at_least=4,
            ),
            Bar(text="of a sequential read (issue 12)", measure="us", against=("zarr, whole",), at_least=0.7),
            Bar(text="1,000 series per core-second (issue 5)", measure="kpx_per_cpu_s", at_least=200),
        ),
        shown=("kpx_per_s", "kpx_per_cpu_s"),
        unit="us",
        unit_cpu="cpu_us",
    ),
}
