"""What a job will cost, before a byte is read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

from cubekit.cube.blocks import is_lazy
from cubekit.cube.load import open_cube
from cubekit.cube.memory import PROCESS_BYTES, BlockMemory, block_memory, bytes_of
from cubekit.cube.plan import MISSING, Plan
from cubekit.cube.reads import Reads, count_reads
from cubekit.cube.recipe import readers_in
from cubekit.errors import CubeError, OptionError
from cubekit.typing import Array

if TYPE_CHECKING:
    import pystac

_SIDES = (2048, 1024, 512, 256, 128)
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Cost:
    """What computing a cube and writing it will take; ``print`` says it."""

    items: tuple[str, ...]
    """Items of which pixels are read, in the order of their dates."""

    shifts: tuple[int, ...]
    """Added to the stored numbers of each of these items, so that all have one coding."""

    dropped: tuple[str, ...]
    """Items that are not read: they do not touch the grid, or their date is not wanted."""

    missing: int
    """Assets that these items lack."""

    times: Array
    """Dates of the items that are read, datetime64[ns], increasing."""

    shape: tuple[int, ...]
    """Length of the cube that is opened, along time, band, y and x."""

    chunks: tuple[int, ...]
    """Largest block of it."""

    blocks: int
    """Blocks that are read."""

    tasks: int
    """Tasks of the graph, before Dask fuses some."""

    windows: int
    """Windows of files that are read, at most."""

    requests: int
    """Range requests to servers, about; 0 for local files."""

    read_bytes: int
    """Pixels to read, before compression."""

    outputs: Mapping[str, int]
    """Bytes of each variable of the result, before compression."""

    block: BlockMemory
    """What one block takes on its way."""

    workers: int
    """Blocks computed at once."""

    memory: int | None = None
    """Budget, if one was given."""

    @property
    def output_bytes(self) -> int:
        """Bytes of the result, before compression."""
        return sum(self.outputs.values())

    @property
    def peak_memory(self) -> int:
        """Most memory of the process that computes and writes, in bytes.

        ``process + max(workers x working + written, (workers + 1) x written)``: each worker holds one block
        in the heaviest step (input blocks + what the function holds + result) while one more is written; or,
        where writing is slower, all are being written. A result kept whole, as by ``.compute()``, adds to it.
        """
        working, written = self.block.working, self.block.written
        return PROCESS_BYTES + max(self.workers * working + written, (self.workers + 1) * written)

    @property
    def gap(self) -> tuple[np.datetime64, np.datetime64] | None:
        """Dates around the longest time without an observation; None for a single date."""
        if len(self.times) < 2:  # noqa: PLR2004
            return None
        longest = int(np.argmax(np.diff(self.times)))
        return self.times[longest], self.times[longest + 1]

    def fit(self, memory: int | str | None = None) -> dict[str, int]:
        """Choose block sizes that stay within a budget.

        Parameters
        ----------
        memory : int or str, optional
            For the whole process, as bytes or text such as ``"8GB"``. Default: the one given to `plan`.

        Returns
        -------
        dict
            For ``open_cube(chunks=…)``: the largest squares at which whole time axes fit, else squares of 256
            pixels with fewer dates.

        Raises
        ------
        OptionError
            When no budget is known, or it does not even hold one date.
        """
        budget = self.memory if memory is None else bytes_of(memory)
        if budget is None:
            raise OptionError("Which budget? Give memory='8GB', here or to plan.")
        times, _, rows, cols = self.shape
        allowed = budget - PROCESS_BYTES
        # Of one pixel of one date.
        step = (self.peak_memory - PROCESS_BYTES) / (self.chunks[0] * prod(self.chunks[2:]))
        for side in _SIDES:
            y, x = min(side, rows), min(side, cols)
            if y * x * times * step <= allowed:
                return {"time": times, "y": y, "x": x}
        y, x = min(256, rows), min(256, cols)
        dates = int(allowed // (y * x * step))
        if dates < 1:
            least = PROCESS_BYTES + y * x * step
            raise OptionError(
                f"memory={_size(budget)} is too little: {self.workers} workers need {_size(least)} for one "
                f"date of {y} x {x} pixels. Give more, or fewer workers."
            )
        return {"time": min(dates, times), "y": y, "x": x}

    def __str__(self) -> str:
        block, where = self.block, f"about {self.requests:,} requests" if self.requests else "local files"
        working, written = _size(block.working), _size(block.written)
        outputs = ", ".join(f"{name} {_size(size)}" for name, size in self.outputs.items())
        rows = {
            "items": self._items(),
            "dates": self._dates(),
            "missing": f"{self.missing} assets" if self.missing else "",
            "offsets": _offsets(self.shifts),
            "cube": f"{_by(self.shape)} (time, band, y, x) in blocks of {_by(self.chunks)}",
            "work": f"{self.blocks:,} blocks, {self.tasks:,} tasks",
            "reads": f"{_size(self.read_bytes)} before compression, {self.windows:,} windows, {where}",
            "memory": f"{_size(self.peak_memory)} with {self.workers} workers; a block takes {working} in "
            f"{block.step}, {written} while written",
            "result": f"{_size(self.output_bytes)} before compression: {outputs}",
            "budget": self._budget(),
        }
        return "\n".join(f"{name:<9} {text}" for name, text in rows.items() if text)

    def _budget(self) -> str:
        if self.memory is None:
            return ""
        if self.peak_memory <= self.memory:
            return f"{_size(self.memory)} is enough"
        try:
            return f"{_size(self.memory)} is too little: open the cube with chunks={self.fit()}"
        except OptionError as error:
            return str(error)

    def _items(self) -> str:
        more = len(self.dropped) - _SHOWN
        names = ", ".join(self.dropped[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"{len(self.items)} used" + (f", {len(self.dropped)} not: {names}" if self.dropped else "")

    def _dates(self) -> str:
        if self.gap is None:
            return ", ".join(str(time)[:10] for time in self.times) or "none"
        before, after = self.gap
        days = (after - before) / np.timedelta64(1, "D")
        return (
            f"{len(self.times)}, {str(self.times[0])[:10]} to {str(self.times[-1])[:10]}; longest gap "
            f"{days:.3g} days ({str(before)[:10]} to {str(after)[:10]})"
        )


def plan(
    cube: "xr.Dataset | Sequence[pystac.Item]",
    *,
    memory: int | str | None = None,
    workers: int | None = None,
) -> Cost:
    """Say what a job will cost before a byte is read.

    Parameters
    ----------
    cube : xarray.Dataset or sequence of pystac.Item
        From :func:`cubekit.cube.load.open_cube`, and whatever was done to it since: composites, filled gaps,
        indices, parts. Items are opened with the defaults of ``open_cube`` first.
    memory : int or str, optional
        Budget of the process, as bytes or text such as ``"8GB"``; block sizes are suggested where it is too
        little.
    workers : int, optional
        Blocks computed at once, as for ``write``. Default: one for each core.

    Returns
    -------
    Cost
        Peak memory is an estimate; six shapes measured took from 9 % less to 18 % more.

    Raises
    ------
    CubeError
        For a dataset in memory, or one that was not opened from items.
    OptionError
        For `workers` below one, or a budget that is none.

    Notes
    -----
    Counted from the table that the Dask graph holds, so that also cubes of cubes and cubes that have
    travelled through pickle are known.
    """
    if workers is not None and workers < 1:
        raise OptionError(f"workers={workers!r} is not accepted: at least one is needed.")
    opened = cube if isinstance(cube, xr.Dataset) else open_cube(cube)
    lazy = {str(name): v.data for name, v in opened.variables.items() if is_lazy(v.data)}
    graph = HighLevelGraph.merge(*(array.dask for array in lazy.values()))
    readers = readers_in(graph)
    loads = {name: found if isinstance(found, Plan) else found.reading for name, found in readers.items()}
    if not loads:
        raise CubeError(
            "This dataset is not a lazy cube over items, so there is nothing to plan: it is in memory, or "
            "comes from a store. Give what open_cube returned, or items."
        )
    keys: Any = [array.__dask_keys__() for array in lazy.values()]
    culled = graph.cull(keys)
    reads = {name: count_reads(held, _blocks(culled, name)) for name, held in loads.items()}
    return Cost(
        **_used(loads, reads),
        blocks=sum(len(_blocks(culled, name)) for name in loads),
        tasks=sum(map(len, culled.layers.values())) - len(loads),  # but the plans themselves
        windows=int(sum(read.windows.sum() for read in reads.values())),
        requests=sum(read.requests for read in reads.values()),
        read_bytes=sum(read.size for read in reads.values()),
        outputs={name: array.nbytes for name, array in lazy.items()},
        block=block_memory(graph, readers, {array.name for array in lazy.values()}),
        workers=workers or CPU_COUNT,
        memory=None if memory is None else bytes_of(memory),
    )


def _blocks(graph: HighLevelGraph, name: str) -> list[tuple[int, ...]]:
    """List the blocks of a layer that are left in a culled graph, which adds to the names of its layers."""
    layers: list[Any] = [layer for key, layer in graph.layers.items() if key.startswith(name)]
    return [tuple(key[1:]) for layer in layers for key in layer.get_output_keys()]


def _used(loads: Mapping[str, Plan], reads: Mapping[str, Reads]) -> dict[str, Any]:
    """Tell which items and dates are read, and which are not."""
    items: dict[str, tuple[np.datetime64, int]] = {}
    known: dict[str, None] = {}
    missing = 0
    for name, held in loads.items():
        used = reads[name].windows > 0
        shifts = held.shifts.max(axis=1)
        items |= {held.scenes[n]: (held.times[held.time_of[n]], int(shifts[n])) for n in np.flatnonzero(used)}
        known |= dict.fromkeys((*held.scenes, *held.dropped))
        missing += int((held.form_of[used] == MISSING).sum())
    largest = max(loads.values(), key=lambda held: prod(map(max, held.chunks)))
    return {
        "items": tuple(items),
        "shifts": tuple(shift for _, shift in items.values()),
        "dropped": tuple(name for name in known if name not in items),
        "missing": missing,
        "times": np.unique(np.array([time for time, _ in items.values()], "datetime64[ns]")),
        "shape": tuple(map(sum, largest.chunks)),
        "chunks": tuple(map(max, largest.chunks)),
    }


def _offsets(shifts: Iterable[int]) -> str:
    counts = Counter(shifts)
    if set(counts) <= {0}:
        return "none to settle"
    return ", ".join(f"{shift:+d} to {count} items" for shift, count in sorted(counts.items()))


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _size(count: float) -> str:
    """Show a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
