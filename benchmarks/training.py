"""Steps of a training fed from a store: how long each waits for its data."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.inputs import UNET, Inputs
from benchmarks.measure import Bar, Case, Clock, Facts, Row

PATCH, BATCH, STEPS, CLASSES = 64, 16, 8, 8
SERIES_BATCH, EPOCHS = 128, 4


def _labels(inputs: Inputs) -> Any:
    """Return invented labels on the grid of the cube: learning is not what is measured."""
    import xarray as xr

    like = inputs.store()["data"][0, 0]
    codes = np.random.default_rng(0).integers(0, CLASSES, like.shape)
    return xr.DataArray(codes, {"y": like["y"], "x": like["x"]}, ("y", "x"))


def from_cubekit(inputs: Inputs) -> Iterator[tuple[Any, Any]]:
    """Stream shuffled patches, decoded, with their labels."""
    import cubekit as ck
    from cubekit.batching.patches import PatchPlan
    from cubekit.batching.torch import batches

    cube = ck.open(inputs.layout("128"))
    stream = batches(
        cube, PatchPlan(cube, PATCH, edge="drop"), batch=BATCH, shuffle=True, labels=_labels(inputs), fill=0.0
    )
    while True:  # epoch after epoch
        for batch in stream:
            yield batch["x"], batch["y"]


def from_xbatcher(inputs: Inputs) -> Iterator[tuple[Any, Any]]:
    """Load patches by xbatcher's dataset, with one worker of torch's loader."""
    import torch
    import xarray as xr
    import xbatcher
    from xbatcher.loaders.torch import MapDataset

    data = xr.open_zarr(inputs.layout("128"), mask_and_scale=False, chunks=None)["data"]
    sizes = {"time": data.sizes["time"], "band": data.sizes["band"], "y": PATCH, "x": PATCH}
    patches = MapDataset(xbatcher.BatchGenerator(data, input_dims=sizes, preload_batch=False))
    chosen = np.random.default_rng(0).permutation(len(patches)).tolist()
    loader = torch.utils.data.DataLoader(
        patches, batch_size=BATCH, sampler=chosen, num_workers=1, multiprocessing_context="forkserver"
    )
    while True:
        for x in loader:
            yield x.float() * 1e-4 - 0.1, torch.zeros((len(x), PATCH, PATCH), dtype=torch.int64)


def from_memory(inputs: Inputs) -> Iterator[tuple[Any, Any]]:
    """Give one batch again and again: nothing to wait for."""
    import torch

    del inputs
    x = torch.rand((BATCH, 24, 10, PATCH, PATCH))
    while True:
        yield x, torch.zeros((BATCH, PATCH, PATCH), dtype=torch.int64)


def _case(feed: Any) -> Case:
    def case(inputs: Inputs, clock: Clock) -> Facts:
        """Train a U-Net on its first batches, with one thread of torch; the first one warms up."""
        import torch

        from cubekit.nn import create

        torch.set_num_threads(1)
        network = create("unet", bands=10, steps=24, classes=CLASSES, **UNET)
        optimiser = torch.optim.Adam(network.parameters())
        flow: Iterable[Any] = feed(inputs)
        waited = 0.0
        batches = iter(flow)
        _step(network, optimiser, *next(batches))
        with clock:
            for _ in range(STEPS):
                begin = time.perf_counter()
                x, y = next(batches)
                waited += time.perf_counter() - begin
                _step(network, optimiser, x, y)
        return {
            "wait_percent": 100 * waited / clock.facts["wall"],
            "step_ms": clock.facts["wall"] / STEPS * 1e3,
        }

    return case


def _step(network: Any, optimiser: Any, x: Any, y: Any) -> None:
    import torch

    optimiser.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def fitted(inputs: Inputs, clock: Clock) -> Facts:
    """Train a TempCNN by `fit`, checks, scores and the saved state of each epoch included."""
    import cubekit as ck

    samples = _series(inputs)
    ck.fit("tempcnn", samples, epochs=1, batch=SERIES_BATCH, progress=False)  # warms up
    with clock:
        ck.fit("tempcnn", samples, epochs=EPOCHS, batch=SERIES_BATCH, progress=False)
    return {"kseries_per_s": EPOCHS * len(samples) / clock.facts["wall"] / 1e3}


def by_hand(inputs: Inputs, clock: Clock) -> Facts:
    """Train the same network on the same series with the few lines that torch needs."""
    import torch

    from cubekit.nn import create

    samples = _series(inputs)
    torch.set_num_threads(1)
    x = torch.from_numpy(samples.physical()).nan_to_num(0.0)
    y = torch.from_numpy(samples.y.astype("int64"))
    network = create("tempcnn", bands=x.shape[2], steps=x.shape[1], classes=len(samples.classes))
    optimiser = torch.optim.Adam(network.parameters())
    _step(network, optimiser, x[:SERIES_BATCH], y[:SERIES_BATCH])
    with clock:
        for _ in range(EPOCHS):
            for part in torch.randperm(len(x)).split(SERIES_BATCH):  # type: ignore[no-untyped-call]
                _step(network, optimiser, x[part], y[part])
    return {"kseries_per_s": EPOCHS * len(x) / clock.facts["wall"] / 1e3}


def _series(inputs: Inputs) -> Any:
    """Return random series: how fast is asked, not what is learned."""
    import cubekit as ck
    from cubekit.batching.extract import extract

    store = inputs.store()
    labels = ck.load_labels(inputs.folder / "labels.gpkg", store, column="class", inward=20)
    return extract(store, labels, limit_per_class=400, progress=False)


ROWS = {
    "train-series": Row(
        title=f"{EPOCHS} epochs of a TempCNN on labelled series of 24 dates and 10 bands",
        cases={"cubekit": fitted, "torch by hand": by_hand},
        bars=(
            Bar(
                text="of the bare loop (no bar in the issue; 0.8 taken)",
                against=("torch by hand",),
                at_least=0.8,
            ),
        ),
        shown=("kseries_per_s",),
    ),
    "train-step": Row(
        title=f"{STEPS} training steps of a U-Net, {BATCH} patches of {PATCH} px with 24 dates and 10 bands",
        cases={
            "cubekit": _case(from_cubekit),
            "xbatcher": _case(from_xbatcher),
            "from memory": _case(from_memory),
        },
        bars=(
            Bar(text="per cent of a step that waits for data (issue 12)", measure="wait_percent", at_most=5),
        ),
        shown=("wait_percent", "step_ms"),
    ),
}
