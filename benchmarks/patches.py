"""Row 7: shuffled patches from a store, in chunks of several sizes."""

from typing import Any

import numpy as np

from benchmarks.inputs import Inputs
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers

PATCH, BATCH, SOME = 64, 32, 32
LAYOUTS: dict[str, dict[str, int]] = {
    "256": {"y": 256, "x": 256},
    "128": {"y": 128, "x": 128},
    "scene": {"time": 1, "band": 1},
}


def _folder(inputs: Inputs, layout: str) -> Any:
    """Return the store in a layout; written once."""
    import cubekit as ck

    path = inputs.folder / f"patches-{layout}.zarr"
    if not path.exists():
        ck.write(inputs.store()[["data"]], path, layout=LAYOUTS[layout])
    return path


def _cubekit(layout: str) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Stream all patches, shuffled, as stored numbers."""
        import cubekit as ck
        from cubekit.batching.patches import PatchPlan
        from cubekit.batching.torch import batches  # loads torch, as the others do before the clock

        cube = ck.open(_folder(inputs, layout))
        plan = PatchPlan(cube, PATCH, edge="drop")
        count = values = 0
        with clock:
            for each in batches(cube, plan, shuffle=True, stored=True):
                count, values = count + len(each["x"]), values + each["x"].numel()
        return _rates(clock, count, values // count)

    return case


def _xbatcher(layout: str) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Load some patches, drawn at random, through xbatcher's dataset: all would take too long."""
        import dask
        import torch
        import xarray as xr
        import xbatcher
        from xbatcher.loaders.torch import MapDataset

        data = xr.open_zarr(_folder(inputs, layout), mask_and_scale=False)["data"]
        sizes = {"time": data.sizes["time"], "band": data.sizes["band"], "y": PATCH, "x": PATCH}
        patches = MapDataset(xbatcher.BatchGenerator(data, input_dims=sizes, preload_batch=False))
        chosen = np.random.default_rng(0).permutation(len(patches))[:SOME].tolist()
        with clock, dask.config.set(scheduler="threads", num_workers=workers()):
            loader = torch.utils.data.DataLoader(patches, batch_size=BATCH, sampler=chosen)
            count = values = 0
            for each in loader:
                count, values = count + len(each), values + each.numel()
        return _rates(clock, count, values // count)

    return case


def _whole(layout: str) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Read the whole array in one call, in order: what the disk and the codec allow."""
        import zarr

        array = zarr.open_group(_folder(inputs, layout), mode="r")["data"]
        with clock:
            size = np.asarray(array[:]).size
        values = array.shape[0] * array.shape[1] * PATCH**2
        return _rates(clock, size // values, values)

    return case


def _rates(clock: Clock, count: int, values: int) -> Facts:
    cpu, wall = clock.facts["cpu"], clock.facts["wall"]
    # that patches are bit for bit the same is tested in tests/batching; here all must weigh the same
    return {"check": float(values), "cpu_ms": cpu / count * 1e3, "ms": wall / count * 1e3}


def _row(layout: str, factor: float) -> Row:
    less = f"{factor:.0f} x less CPU (issue 5)"
    bars = [Bar(text=less, measure="cpu_ms", against=("xbatcher",), at_least=factor)]
    if layout != "scene":
        text = "0.7 x a sequential read (issue 12)"
        bars.append(Bar(text=text, measure="ms", against=("zarr, whole",), at_least=0.7))
    return Row(
        title=f"Shuffled patches of 64 px, chunks: {layout}",
        cases={"cubekit": _cubekit(layout), "xbatcher": _xbatcher(layout), "zarr, whole": _whole(layout)},
        bars=tuple(bars),
        shown=("cpu_ms", "ms"),
    )


ROWS = {f"patches-{layout}": _row(layout, least) for layout, least in (("256", 8), ("128", 3), ("scene", 50))}
