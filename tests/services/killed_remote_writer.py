"""Run by tests: forks writers to an object store and kills them after a time; options lie in the environment.

Each line on standard input is ``<seconds> <seed>``; 0 seconds lets the writer finish. Answers ``killed``, or
``done <error>``. The parent never connects, so that each fork starts with connections of its own.
"""

import os
import signal
import sys
import time

import dask.array as da
import numpy as np
import xarray as xr

from cubekit.store.write import write


def cube(seed: int) -> xr.Dataset:
    """Return a lazy cube of 16 source chunks and 16 regions."""
    data = np.random.default_rng(seed).integers(0, 5000, (3, 2, 120, 160)).astype("uint16")
    lazy = da.from_array(data, chunks=(3, 2, 30, 40))  # type: ignore[no-untyped-call]
    lazy = lazy.map_blocks(slow, dtype="uint16", name=f"slow-{seed}")
    times = np.array(["2020-01-01", "2020-02-01", "2020-03-01"], dtype="datetime64[ns]")
    return xr.Dataset({"data": (("time", "band", "y", "x"), lazy)}, coords={"time": times})


def slow(block: np.ndarray) -> np.ndarray:
    """Take a moment, as reading does."""
    time.sleep(0.02)
    return block


for line in sys.stdin:
    seconds, seed = line.split()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(
                cube(int(seed)), sys.argv[1], layout={"y": (15, 30), "x": (20, 40)}, workers=2, overwrite=True
            )
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  # the parent reports it
            os.write(writer, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(writer)
    if float(seconds):
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 5000).decode().replace("\n", " ")
    os.close(reader)
    sys.stdout.write("killed\n" if os.WIFSIGNALED(status) else f"done {said}\n")
    sys.stdout.flush()
