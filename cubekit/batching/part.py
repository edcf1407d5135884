"""One cube of a stream: its items, and the blocks that they are cut from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cubekit.batching.augment import turned
from cubekit.batching.blocks import Blocks
from cubekit.batching.patches import PatchPlan
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.series_kernels import put_series
from cubekit.batching.source import Lead, Source
from cubekit.typing import Array, IntArray

Arrays = dict[str, Array]
"""Arrays by name: ``x``, ``y``, ``mask``, ``aux``, ``future``, ``doy``, ``index``."""

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Makes an array of a shape and type, of any content."""

_TIMED = ("x", "mask")  # what is cut along time
_HARDLY = 1.1  # times the weight of the blocks: what samples may weigh that are put into batches at once
_LAYER = 256 << 10  # bytes of a chunk within a block, from which on it is read by itself


class Target(NamedTuple):
    """Where some samples of an item go."""

    item: int
    inside: slice
    """Which of its samples."""

    batch: Arrays
    row: int
    """Of the first one, in the batch."""

    code: int
    """How a patch is turned."""


Patch = tuple[Array, slice, slice, int]
"""Where a patch goes, its rows and columns in the block, and how it is turned."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One cube, its plan and its blocks. An item is a patch, or a piece of the pixels of a window."""

    source: Source
    plan: Plan
    blocks: Blocks
    piece: int

    @property
    def _pixels(self) -> bool:
        return isinstance(self.plan, PixelPlan)

    @cached_property
    def _pieces(self) -> tuple[IntArray, IntArray, IntArray]:
        """Window, first pixel and number of pixels of each piece."""
        counts = self.plan.counts() if isinstance(self.plan, PixelPlan) else np.ones(len(self.plan), "int64")
        number = -(-counts // self.piece) if self._pixels else counts
        window = np.repeat(np.arange(len(counts)), number)
        step = np.arange(len(window)) - np.repeat(np.cumsum(number) - number, number)
        first = step * self.piece if self._pixels else step
        left: IntArray = counts[window] - first
        return window, first, left.clip(max=self.piece)

    @cached_property
    def is_tiling(self) -> bool:
        """Whether patches hardly weigh more than the blocks that they are cut from, as where they overlap."""
        if self._pixels or "time" in self.plan.windows.dims:
            return False
        area = np.prod([np.diff(self.plan.bounds(dim)).astype("int64") for dim in ("y", "x")], axis=0).sum()
        window = self.blocks.window
        whole = ((window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])).sum()
        return bool(area <= whole)

    @cached_property
    def layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of one sample, by name."""
        first, last = self.plan.bounds("time")[0].tolist()
        horizon = self.plan.horizon if isinstance(self.plan, PatchPlan) else 0
        area = () if self._pixels else tuple(self.plan.input_dims[dim] for dim in ("y", "x"))
        steps, number = (last - first - horizon,), np.dtype("int64")
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "doy": (steps, number),
            "index": ((), number),
        }
        for name, reader in self.source.readers.items():
            lead = (*steps, *reader.lead[1:]) if name in _TIMED else reader.lead
            found[name] = ((*lead, *area), number if name == "y" else reader.dtype)
            if name == "x" and horizon:
                found["future"] = ((horizon, *lead[1:], *area), reader.dtype)
        return found

    @cached_property
    def is_light(self) -> bool:
        """Whether all samples hardly weigh more than the blocks: then none waits in its block."""
        window = self.blocks.window
        area = int(((window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])).sum())
        large = [each for name, each in self.layout.items() if name != "doy"]
        sample = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in large)
        whole = area * self.source.readers["x"].chunks.pixel_bytes
        return int(self.weights.sum()) * sample <= _HARDLY * whole

    @cached_property
    def _by_block(self) -> list[IntArray]:
        """Items of each block."""
        order = np.argsort(self.blocks.item, kind="stable")
        ends = np.searchsorted(self.blocks.item[order], np.arange(1, len(self.blocks.run)))
        return np.split(order, ends)

    @property
    def weights(self) -> IntArray:
        """(item,) samples in each item: 1 for a patch."""
        return self._pieces[2]

    @property
    def block_of(self) -> IntArray:
        """(item,) block that each item is cut from."""
        return self.blocks.item[self._pieces[0]]

    @property
    def chunk_of(self) -> IntArray:
        """(item,) number of the chunk that each item begins in."""
        chunks = self.source.readers["x"].chunks
        row, column = (
            np.searchsorted(borders, self.plan.bounds(dim)[:, 0], side="right")
            for dim, borders in (("y", chunks.rows), ("x", chunks.columns))
        )
        found: IntArray = (row * (len(chunks.columns) + 1) + column)[self._pieces[0]]
        return found

    @cached_property
    def _firsts(self) -> IntArray:
        """Number of the first pixel of each window."""
        counts = np.bincount(self._pieces[0], weights=self.weights, minlength=len(self.plan)).astype("int64")
        firsts: IntArray = np.cumsum(counts) - counts
        return firsts

    @cached_property
    def _windows_of(self) -> IntArray:
        """Window of each block of pixels: each has one."""
        window = np.empty(len(self.blocks.run), "int64")
        window[self.blocks.item] = np.arange(len(self.plan))
        return window

    def load(
        self, block: int, above: Arrays | None, allocate: Allocate, *, leave: Iterable[str] = ()
    ) -> tuple[Arrays, int]:
        """Read what is new of a block, and put it below what is known.

        Parameters
        ----------
        block : int
            Which.
        above : dict or None
            Rows that the block before left.
        allocate : callable
            Gives memory for what comes from a store.
        leave : iterable of str, optional
            Names that are not read.

        Returns
        -------
        raw : dict
            Arrays by name, rows and columns last.
        size : int
            Bytes read.
        """
        top, bottom, left, right = self.blocks.window[block].tolist()
        known = 0 if above is None else int(self.blocks.fresh[block]) - top
        rows, columns = slice(top + known, bottom), slice(left, right)
        raw: Arrays = {}
        size = 0
        for name, reader in self.source.readers.items():
            if name in leave:
                continue
            if reader.is_stored:
                whole = allocate((*reader.lead, bottom - top, right - left), reader.dtype)
                size += reader(rows, columns, out=whole[..., known:, :]).nbytes
                if above is not None and known:
                    whole[..., :known, :] = above[name]
            else:
                whole = reader(rows, columns)
                size += whole.nbytes
                if above is not None and known:
                    whole = np.concatenate([above[name], whole], axis=-2)
            raw[name] = whole
        return raw, size

    def layers(self, block: int) -> list[Lead]:
        """Return the dates and bands of a block that are read one after the other.

        Parameters
        ----------
        block : int
            Which.

        Returns
        -------
        list of tuple of slice
            Empty where a block is read at once: chunks hold all dates and bands or are small, rows go on to
            the next block, or dates are cut.
        """
        found = self.source.readers["x"].layers
        top, bottom, left, right = self.blocks.window[block].tolist()
        size = (bottom - top) * (right - left) * self.source.readers["x"].chunks.pixel_bytes
        alone = int((self.blocks.run == self.blocks.run[block]).sum()) == 1
        whole = not self._pixels and "time" not in self.plan.windows.dims
        return found if alone and whole and 1 < len(found) <= size // _LAYER else []

    def tail(self, block: int, raw: Arrays) -> Arrays:
        """Return a copy of the rows that the next block takes over.

        Parameters
        ----------
        block : int
            Which.
        raw : dict
            From :meth:`load`.

        Returns
        -------
        dict
            Arrays by name; empty where a run ends.
        """
        blocks = self.blocks
        if block + 1 == len(blocks.run) or blocks.run[block + 1] != blocks.run[block]:
            return {}
        first = int(blocks.window[block + 1, 0] - blocks.window[block, 0])
        return {name: values[..., first:, :].copy() for name, values in raw.items()}

    def prepared(self, block: int, raw: Arrays, seed: tuple[int, ...] | None, allocate: Allocate) -> Arrays:
        """Turn a block into series in the order given out, where pixels are asked for.

        Parameters
        ----------
        block : int
            Which.
        raw : dict
            From :meth:`load`.
        seed : tuple of int or None
            Of the order of pixels; None keeps it.
        allocate : callable
            Gives memory for the series.

        Returns
        -------
        dict
            `raw`, or arrays (pixel, ...) with ``index``.
        """
        if not isinstance(self.plan, PixelPlan):
            return raw
        window = int(self._windows_of[block])
        top, bottom, left, right = self.plan.edges[window].tolist()
        mask = self.plan.mask
        chosen = None if mask is None else np.flatnonzero(mask[top:bottom, left:right])
        count = (bottom - top) * (right - left) if chosen is None else len(chosen)
        mixed = rows = np.arange(count)
        if seed is not None:
            mixed, rows = (
                np.random.default_rng((*seed, 4, block)).permutation(count),
                np.empty(count, "int64"),
            )
            rows[mixed] = np.arange(count)
        ready = {}
        for name, values in raw.items():
            flat = values.reshape(-1, values.shape[-2] * values.shape[-1])
            series = allocate((count, len(flat)), flat.dtype)
            put_series(flat if chosen is None else flat[:, chosen], rows, series)
            ready[name] = series.reshape(count, *values.shape[:-2])
        return ready | {"index": self._firsts[window] + mixed}

    def put(self, targets: Iterable[Target], arrays: Arrays, *, offset: int = 0) -> None:
        """Copy samples of a block to where they are given out.

        Parameters
        ----------
        targets : iterable of Target
            Where each goes.
        arrays : dict
            The block, from :meth:`prepared`.
        offset : int, optional
            Added to the numbers of the samples.
        """
        if not self._pixels:
            for item, inside, batch, row, code in targets:
                for name, values in self.samples(item, arrays, inside, code, apart=False).items():
                    batch[name][row] = values[0]
                batch["index"][row] += offset
            return
        ready = arrays | {"index": arrays["index"] + offset}
        firsts = self._pieces[1]
        for item, inside, batch, row, _ in targets:
            first = int(firsts[item]) + inside.start
            size = inside.stop - inside.start
            for name, values in ready.items():
                batch[name][row : row + size] = values[first : first + size]

    def patches(self, block: int, targets: Iterable[Target]) -> list[Patch]:
        """Tell which part of a block every target takes, and where it goes.

        Parameters
        ----------
        block : int
            Which.
        targets : iterable of Target
            Of patches.

        Returns
        -------
        list of tuple
            For :meth:`put_layer`.
        """
        above, before = self.blocks.window[block, [0, 2]].tolist()
        rows, columns = self.plan.bounds("y") - above, self.plan.bounds("x") - before
        return [
            (batch["x"][row], slice(*rows[item].tolist()), slice(*columns[item].tolist()), code)
            for item, _, batch, row, code in targets
        ]

    def put_layer(self, block: int, lead: Lead, patches: Iterable[Patch], allocate: Allocate) -> int:
        """Read some dates and bands of a block, and copy them to where they are given out.

        Parameters
        ----------
        block : int
            Which.
        lead : tuple of slice
            From :meth:`layers`.
        patches : iterable of tuple
            From :meth:`patches`.
        allocate : callable
            Gives memory to read into.

        Returns
        -------
        int
            Bytes read.
        """
        top, bottom, left, right = self.blocks.window[block].tolist()
        reader = self.source.readers["x"]
        shape = (*(part.stop - part.start for part in lead), bottom - top, right - left)
        values = reader(slice(top, bottom), slice(left, right), lead=lead, out=allocate(shape, reader.dtype))
        for out, rows, columns, code in patches:
            out[lead] = turned(values[..., rows, columns], code)
        return values.nbytes

    def cut(self, block: int, raw: Arrays) -> dict[int, Arrays]:
        """Copy every patch out of a block, so that the block can go.

        Parameters
        ----------
        block : int
            Which.
        raw : dict
            From :meth:`load`.

        Returns
        -------
        dict
            Arrays of each item, rows and columns last.
        """
        above, before = self.blocks.window[block, [0, 2]].tolist()
        rows, columns = self.plan.bounds("y") - above, self.plan.bounds("x") - before
        return {
            int(item): {
                name: values[..., slice(*rows[item]), slice(*columns[item])].copy()
                for name, values in raw.items()
            }
            for item in self._by_block[block]
        }

    def samples(self, item: int, arrays: Arrays, inside: slice, code: int, *, apart: bool) -> Arrays:
        """Return views of the samples of an item.

        Parameters
        ----------
        item : int
            Which.
        arrays : dict
            Its block, from :meth:`prepared`; or the item itself, from :meth:`cut`.
        inside : slice
            Which of its samples.
        code : int
            How a patch is turned.
        apart : bool
            Whether `arrays` hold the item alone.

        Returns
        -------
        dict
            Arrays (samples, ...) by name.
        """
        window, first, _ = (each[item] for each in self._pieces)
        if self._pixels:
            span = slice(int(first) + inside.start, int(first) + inside.stop)
            found = {name: values[span] for name, values in arrays.items()}
            found["doy"] = np.broadcast_to(
                self.source.doy.astype("int64"), (len(found["x"]), len(self.source.doy))
            )
        else:
            found = self._patch(int(window), arrays, code, apart=apart)
        if "y" in self.source.readers:
            found["y"] = found["y"].astype("int64")
        return found

    def _patch(self, window: int, arrays: Arrays, code: int, *, apart: bool) -> Arrays:
        """Return views of one patch."""
        (top, bottom), (left, right), (first, last) = (
            self.plan.bounds(dim)[window].tolist() for dim in ("y", "x", "time")
        )
        above, before = (
            (top, left) if apart else self.blocks.window[self.blocks.item[window], [0, 2]].tolist()
        )
        horizon = self.plan.horizon if isinstance(self.plan, PatchPlan) else 0
        found: Arrays = {}
        for name, values in arrays.items():
            cut = turned(values[..., top - above : bottom - above, left - before : right - before], code)
            found[name] = (cut[first : last - horizon] if name in _TIMED else cut)[None]
            if name == "x" and horizon:
                found["future"] = cut[last - horizon : last][None]
        found["doy"] = self.source.doy[first : last - horizon].astype("int64")[None]
        found["index"] = np.array([window])
        return found
