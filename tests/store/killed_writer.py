"""Run by tests: writes a cube in forked children and kills them at chosen file operations or moments.

Each line on standard input is ``<command> <number> <overwrite>``: ``step 17 0`` kills a writer just before
its 17th operation on files below the folder, ``after 0.3 0`` kills it after 0.3 seconds, ``limit 9000 0``
lets no file grow above 9,000 bytes, as a full disk would, ``whole 0 0`` lets it finish. The last number is 1
to replace what is there, and 2 to append dates to it. Answers ``killed``, or ``done <operations or error>``.
"""

import os
import resource
import signal
import sys
import time
from itertools import count
from pathlib import Path

import dask.array as da
import distributed  # noqa: F401  (here, or each child would load it anew)
import numpy as np
import xarray as xr

from cubekit.store.append import append
from cubekit.store.write import write

FOLDER = Path(sys.argv[1])
SEED = int(sys.argv[2])
APPEND = 2
EVENTS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}


def cube(*times: str, seed: int = SEED) -> xr.Dataset:
    """Return a lazy cube of 16 source chunks, 6 regions and 12 objects."""
    data = np.random.default_rng(seed).integers(0, 5000, (len(times), 2, 120, 160)).astype("uint16")
    lazy = da.from_array(data, chunks=(-1, 2, 30, 40))  # type: ignore[no-untyped-call]
    lazy = lazy.map_blocks(slow, dtype="uint16", name=f"slow-{seed}")
    return xr.Dataset(
        {"data": (("time", "band", "y", "x"), lazy), "first": (("y", "x"), lazy[0, 0])},
        coords={"time": np.array(times, "datetime64[ns]"), "band": ["red", "nir"]},
    )


def slow(block: np.ndarray) -> np.ndarray:
    """Take a moment, as reading does."""
    time.sleep(0.01)
    return block


def work(answer: int, *, step: int, limit: int, mode: int) -> None:
    """Write in a child, killing it before an operation; send the number of operations."""
    seen = count(1)
    last = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal last
        if event in EVENTS and str(FOLDER) in str(arguments[0]):
            last = next(seen)
            if last == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if mode == APPEND:  # one date in the middle, one at the end
        append(cube("2020-02-15", "2020-04-01", seed=SEED + 10), FOLDER / "a.zarr", workers=2)
    else:
        first = cube("2020-01-01", "2020-02-01", "2020-03-01")
        write(first, FOLDER / "a.zarr", layout={"y": (15, 60), "x": (15, 60)}, workers=2, overwrite=mode == 1)
    os.write(answer, str(last).encode())
    os._exit(0)


for line in sys.stdin:
    command, number, mode = line.split()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  # progress lines
        try:
            step, limit = (int(number) if command == name else 0 for name in ("step", "limit"))
            work(writer, step=step, limit=limit, mode=int(mode))
        except BaseException as error:  # noqa: BLE001  # the parent reports it
            os.write(writer, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(writer)
    if command == "after":
        time.sleep(float(number))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 5000).decode().replace("\n", " ")
    os.close(reader)
    sys.stdout.write("killed\n" if os.WIFSIGNALED(status) else f"done {said}\n")
    sys.stdout.flush()
