"""Shuffled patches from a store, in chunks of several sizes."""

from typing import Any

import numpy as np

from benchmarks.geo_samplers import with_torchgeo
from benchmarks.inputs import LAYOUTS, Inputs
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers

PATCH, BATCH, SOME = 64, 32, 32


def _cubekit(layout: str) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Stream all patches, shuffled, as stored numbers."""
        import cubekit as ck
        from cubekit.batching.patches import PatchPlan
        from cubekit.batching.torch import batches  # loads torch, as the others do before the clock

        cube = ck.open(inputs.layout(layout))
        plan = PatchPlan(cube, PATCH, edge="drop")
        count = values = 0
        with clock:
            for each in batches(cube, plan, batch=BATCH, shuffle=True, stored=True):
                count, values = count + len(each["x"]), values + each["x"].numel()
        return _rates(clock, count, values // count)

    return case


def _xbatcher(layout: str, chunks: dict[str, int] | None) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Load some patches, drawn at random, through xbatcher's dataset: all would take too long."""
        import dask
        import torch
        import xarray as xr
        import xbatcher
        from xbatcher.loaders.torch import MapDataset

        data = xr.open_zarr(inputs.layout(layout), mask_and_scale=False, chunks=chunks)["data"]
        sizes = {"time": data.sizes["time"], "band": data.sizes["band"], "y": PATCH, "x": PATCH}
        patches = MapDataset(xbatcher.BatchGenerator(data, input_dims=sizes, preload_batch=False))
        some = SOME // 4 if layout == "scene" else SOME
        chosen = np.random.default_rng(0).permutation(len(patches))[:some].tolist()
        with clock, dask.config.set(scheduler="threads", num_workers=workers()):
            loader = torch.utils.data.DataLoader(patches, batch_size=BATCH, sampler=chosen)
            count = values = 0
            for each in loader:
                count, values = count + len(each), values + each.numel()
        return _rates(clock, count, values // count)

    return case


def _torchgeo(inputs: Inputs, clock: Clock) -> Facts:
    return with_torchgeo(inputs, clock, PATCH)


def _whole(layout: str) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Read the whole array in one call, in order: what the disk and the codec allow."""
        import zarr

        array: Any = zarr.open_group(inputs.layout(layout), mode="r")["data"]
        with clock:
            size = np.asarray(array[:]).size
        values = array.shape[0] * array.shape[1] * PATCH**2
        return _rates(clock, size // values, values)

    return case


def _rates(clock: Clock, count: int, values: int) -> Facts:
    cpu, wall = clock.facts["cpu"], clock.facts["wall"]
    # that patches are bit for bit the same is tested in tests/batching; here all must weigh the same
    return {
        "check": float(values),
        "patches_per_s": count / wall,
        "cpu_ms": cpu / count * 1e3,
        "ms": wall / count * 1e3,
    }


def _spread(chunk: int) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Count the shuffle's design effect for a whole Sentinel-2 tile: the order alone, nothing is read."""
        import dask.array as da
        import xarray as xr

        from cubekit.batching.patches import PatchPlan
        from cubekit.batching.torch import batches

        store = inputs.store()
        side, lead = 10240, store["data"].shape[:2]
        lazy = da.zeros((*lead, side, side), chunks=(*lead, chunk, chunk), dtype="uint16")
        x0, y0 = (float(store[axis][0]) for axis in ("x", "y"))
        places = {"x": x0 + 10.0 * np.arange(side), "y": y0 - 10.0 * np.arange(side)}
        coords = {name: store[name] for name in ("time", "band", "spatial_ref")} | places
        data = xr.DataArray(lazy, coords, ("time", "band", "y", "x"), attrs=store["data"].attrs)
        cube = xr.Dataset({"data": data})
        with clock:
            stream = batches(cube, PatchPlan(cube, PATCH), batch=BATCH, shuffle=True)
            found = stream.stream.spread()
        return {"design_effect": found}

    return case


def _row(layout: str, less: float, faster: float) -> Row:
    peers = ("xbatcher", "xbatcher on dask")
    bars = [
        Bar(text="over best peer, a patch (issue 12)", measure="ms", against=peers, at_least=faster),
        Bar(
            text="less CPU than best peer, a patch (issue 5)", measure="cpu_ms", against=peers, at_least=less
        ),
        Bar(
            text="of a sequential read (issues 5 and 12)",
            measure="ms",
            against=("zarr, whole",),
            at_least=0.8,
        ),
    ]
    return Row(
        title=f"Shuffled patches of {PATCH} px, chunks: {_NAMES[layout]} (ms: of one patch)",
        cases={
            "cubekit": _cubekit(layout),
            "xbatcher": _xbatcher(layout, None),
            "xbatcher on dask": _xbatcher(layout, {}),
            **({"torchgeo, from the scenes": _torchgeo} if layout == "128" else {}),
            "zarr, whole": _whole(layout),
        },
        bars=tuple(bars),
        shown=("patches_per_s", "ms", "cpu_ms"),
        unit="ms",
        unit_cpu="cpu_ms",
    )


_NAMES = {"256": "24 x 10 x 256", "128": "24 x 10 x 128", "scene": "one scene"}
_WANTED = {"256": (8, 8), "128": (3, 4), "scene": (50, 50)}
ROWS = {f"patches-{layout}": _row(layout, *_WANTED[layout]) for layout in LAYOUTS} | {
    "patches-spread": Row(
        title=f"Order of the patches of a Sentinel-2 tile, batches of {BATCH}, default buffer",
        cases={"cubekit": _spread(128), "cubekit, chunks of 256": _spread(256)},
        bars=tuple(
            Bar(
                text=f"design effect, chunks of {side} (issue 5)",
                measure="design_effect",
                case=case,
                at_most=1.5,
            )
            for side, case in ((128, "cubekit"), (256, "cubekit, chunks of 256"))
        ),
        shown=("design_effect",),
    )
}
