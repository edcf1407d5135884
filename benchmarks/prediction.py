"""Networks over a scene, from store to store: a series network, a U-Net, a ConvLSTM-UNet."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.composite import scratch
from benchmarks.inputs import BANDS, PAST, Inputs
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers
from cubekit.typing import Array

BATCH, TILE = 1024, 256


@dataclass(frozen=True)
class Job:
    """A network and the part of the cube it sees."""

    name: str
    title: str
    side: int
    layer: str
    depth: int = 0
    """Pixels that a user of `map_overlap` gives each block from its neighbours."""

    def part(self, cube: Any) -> Any:
        """Return what is predicted: a corner of the cube; of the ConvLSTM the dates and the band it takes."""
        corner = cube.isel(y=slice(self.side), x=slice(self.side))
        one_band = self.name == "convlstm_unet"
        return corner.isel(time=slice(PAST), band=[BANDS.index("B08")]) if one_band else corner


def with_cubekit(job: Job) -> Case:
    """Predict into a resumable store."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import cubekit as ck

        model, cube = inputs.model(job.name), job.part(inputs.store())

        def build(part: Any, path: Path) -> Any:
            options: dict[str, Any] = {"workers": workers(), "progress": False, "outputs": (job.layer,)}
            return ck.predict(model, part, out=path, **options)[job.layer]

        with scratch(inputs) as folder:
            build(cube.isel(y=slice(64), x=slice(64)), folder / "warm.zarr")
            with clock:
                found = build(cube, folder / "map.zarr")
            return _facts(clock, found.to_numpy())

    return case


def with_dask(job: Job, threads: int | None) -> Case:
    """Map the network over Dask blocks and write by xarray; torch keeps its threads, or gets so many."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import dask
        import torch
        import xarray as xr

        if threads:
            torch.set_num_threads(threads)
        build = _on_blocks if job.depth else _on_series
        run = build(job, inputs)
        with scratch(inputs) as folder:
            run(64, folder / "warm.zarr")
            with clock, dask.config.set(scheduler="threads", num_workers=workers()):
                run(job.side, folder / "map.zarr")
            return _facts(clock, xr.open_zarr(folder / "map.zarr")[job.layer].to_numpy())

    return case


def _on_series(job: Job, inputs: Inputs) -> Callable[[int, Path], None]:
    """Classify by ``xarray.apply_ufunc``, a batch of series at a time."""
    import xarray as xr

    ready, network = _preparation(inputs, job)

    def classify(x: Array) -> Array:
        import torch

        flat = torch.from_numpy(np.ascontiguousarray(x.reshape(-1, *x.shape[2:]), dtype="float32"))
        with torch.no_grad():
            parts = [network(ready(flat[i : i + BATCH])).argmax(dim=1) for i in range(0, len(flat), BATCH)]
        return torch.cat(parts).numpy().astype("uint8").reshape(x.shape[:2])

    def run(side: int, path: Path) -> None:
        data = job.part(xr.open_zarr(inputs.folder / "cube.zarr")["data"]).isel(y=slice(side), x=slice(side))
        found = xr.apply_ufunc(
            classify,
            data.chunk({"time": -1, "band": -1, "y": TILE, "x": TILE}),
            input_core_dims=[["time", "band"]],
            dask="parallelized",
            output_dtypes=["uint8"],
        )
        found.drop_attrs().drop_encoding().to_dataset(name="class").to_zarr(path, consolidated=False)

    return run


def _on_blocks(job: Job, inputs: Inputs) -> Callable[[int, Path], None]:
    """Predict by ``dask.array.map_overlap``, blocks of 256 pixels with a margin."""
    import dask.array as da
    import xarray as xr

    ready, network = _preparation(inputs, job)
    kind = "uint8" if job.layer == "class" else "float32"

    def block(x: Array) -> Array:
        import torch

        window = torch.from_numpy(np.ascontiguousarray(x, dtype="float32"))[None]
        with torch.no_grad():
            values = network(ready(window))[0]
        values = values.argmax(dim=0) if job.layer == "class" else values.reshape(x.shape[2:])
        labels: Array = values.numpy().astype(kind)
        return labels

    def run(side: int, path: Path) -> None:
        data = job.part(xr.open_zarr(inputs.folder / "cube.zarr")["data"]).isel(y=slice(side), x=slice(side))
        lazy = data.chunk({"time": -1, "band": -1, "y": TILE, "x": TILE}).data
        margins = {2: job.depth if side > TILE else 0, 3: job.depth if side > TILE else 0}
        padded = da.overlap.overlap(lazy, margins, boundary="reflect")  # type: ignore[no-untyped-call]
        found = padded.map_blocks(block, drop_axis=(0, 1), dtype=kind)
        trimmed = da.overlap.trim_overlap(  # type: ignore[no-untyped-call]
            found, {0: margins[2], 1: margins[3]}, boundary="reflect"
        )
        xr.Dataset({job.layer: (("y", "x"), trimmed)}).to_zarr(path, consolidated=False)

    return run


def _preparation(inputs: Inputs, job: Job) -> tuple[Callable[[Any], Any], Any]:
    """Return what fills gaps and normalises, and the network in evaluation mode."""
    from cubekit.tasks.series import SeriesInput

    model = inputs.model(job.name)
    steps = SeriesInput(model.card.dates(), model.card.normalisation)
    return (lambda x: steps(x)["x"]), model.network.eval()


def bare(job: Job, *, laid_out: bool = False) -> Case:
    """Run the forward pass, norms folded and channels last, over what is in memory already: the limit.

    Images lie band by band as loaders give them, or already as the network wants them, channels last.
    """

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import torch

        from cubekit.cube.contract import to_physical

        ready, network = _preparation(inputs, job)
        values = to_physical(job.part(inputs.store())["data"]).to_numpy().astype("float32")
        with torch.inference_mode():
            x = ready(torch.from_numpy(values)[None])
            if laid_out:
                x = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
        run = (_series_in_memory if not job.depth else _image_in_memory)(network, x)
        run(warm=True)
        with clock:
            pixels = run()
        return {
            "kpx_per_cpu_s": pixels / clock.facts["cpu"] / 1e3,
            "kpx_per_s": pixels / clock.facts["wall"] / 1e3,
        }

    return case


def _series_in_memory(network: Any, x: Any) -> Callable[..., int]:
    """Take batches of series, one thread of torch in each of two workers."""
    import torch

    fused = _series_fused(network)
    series = x[0].permute(2, 3, 0, 1).reshape(-1, *x.shape[1:3]).contiguous()

    def forward(start: int) -> int:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return len(fused(series[start : start + BATCH]).argmax(dim=1))

    def run(*, warm: bool = False) -> int:
        stop = BATCH if warm else len(series)
        with ThreadPoolExecutor(workers()) as pool:
            return sum(pool.map(forward, range(0, stop, BATCH)))

    return run


def _series_fused(network: Any) -> Callable[[Any], Any]:
    """Rewrite a TempCNN as convolutions over (date, 1) images with channels last: the fastest form here."""
    import torch
    from torch import nn

    from cubekit.nn.fold import fold_norms

    folded: Any = fold_norms(network)
    layers: list[nn.Module] = []
    for part in folded.convolutions:
        if isinstance(part, nn.Conv1d):
            size = part.kernel_size[0]
            made = nn.Conv2d(part.in_channels, part.out_channels, (size, 1), padding=(size // 2, 0))
            made.weight.data = part.weight.data[..., None].contiguous(memory_format=torch.channels_last)
            made.bias, width = part.bias, part.out_channels
            layers += [made, nn.ReLU(inplace=True)]
    convolutions = nn.Sequential(*layers)
    dense = next(part for part in folded.dense if isinstance(part, nn.Linear))
    by_date = dense.weight.data.view(dense.out_features, width, -1).transpose(1, 2)
    dense.weight.data = by_date.reshape(dense.out_features, -1).contiguous()

    def forward(x: Any) -> Any:
        found = convolutions(x.transpose(1, 2)[..., None])
        flat = found.permute(0, 2, 3, 1).reshape(len(x), -1)
        return folded.head(torch.relu_(dense(flat)))

    return forward


def _image_in_memory(network: Any, x: Any) -> Callable[..., int]:
    """Take the whole image at once, with all threads of torch: no margins are computed twice."""
    import torch

    from cubekit.nn.fold import fold_norms

    fused = fold_norms(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.set_num_threads(workers())

    def run(*, warm: bool = False) -> int:
        part = x[..., :64, :64] if warm else x
        with torch.inference_mode():
            found = fused(part)
        return int(found.shape[-2] * found.shape[-1])

    return run


def _facts(clock: Clock, values: Array) -> Facts:
    return {
        "check": float(np.nan_to_num(values).astype("f8").mean()),
        "kpx_per_cpu_s": values.size / clock.facts["cpu"] / 1e3,
        "kpx_per_s": values.size / clock.facts["wall"] / 1e3,
    }


def _row(job: Job, *bars: Bar) -> Row:
    usual = "dask map_overlap" if job.depth else "dask apply_ufunc"
    return Row(
        title=f"{job.title} over {job.side} x {job.side} pixels, store to store",
        cases={
            "cubekit": with_cubekit(job),
            usual: with_dask(job, None),
            f"{usual}, torch at 1 thread": with_dask(job, 1),
            "fused forward in RAM": bare(job),
        }
        | ({"the same, input channels last": bare(job, laid_out=True)} if job.depth else {}),
        bars=bars,
        shown=("kpx_per_s", "kpx_per_cpu_s"),
        tolerance=0.02,
    )


def _of_limit(share: float) -> Bar:
    return Bar(
        text="of the fused forward pass in RAM (issue 12)", against=("fused forward in RAM",), at_least=share
    )


_USUAL = Bar(text="over dask as usually written (issue 12)", against=("dask map_overlap",), at_least=2)
ROWS = {
    "predict-tempcnn": _row(
        Job("tempcnn", "TempCNN", 384, "class"),
        _of_limit(0.9),
        Bar(text="over dask apply_ufunc (issue 7)", against=("dask apply_ufunc",), at_least=2),
    ),
    "predict-unet": _row(Job("unet", "U-Net", 512, "class", depth=64), _USUAL, _of_limit(0.8)),
    "predict-convlstm": _row(Job("convlstm_unet", "ConvLSTM-UNet", 256, "value", depth=32), _USUAL),
}
