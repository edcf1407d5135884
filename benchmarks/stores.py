"""Write, read and verify a store beside other libraries and the bare loop: same chunks, same codec."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.composite import scratch
from benchmarks.inputs import Inputs, check
from benchmarks.measure import Bar, Case, Clock, Facts, Row, workers
from cubekit.typing import Array

Window = tuple[slice, ...]


def _windows(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Window]:
    ranges = [range(0, size, side) for size, side in zip(shape, sides, strict=True)]
    for corner in product(*ranges):
        yield tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))


def _codec() -> Any:
    from numcodecs import Blosc

    return Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)


def _write_bare(values: Array, layout: Any, folder: Path) -> None:
    """Compress and write: one file a shard, chunks with checksums one after another."""
    from google_crc32c import value as crc32c

    codec = _codec()

    def write(number_window: tuple[int, Window]) -> None:
        number, window = number_window
        block, parts = values[window], []
        for inner in _windows(block.shape, layout.chunks):
            chunk = block[inner]
            full = np.zeros(layout.chunks, chunk.dtype)  # chunks at the edge are stored whole, as in Zarr
            full[tuple(slice(size) for size in chunk.shape)] = chunk
            packed = codec.encode(full)
            parts += [packed, int(crc32c(packed)).to_bytes(4, "little")]
        (folder / str(number)).write_bytes(b"".join(parts))

    with ThreadPoolExecutor(workers()) as pool:
        list(pool.map(write, enumerate(_windows(values.shape, layout.objects))))


def _cube(inputs: Inputs) -> Any:
    """Return the cube in memory, cut into lazy blocks as a computation would deliver them."""
    return inputs.store().load().chunk({"y": 512, "x": 512})


def write_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Write with ledger, digests and completion mark, flushed to the disk."""
    import cubekit as ck

    cube = _cube(inputs)
    with scratch(inputs) as folder:
        ck.write(cube.isel(y=slice(64), x=slice(64)), folder / "warm.zarr", progress=False)
        with clock:
            ck.write(cube, folder / "out.zarr", layout="series", workers=workers(), progress=False)
        return _sized(folder / "out.zarr", cube)


def _plain_store(folder: Path, cube: Any) -> Any:
    """Make an empty array with the same codec, chunks and shards."""
    import zarr

    from cubekit.store.layout import codecs, plan_layout

    layout = plan_layout(cube, "series")["data"]
    array: Any = zarr.create_array(
        folder,
        shape=cube["data"].shape,
        chunks=layout.chunks,
        shards=layout.shards,
        dtype="uint16",
        compressors=codecs(),
    )
    return array, layout


def _pipeline(name: str | None) -> None:
    """Choose the codec pipeline of zarr-python."""
    if name == "zarrs":
        import zarr
        import zarrs  # type: ignore[import-not-found]  # noqa: F401

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def write_zarr(pipeline: str | None = None) -> Case:
    """Write by zarr-python, a shard in each of two threads."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        _pipeline(pipeline)
        cube = _cube(inputs)
        values = cube["data"].to_numpy()
        with scratch(inputs) as folder:
            array, layout = _plain_store(folder / "out.zarr", cube)

            def write(window: Window) -> None:
                array[window] = values[window]

            with clock, ThreadPoolExecutor(workers()) as pool:
                list(pool.map(write, _windows(values.shape, layout.objects)))
            return _sized(folder / "out.zarr", cube)

    return case


def write_tensorstore(inputs: Inputs, clock: Clock) -> Facts:
    """Write by tensorstore into an array that zarr-python has made."""
    cube = _cube(inputs)
    values = cube["data"].to_numpy()
    with scratch(inputs) as folder:
        _, layout = _plain_store(folder / "out.zarr", cube)
        array = _tensorstore(folder / "out.zarr")
        with clock, ThreadPoolExecutor(workers()) as pool:
            windows = (_within(window, values.shape) for window in _windows(values.shape, layout.objects))
            list(pool.map(lambda window: array[window].write(values[window]).result(), windows))
        return _sized(folder / "out.zarr", cube)


def _within(window: Window, shape: tuple[int, ...]) -> Window:
    """Cut a window off at the edge of the array, which tensorstore wants."""
    return tuple(slice(part.start, min(part.stop, n)) for part, n in zip(window, shape, strict=True))


def _tensorstore(folder: Path) -> Any:
    import tensorstore  # type: ignore[import-not-found]

    place = {"driver": "file", "path": str(folder)}
    threads = {"data_copy_concurrency": {"limit": workers()}}
    return tensorstore.open({"driver": "zarr3", "kvstore": place, "context": threads}).result()


def write_bare(inputs: Inputs, clock: Clock) -> Facts:
    """Compress and write the same chunks from memory."""
    from cubekit.store.layout import plan_layout

    cube = _cube(inputs)
    values, layout = cube["data"].to_numpy(), plan_layout(cube, "series")["data"]
    with scratch(inputs) as folder:
        with clock:
            _write_bare(values, layout, folder)
        return _sized(folder, cube)


def _sized(folder: Path, cube: Any) -> Facts:
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"cube_mb": cube["data"].nbytes / 1e6, "stored_mb": stored / 1e6}


def read_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Open the store and load it."""
    import dask

    inputs.store().isel(y=slice(64), x=slice(64)).compute()
    with clock, dask.config.set(scheduler="threads", num_workers=workers()):
        values = inputs.store()["data"].to_numpy()
    return {"check": check(values)}


def load_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Open the store and load it, every chunk straight to its place."""
    import cubekit as ck

    ck.load(inputs.store().isel(y=slice(64), x=slice(64)), workers=workers())
    with clock:
        values = ck.load(inputs.store(), workers=workers())["data"].to_numpy()
    return {"check": check(values)}


def read_zarr(pipeline: str | None = None) -> Case:
    """Read the same store by zarr-python, in one call."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import zarr

        _pipeline(pipeline)
        path = inputs.folder / "cube.zarr"
        np.asarray(zarr.open_group(path, mode="r")["data"][..., :64, :64])  # type: ignore[index]
        with clock:
            array: Any = zarr.open_group(path, mode="r")["data"]
            values = np.asarray(array[:])
        return {"check": check(values)}

    return case


def read_tensorstore(inputs: Inputs, clock: Clock) -> Facts:
    """Read the same store by tensorstore."""
    path = inputs.folder / "cube.zarr" / "data"
    _tensorstore(path)[..., :64, :64].read().result()
    with clock:
        values = _tensorstore(path).read().result()
    return {"check": check(values)}


def read_bare(inputs: Inputs, clock: Clock) -> Facts:
    """Read and decompress the same chunks, written by the bare loop, checksums left out."""
    from cubekit.store.layout import plan_layout

    cube = _cube(inputs)
    whole, layout, codec = cube["data"].to_numpy(), plan_layout(cube, "series")["data"], _codec()
    out = np.empty_like(whole)

    def read(number_window: tuple[int, Window]) -> None:
        number, window = number_window
        raw, block, start = (folder / str(number)).read_bytes(), out[window], 0
        for inner in _windows(block.shape, layout.chunks):
            size = int.from_bytes(raw[start + 12 : start + 16], "little")  # Blosc's header holds it
            part = block[inner]
            values = np.frombuffer(codec.decode(raw[start : start + size]), whole.dtype)
            part[...] = values.reshape(layout.chunks)[tuple(slice(side) for side in part.shape)]
            start += size + 4

    with scratch(inputs) as folder:
        _write_bare(whole, layout, folder)
        with clock, ThreadPoolExecutor(workers()) as pool:
            list(pool.map(read, enumerate(_windows(whole.shape, layout.objects))))
    return {"check": check(out)}


def verify_cubekit(inputs: Inputs, clock: Clock) -> Facts:
    """Compare every object of the store with its digest."""
    import cubekit as ck

    with scratch(inputs) as folder:
        ck.write(inputs.store().isel(y=slice(64), x=slice(64)), folder / "warm.zarr", progress=False)
        ck.verify(folder / "warm.zarr", progress=False)
    with clock:
        report = ck.verify(inputs.folder / "cube.zarr", progress=False)
    return {"damaged": float(len(report.damaged))}


def verify_bare(inputs: Inputs, clock: Clock) -> Facts:
    """Read every file of the store and take its CRC-32, as the ledger does."""
    import zlib

    def digest(path: Path) -> int:
        return zlib.crc32(path.read_bytes())

    with clock, ThreadPoolExecutor(workers()) as pool:
        files = [path for path in (inputs.folder / "cube.zarr").rglob("*") if path.is_file()]
        list(pool.map(digest, files))
    return {"damaged": 0}


def _lazy(times: int, side: int) -> Any:
    """Return a lazy cube of two bands that costs nothing to compute, 12 dates and 512 px a block."""
    import dask.array as da
    import xarray as xr

    def block(block_info: Any = None) -> Array:
        found = block_info[None]
        grid = np.add.outer(np.arange(found["chunk-shape"][2]), np.arange(found["chunk-shape"][3]))
        plane = (grid * (found["chunk-location"][2] + 1)).astype("uint16")
        return np.broadcast_to(plane, found["chunk-shape"]).copy()

    cuts = da.empty((times, 2, side, side), chunks=(12, 2, 512, 512)).chunks
    lazy = da.map_blocks(block, chunks=cuts, dtype="uint16", meta=np.empty((0, 0, 0, 0), "uint16"))  # type: ignore[no-untyped-call]
    return xr.Dataset({"data": (("time", "band", "y", "x"), lazy)})


def _memory_case(times: int, side: int) -> Any:
    """Return a case that writes such a cube with a budget of 400 MB."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import cubekit as ck
        from cubekit.store.layout import plan_layout

        cube = _lazy(times, side)
        layout = plan_layout(cube, "series", memory="400MB")
        with scratch(inputs) as folder:
            small = cube.isel(y=slice(64), x=slice(64))
            ck.write(small, folder / "warm.zarr", progress=False)
            with clock:
                ck.write(cube, folder / "out.zarr", layout=layout, workers=workers(), progress=False)
            return {"cube_mb": cube["data"].nbytes / 1e6}

    return case


def _flat(case: str) -> Bar:
    return Bar(
        text=f"Memory of {case} at most 1.25 of that of the smallest (issue 4)",
        measure="peak_mb", case=case, against=("24 dates, 1024 px",), at_least=0.8,
    )  # fmt: skip


ROWS = {
    "store-memory": Row(
        title="Store: peak memory of a build, budget 400 MB, at 1, 4 and 16 times the area and dates",
        cases={
            "24 dates, 1024 px": _memory_case(24, 1024),
            "24 dates, 2048 px": _memory_case(24, 2048),
            "24 dates, 4096 px": _memory_case(24, 4096),
            "96 dates, 1024 px": _memory_case(96, 1024),
            "384 dates, 1024 px": _memory_case(384, 1024),
        },
        bars=(_flat("24 dates, 4096 px"), _flat("384 dates, 1024 px")),
        shown=("cube_mb",),
    ),
    "store-write": Row(
        title="Store: write a cube from memory, layout for series",
        cases={
            "cubekit": write_cubekit,
            "zarr-python": write_zarr(),
            "zarrs": write_zarr("zarrs"),
            "tensorstore": write_tensorstore,
            "bare loop": write_bare,
        },
        bars=(Bar(text="of the bare loop (issue 4)", against=("bare loop",), at_least=0.8),),
        shown=("cube_mb", "stored_mb"),
    ),
    "store-read": Row(
        title="Store: read it back into memory",
        cases={
            "cubekit": read_cubekit,
            "cubekit, load": load_cubekit,
            "zarr-python": read_zarr(),
            "zarrs": read_zarr("zarrs"),
            "tensorstore": read_tensorstore,
            "bare loop": read_bare,
        },
    ),
    "store-verify": Row(
        title="Store: verify every object",
        cases={"cubekit": verify_cubekit, "bare CRC-32": verify_bare},
        shown=("damaged",),
    ),
}
