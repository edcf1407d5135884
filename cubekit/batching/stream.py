"""Batches from cubes, chunk by chunk: every chunk decoded once an epoch, by threads that read ahead."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np

from cubekit.batching.augment import Augmentation
from cubekit.batching.blocks import Blocks, plan_blocks
from cubekit.batching.buffers import Buffers, plain_bytes
from cubekit.batching.fetch import AHEAD, Fetch, Load, reading
from cubekit.batching.filling import Filling
from cubekit.batching.part import Allocate, Arrays, Part
from cubekit.batching.patches import PatchPlan
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.schedule import Schedule, design_effect, schedule
from cubekit.batching.source import Source
from cubekit.errors import OptionError
from cubekit.typing import IntArray

_PIECES = 64  # parts of a batch of pixel series that come from different places
_ENOUGH_OF_BATCH, _ENOUGH_OF_ALL = 0.75, 0.6  # blocks held whole, per sample of a batch or of all: see apart
_LOOKED_AT = 1_000_000  # samples that the design effect is computed from


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of an epoch one worker of one rank gives out."""

    number: int = 0
    count: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockStream:
    """Batches of NumPy arrays from one or several cubes.

    Every batch is a dictionary: ``x`` (n, time, band, y, x) or (n, time, band) stored numbers, ``doy``
    (n, time) int64, ``index`` (n,) int64 number of the item in the plans one after the other, and what there
    is of ``y`` (labels, int64), ``future`` (stored numbers of the dates to forecast), ``mask`` and ``aux``.
    """

    sources: Sequence[Source]
    plans: Sequence[Plan]
    batch: int
    shuffle: bool
    seed: int
    buffer: int
    augment: Augmentation | None = None
    threads: int = 2
    read: dict[str, float] = field(
        default_factory=lambda: {"blocks": 0, "bytes": 0, "items": 0, "seconds": 0}
    )
    """What passes have read so far."""

    @cached_property
    def parts(self) -> list[Part]:
        """What is read of each cube."""
        return [
            Part(source=source, plan=plan, blocks=self._blocks(source, plan), piece=self._piece)
            for source, plan in zip(self.sources, self.plans, strict=True)
        ]

    def _blocks(self, source: Source, plan: Plan) -> Blocks:
        """Plan what is read at once."""
        return plan_blocks(plan.bounds("y"), plan.bounds("x"), source.readers["x"].chunks, budget=self.buffer)

    @property
    def _piece(self) -> int:
        return max(1, self.batch // _PIECES) if self.shuffle else np.iinfo("int64").max

    @cached_property
    def blocks(self) -> Blocks:
        """The blocks of all cubes, one after the other."""
        each = [part.blocks for part in self.parts]
        firsts = np.cumsum([0, *(len(blocks.run) for blocks in each)])
        runs = np.cumsum([0, *(int(blocks.run.max(initial=-1)) + 1 for blocks in each)])
        return Blocks(
            window=np.concatenate([blocks.window for blocks in each]),
            fresh=np.concatenate([blocks.fresh for blocks in each]),
            run=np.concatenate([blocks.run + first for blocks, first in zip(each, runs, strict=False)]),
            item=np.concatenate(
                [part.block_of + first for part, first in zip(self.parts, firsts, strict=False)]
            ),
            decoded=sum(blocks.decoded for blocks in each),
            touched=sum(blocks.touched for blocks in each),
            block_bytes=max(blocks.block_bytes for blocks in each),
            split=max(blocks.split for blocks in each),
        )

    @cached_property
    def weights(self) -> IntArray:
        """(item,) samples in each item: one patch, or some pixels."""
        return np.concatenate([part.weights for part in self.parts])

    @property
    def is_pixels(self) -> bool:
        """Whether series of pixels are given out, rather than patches."""
        return isinstance(self.plans[0], PixelPlan)

    @property
    def total(self) -> int:
        """Samples in an epoch."""
        return int(self.weights.sum())

    def apart(self, shards: int = 1) -> bool:
        """Tell whether patches are cut out of a block when it is read, so that each makes room when it goes.

        That mixes twice as many blocks in the same memory, but copies every patch once more: it is done where
        whole blocks would leave batches of too few of them.

        Parameters
        ----------
        shards : int, optional
            Streams that share the buffer.

        Returns
        -------
        bool
            Depends on numbers alone.
        """
        if not (self.shuffle and all(part.is_tiling for part in self.parts)):
            return False
        enough = min(_ENOUGH_OF_BATCH * self.batch, _ENOUGH_OF_ALL * len(self.blocks.run) / shards)
        return bool(np.floor(self._room(shards)) < enough)

    def _room(self, shards: int) -> float:
        """Blocks that the buffer takes beside those being read."""
        return self.buffer / shards / max(1, self.blocks.block_bytes) - AHEAD

    def held(self, shards: int = 1) -> float:
        """Memory for what is mixed, in blocks, so that the buffer is not exceeded.

        Parameters
        ----------
        shards : int, optional
            Streams that share the buffer: the workers of this machine.

        Returns
        -------
        float
            At least 1.
        """
        room = self._room(shards)
        # one block is there twice while it is cut into patches, and one more is begun before another is over
        return float(max(1.0, room - 2 if self.apart(shards) else np.floor(room)))

    def order(self, epoch: int, shard: Shard, *, sharing: int = 1) -> Schedule:
        """Return what a shard gives out in an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        shard : Shard
            Which part.
        sharing : int, optional
            Streams that share the buffer.

        Returns
        -------
        Schedule
            The same each time.
        """
        seed = (self.seed, epoch) if self.shuffle else None
        return schedule(
            self.blocks,
            held=self.held(sharing),
            seed=seed,
            apart=self.apart(sharing),
            shard=shard.number,
            shards=shard.count,
        )

    def cuts(self, order: Schedule, count: int | None = None) -> IntArray:
        """Return where batches end, so that their sizes differ by one at most.

        Parameters
        ----------
        order : Schedule
            Of the shard.
        count : int, optional
            Batches to make; default: as few as possible.

        Returns
        -------
        numpy.ndarray
            (batches,) samples given out by the end of each.
        """
        total = int(self.weights[order.items].sum())
        batches = min(total, max(count or 0, -(-total // self.batch)))
        return (np.arange(1, batches + 1) * total) // max(1, batches)

    def pass_over(
        self,
        epoch: int = 0,
        *,
        start: int = 0,
        shard: Shard | None = None,
        count: int | None = None,
        sharing: int = 1,
        allocate: Allocate | None = None,
    ) -> Iterator[Arrays]:
        """Give out the batches of one epoch.

        Parameters
        ----------
        epoch : int, optional
            From 0.
        start : int, optional
            Batches to leave out at the beginning: their blocks are not read, unless later ones need them.
        shard : Shard, optional
            Which part of the epoch. Default: all.
        count : int, optional
            Batches that the shard gives out. Default: as few as possible.
        sharing : int, optional
            Streams that share the buffer.
        allocate : callable, optional
            Makes arrays of a shape and type. Default: memory that is used again once nobody refers to it.

        Yields
        ------
        dict
            Arrays by name.
        """
        allocate = self.memory() if allocate is None else allocate
        order = self.order(epoch, shard or Shard(), sharing=sharing)
        cuts = self.cuts(order, count)
        turns = None
        if self.augment and (self.augment.flip or self.augment.rotate):
            turns = self.augment.turns(len(self.weights), (self.seed, epoch))
        ends = np.cumsum(self.weights[order.items])
        firsts = np.concatenate([[0], cuts])[:-1]
        begin = int(firsts[start]) if start < len(cuts) else 0
        skipped = int(np.searchsorted(ends, begin, side="right"))
        apart, filling = self.apart(sharing), None
        whole = self.held(sharing) >= len(order.blocks)  # then nothing makes room for anything
        if (whole or not apart) and all(part.is_light for part in self.parts):
            apart = False
            make = partial(self._empty, allocate)
            filling = Filling(order, self.weights, cuts, make, start=start, turns=turns)
        load = self._load(epoch, filling, apart=apart, held=int(self.held(sharing)))
        clock = time.perf_counter()
        with reading(Fetch(order, self.blocks.run, load, skipped=skipped, threads=self.threads)) as fetch:
            for number, first, end in zip(
                range(start, len(cuts)), firsts[start:].tolist(), cuts[start:].tolist(), strict=True
            ):
                low, high = (int(each) for each in np.searchsorted(ends, [first, end - 1], side="right"))
                if filling is not None:
                    for place in np.unique(order.place[low : high + 1]).tolist():
                        fetch(place)
                    yield self._dated(filling.take(number))
                else:
                    pieces = [
                        (order.items[at], order.place[at], int(ends[at])) for at in range(low, high + 1)
                    ]
                    yield self._gather(pieces, (first, end), fetch, turns, allocate, apart=apart)
                fetch.done(high + int(ends[high] == end))
                self.read["items"] += end - first
                self.read["seconds"] += time.perf_counter() - clock
                clock = time.perf_counter()

    def memory(self) -> Buffers:
        """Return memory for batches that is used again: as many as the buffer holds at once, and some."""
        layout = self.parts[0].layout.values()
        size = self.batch * max(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout)
        return Buffers(plain_bytes, keep=len(layout) * (8 + self.buffer // size))

    def _empty(self, allocate: Allocate, count: int) -> Arrays:
        """Return the arrays of a batch; days of the year of series come when it is given out."""
        layout = self.parts[0].layout.items()
        wanted = {name: each for name, each in layout if name != "doy" or not self.is_pixels}
        return {name: allocate((count, *shape), dtype) for name, (shape, dtype) in wanted.items()}

    def _dated(self, batch: Arrays) -> Arrays:
        """Add days of the year to a batch of series."""
        if not self.is_pixels:
            return batch
        cube = np.searchsorted(self._offsets, batch["index"], side="right") - 1
        return batch | {"doy": np.stack([part.source.doy for part in self.parts]).astype("int64")[cube]}

    def _load(self, epoch: int, filling: Filling | None, *, apart: bool, held: int) -> Load:
        """Return what reads the blocks of a pass."""
        cutting = Lock()  # one block at a time is there twice
        waiting = self.threads + AHEAD + (0 if apart or filling else held)
        memory = Buffers(plain_bytes, keep=2 * waiting)
        seed = (self.seed, epoch) if self.shuffle else None

        def load(
            place: int, block: int, above: Arrays | None, pool: ThreadPoolExecutor
        ) -> tuple[Arrays, Any]:
            part, own = self._block_of(block)
            layers = part.layers(own) if filling else []
            raw, fresh = part.load(own, above, memory, leave=("x",) if layers else ())
            tail = part.tail(own, raw)
            ready: Any = None
            if apart:
                with cutting:
                    ready = part.cut(own, raw)
            elif filling is None:
                ready = part.prepared(own, raw, seed, memory)
            else:
                targets = list(filling.targets(place, first_item=self._first_item(part)))
                part.put(targets, part.prepared(own, raw, seed, memory), offset=self._offset(part))
                if layers:
                    put = partial(part.put_layer, own, patches=part.patches(own, targets), allocate=memory)
                    fresh += sum(pool.map(put, layers))
            self.read["blocks"] += 1
            self.read["bytes"] += fresh
            return tail, ready

        return load

    def _first_item(self, part: Part) -> int:
        """Return the number of the first item of a cube."""
        return int(self._firsts[self.parts.index(part)])

    def _offset(self, part: Part) -> int:
        """Return the number of the first sample of a cube."""
        return int(self._offsets[self.parts.index(part)])

    def _gather(
        self,
        pieces: list[tuple[int, int, int]],
        span: tuple[int, int],
        fetch: Fetch,
        turns: IntArray | None,
        allocate: Allocate,
        *,
        apart: bool,
    ) -> Arrays:
        """Copy the samples of one batch out of the blocks that are held."""
        out: Arrays = {}
        at = 0
        for item, place, end in pieces:
            part, own = self._part_of(item)
            first = end - int(self.weights[item])
            inside = slice(max(span[0], first) - first, min(span[1], end) - first)
            code = 0 if turns is None else int(turns[item])
            block = fetch(int(place))
            arrays = block.pop(own) if apart else block
            for name, values in part.samples(own, arrays, inside, code, apart=apart).items():
                if name not in out:
                    out[name] = allocate((span[1] - span[0], *values.shape[1:]), values.dtype)
                out[name][at : at + len(values)] = values
            out["index"][at : at + inside.stop - inside.start] += self._offset(part)
            at += inside.stop - inside.start
        return out

    @cached_property
    def _firsts(self) -> IntArray:
        """First item of each part."""
        return np.cumsum([0, *(len(part.weights) for part in self.parts)])

    @cached_property
    def _offsets(self) -> IntArray:
        """Number of the first sample of each part."""
        return np.cumsum([0, *(int(part.weights.sum()) for part in self.parts)])

    @cached_property
    def _block_firsts(self) -> IntArray:
        """First block of each part."""
        return np.cumsum([0, *(len(part.blocks.run) for part in self.parts)])

    def _part_of(self, item: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._firsts, item, side="right")) - 1
        return self.parts[number], int(item - self._firsts[number])

    def _block_of(self, block: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._block_firsts, block, side="right")) - 1
        return self.parts[number], int(block - self._block_firsts[number])

    def spread(self) -> float:
        """Return the design effect of an epoch: see :func:`cubekit.batching.schedule.design_effect`.

        Returns
        -------
        float
            Samples of one chunk count as alike.
        """
        order = self.order(0, Shard())
        chunk = np.concatenate([part.chunk_of for part in self.parts])
        first = np.repeat(np.arange(len(self.parts)), [len(part.weights) for part in self.parts])
        _, alike = np.unique(chunk + first * (int(chunk.max()) + 1), return_inverse=True)
        weights = self.weights[order.items]
        enough = (
            int(np.searchsorted(np.cumsum(weights), _LOOKED_AT)) + 1
        )  # a part of a large epoch tells as much
        places = np.repeat(alike[order.items[:enough]], weights[:enough])
        cuts = self.cuts(order)
        return design_effect(places, cuts[cuts <= len(places)])


def check_plans(sources: Sequence[Source], plans: Sequence[Plan]) -> None:
    """Raise unless batches of all cubes fit together.

    Parameters
    ----------
    sources : sequence of Source
        The cubes.
    plans : sequence of Plan
        One for each.

    Raises
    ------
    OptionError
        Naming the first difference.
    """
    shapes = []
    for source, plan in zip(sources, plans, strict=True):
        if not len(plan):
            raise OptionError(f"There is nothing to stream: {plan!r}.")
        steps = plan.bounds("time")[0]
        horizon = plan.horizon if isinstance(plan, PatchPlan) else 0
        shapes.append(
            {
                "bands": tuple(source.cube["band"].to_numpy().tolist()),
                "dates": int(steps[1] - steps[0]) - horizon,
                "horizon": horizon,
                "patch": None
                if isinstance(plan, PixelPlan)
                else tuple(plan.input_dims[dim] for dim in ("y", "x")),
                "encoding": source.encoding,
                "companions": sorted(source.readers),
            }
        )
    for number, shape in enumerate(shapes[1:], 1):
        for key, value in shape.items():
            if repr(value) != repr(shapes[0][key]):  # NaN differs from itself
                raise OptionError(
                    f"Cubes do not fit together: {key} is {shapes[0][key]!r} in the first, {value!r} in "
                    f"number {number}."
                )
