"""Batches of tensors: seeded, resumable, shared out among loader workers without repeats."""

import hashlib
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cubekit.batching.augment import Augmentation
from cubekit.batching.decode import decode
from cubekit.batching.describe import describe
from cubekit.batching.patches import PatchPlan
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.samples import Samples
from cubekit.batching.schedule import share_out
from cubekit.batching.source import Raster, make_source
from cubekit.batching.stream import BlockStream, Shard, ahead, check_plans
from cubekit.cube.contract import Encoding
from cubekit.cube.memory import bytes_of
from cubekit.errors import OptionError, check_kind
from cubekit.typing import Array, IntArray

Batch = dict[str, torch.Tensor]
"""``x``, ``y``, ``valid``, ``doy`` and more: see :class:`SampleStream` and :class:`CubeStream`."""

Companion = Raster | Sequence[Raster] | None
"""One raster, one for each cube, or none."""

_SAMPLES, _PATCHES, _PIXELS = 256, 32, 4096  # usual sizes of batches
_PREFETCH = 2  # batches made ahead

Cubes = Samples | xr.Dataset | Sequence[xr.Dataset]
"""What can be streamed."""

PlanLike = Plan | int | Literal["pixels"]
"""A plan, the side of square patches, or every pixel."""


def batches(  # noqa: PLR0913
    source: Cubes,
    plan: PlanLike | Sequence[PlanLike] | None = None,
    *,
    batch: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    labels: Companion = None,
    mask: Companion = None,
    aux: Companion = None,
    augment: Augmentation | None = None,
    buffer: int | str = "512MB",
    stored: bool = False,
    device: str | torch.device | None = None,
    workers: int = 0,
) -> "SampleStream | CubeStream":
    """Stream samples, or patches or pixel series of cubes, as batches of tensors.

    Parameters
    ----------
    source : Samples, xarray.Dataset, or sequence of xarray.Dataset
        Labelled series in memory; or one or several cubes, read chunk by chunk.
    plan : Plan, int or "pixels", or a sequence of them, optional
        What to take of a cube: a :class:`~cubekit.batching.patches.PatchPlan` or
        :class:`~cubekit.batching.pixels.PixelPlan`; a number is the side of square patches on a grid;
        ``"pixels"`` is the series of every pixel. For several cubes one for all, or one for each.
    batch : int, optional
        Samples in a batch, at most. Default: 256 samples, 32 patches, 4096 pixel series.
    shuffle : bool, optional
        Whether every epoch has its own order.
    seed : int, optional
        Seed of the orders, and of the augmentation.
    labels : xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        (y, x) class index on the cube's grid, such as ``load_labels(...)["label"]``: ``y`` of the batches.
    mask : xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        (time, y, x) bool: False is no data.
    aux : xarray.DataArray or numpy.ndarray, or a sequence of them, optional
        (layer, y, x) or (y, x) ancillary numbers: ``aux`` of the batches.
    augment : Augmentation, optional
        Changes to the batches, for training.
    buffer : int or str, optional
        Bytes that blocks of cubes may take while their samples are mixed, such as ``"2GB"``.
    stored : bool, optional
        Give out stored numbers of cubes as they are: call the stream's ``decode`` where the batch is used.
    device : str or torch.device, optional
        Where batches are put. They travel as stored numbers and are decoded there.
    workers : int, optional
        Worker processes of the stream's own :meth:`CubeStream.loader`. Threads read ahead in any case.

    Returns
    -------
    SampleStream or CubeStream
        Iterate over it, or give it to a ``DataLoader`` with ``batch_size=None``.

    Raises
    ------
    OptionError
        If there is nothing to stream, or arguments do not fit each other.
    CubeError
        If a cube does not keep the contract.

    Examples
    --------
    >>> for each in batches(train, batch=256, shuffle=True):  # doctest: +SKIP
    ...     logits = network(each["x"], mask=each["valid"], doy=each["doy"])
    >>> print(batches(cube, 64, shuffle=True, labels=labels["label"]))  # doctest: +SKIP
    """
    if isinstance(source, Samples):
        if plan is not None or any(each is not None for each in (labels, mask, aux)):
            raise OptionError("Samples carry their labels: plan=, labels=, mask= and aux= are for cubes.")
        size = _SAMPLES if batch is None else batch
        return SampleStream(source, batch=size, shuffle=shuffle, seed=seed, augment=augment)
    cubes = list(source) if isinstance(source, list | tuple) else [source]
    for each in cubes or [None]:
        check_kind(
            "source", each, xr.Dataset, "open a cube with cubekit.open, or split it with cubekit.split"
        )
    sources = [
        make_source(cube, labels=label, mask=valid, aux=layers)
        for cube, label, valid, layers in zip(
            cubes, *(_one_each(name, given, len(cubes)) for name, given in
            (("labels", labels), ("mask", mask), ("aux", aux))), strict=True
        )
    ]  # fmt: skip
    plans = [_plan(cube, each) for cube, each in zip(cubes, _one_each("plan", plan, len(cubes)), strict=True)]
    check_plans(sources, plans)
    size = (_PIXELS if isinstance(plans[0], PixelPlan) else _PATCHES) if batch is None else batch
    if size < 1:
        raise OptionError(f"batch={size!r} must be at least 1.")
    stream = BlockStream(
        sources=sources, plans=plans, batch=size, shuffle=shuffle, seed=seed, buffer=bytes_of(buffer),
        augment=augment,
    )  # fmt: skip
    return CubeStream(stream, stored=stored, device=device, workers=workers)


def _one_each(name: str, given: Any, count: int) -> list[Any]:
    """Return one entry for each cube."""
    if not isinstance(given, list | tuple):
        if name != "plan" and given is not None and count > 1:
            raise OptionError(f"{name}: {count} cubes need a list of {count}.")
        given = [given] * count
    if len(given) != count:
        raise OptionError(f"{name} has {len(given)} entries for {count} cubes.")
    return list(given)


def _plan(cube: xr.Dataset, plan: PlanLike | None) -> Plan:
    """Return the plan that is meant."""
    if plan == "pixels":
        return PixelPlan(cube)
    if isinstance(plan, int):
        return PatchPlan(cube, plan)
    if not isinstance(plan, PatchPlan | PixelPlan):
        raise OptionError(
            f"plan is {plan!r}: a cube needs the side of patches such as 64, 'pixels', a PatchPlan or a PixelPlan."
        )
    if any(plan.ds.sizes[dim] != cube.sizes[dim] for dim in ("y", "x", "time")):
        raise OptionError(f"The plan is for {dict(plan.ds.sizes)}, the cube has {dict(cube.sizes)}.")
    return plan


class CubeStream(IterableDataset[Batch]):
    """Batches of patches or pixel series, epoch by epoch, read from cubes chunk by chunk.

    Each batch is a dictionary:

    - ``x`` (n, time, band, y, x) or (n, time, band) float32: physical values, NaN where there is no data;
    - ``valid``, same shape, bool;
    - ``doy`` (n, time) int64: day of the year;
    - ``index`` (n,) int64: number of the patch in its plan, or of the pixel in the windows of its plan; plans
      of several cubes are counted one after the other;
    - ``y``: labels (n, y, x) or (n,) int64; for a plan with a horizon the dates to forecast, float32;
    - ``aux`` (n, layer, y, x) or (n, layer), where given.

    With ``stored``, ``x`` and ``future`` are the stored numbers instead: :meth:`decode` makes the batch above of
    them, on the device where they are.

    Every sample comes once in an epoch, for any number of workers and ranks; sizes of batches differ by one at
    most in each worker; all ranks give out equally many. Ranks are those of ``torch.distributed``. Not shuffled, samples
    come block by block. A pass is one epoch, the next pass the next; with worker processes call
    :meth:`set_epoch` before each pass.

    Parameters
    ----------
    stream : BlockStream
        Arrays to give out.
    stored : bool
        Whether stored numbers are given out.
    device : str or torch.device or None
        Where batches are put.
    workers : int
        Processes of :meth:`loader`.
    """

    def __init__(
        self, stream: BlockStream, *, stored: bool, device: str | torch.device | None, workers: int
    ) -> None:
        if workers < 0:
            raise OptionError(f"workers={workers!r} must not be negative.")
        self.stream = stream
        self.stored = stored
        self.device = device
        self.workers = workers
        self._epoch = self._position = self._resume = 0
        self._home = os.getpid()
        if any(source.readers["x"].by_scene for source in stream.sources):
            warnings.warn(
                "The cube is stored one date a chunk, over large areas: every date has to be decoded for any patch. "
                "cubekit.rechunk writes it for learning.",
                UserWarning,
                stacklevel=3,
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _home=os.getpid())  # sent here, not inherited by fork

    @property
    def plans(self) -> Sequence[Plan]:
        """The xbatcher generators that the stream follows, one for each cube."""
        return self.stream.plans

    @property
    def batcher(self) -> Plan:
        """The xbatcher generator that the stream follows; the first one of several cubes."""
        return self.stream.plans[0]

    def __len__(self) -> int:
        return sum(self._counts(max(1, self.workers)))

    def _counts(self, workers: int) -> list[int]:
        """Return how many batches each worker of a rank gives out: the same for every rank."""
        _, ranks = _ranks()
        if not self.stream.shuffle or ranks * workers > 1:
            loads = self._loads(workers * ranks)
        else:
            loads = np.array([self.stream.total])
        most = loads.reshape(ranks, workers).max(axis=0)
        return [int(-(-each // self.stream.batch)) for each in most]

    def _loads(self, shards: int) -> IntArray:
        """Return the samples of each shard; every rank must have some in each of its workers, or none may."""
        blocks = self.stream.blocks
        seed = (self.stream.seed, self._epoch) if self.stream.shuffle else None
        shard = share_out(blocks, shards=shards, seed=seed)
        loads = np.bincount(
            shard[blocks.run[blocks.item]], weights=self.stream.weights, minlength=shards
        ).astype("int64")
        if shards > 1 and not loads.all():
            raise OptionError(
                f"{len(shard)} blocks cannot be shared out among {shards} workers: use fewer workers, or write the "
                "cube in smaller chunks."
            )
        return loads

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker and os.getpid() != self._home:
            _check_fork()
        rank, ranks = _ranks()
        start, self._resume = self._resume, 0
        epoch, count = self._epoch, self._counts(workers)[number]
        passing = self.stream.pass_over(
            epoch,
            start=start,
            shard=Shard(number=rank * workers + number, count=ranks * workers),
            count=count,
            sharing=workers,
            allocate=_allocate,
        )
        arrays = ahead(passing, _PREFETCH)
        for index, each in enumerate(arrays, start):
            # the epoch ends with its last batch, as trainers that know the length never ask for more
            last = index + 1 >= count
            self._epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            yield self._finished(each, epoch)

    def _finished(self, arrays: Mapping[str, Any], epoch: int) -> Batch:
        """Turn arrays into tensors, and decode them unless stored numbers are wanted."""
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self.device is not None:
            batch = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
        return batch if self.stored else self.decode(batch, epoch=epoch)

    def decode(self, batch: Mapping[str, torch.Tensor], *, epoch: int = 0) -> Batch:
        """Make physical values of stored numbers, where they are.

        Parameters
        ----------
        batch : mapping
            As the stream gives out with ``stored``.
        epoch : int, optional
            Seeds the augmentation of values.

        Returns
        -------
        dict
            With ``x``, ``valid`` and the rest: see the class.
        """
        done = dict(batch)
        coding = self.stream.sources[0].encoding
        done["x"], done["valid"] = _decoded(batch["x"], coding, done.pop("mask", None))
        if "future" in done:
            done["y"], _ = _decoded(done.pop("future"), coding, None)
        augment = self.stream.augment
        if augment and (augment.drop_dates or augment.jitter or augment.gain):
            x, valid = augment.altered(
                done["x"].cpu().numpy(), done["valid"].cpu().numpy(), done["index"].cpu().numpy(),
                (self.stream.seed, epoch),
            )  # fmt: skip
            done["x"], done["valid"] = (torch.from_numpy(each).to(done["x"].device) for each in (x, valid))
        return done

    def loader(self) -> "DataLoader[Batch]":
        """Return a ``DataLoader`` over the stream, with the stream's number of worker processes.

        Returns
        -------
        torch.utils.data.DataLoader
            Workers are started by forkserver, which is safe beside threads.
        """
        return DataLoader(
            self,
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context="forkserver" if self.workers else None,
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass.

        Parameters
        ----------
        epoch : int
            From 0. Naming the epoch that a loaded state stands in keeps its position.
        """
        if epoch != self._epoch:
            self._epoch, self._position, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands: the batches given out so far are not given again.

        Returns
        -------
        dict
            Plain numbers, for :meth:`load_state_dict`. With worker processes each has its own.
        """
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same cubes stood; what it gave out is not read again.

        Parameters
        ----------
        state : mapping
            From :meth:`state_dict`.

        Raises
        ------
        OptionError
            If the other stream had other samples, batch size, order, buffer or seed.
        """
        _check_identity(state, self._identity())
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._resume = self._position

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a state and its stream."""
        stream = self.stream
        digest = hashlib.sha256()
        for plan in stream.plans:
            digest.update(np.ascontiguousarray(plan.windows.bounds).tobytes())
            if isinstance(plan, PixelPlan) and plan.mask is not None:
                digest.update(np.packbits(plan.mask).tobytes())
        return {
            "samples": stream.total, "plan": digest.hexdigest(), "batch": stream.batch, "shuffle": stream.shuffle,
            "seed": stream.seed, "blocks": len(stream.blocks.run), "held": stream.held(),
            "ranks": _ranks()[1],
        }  # fmt: skip

    def __repr__(self) -> str:
        return describe(self.stream, len(self))


def _decoded(
    stored: torch.Tensor, coding: Encoding, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return physical values, NaN where there is no data, and where there is some."""
    values = stored.to(torch.float32)  # whole numbers above 2**24 are no satellite data
    valid = ~torch.isnan(values)
    if coding.nodata is not None and not math.isnan(coding.nodata):
        valid &= values != coding.nodata
    if mask is not None:
        valid &= mask[:, :, None].to(torch.bool)
    values = (
        values.mul_(coding.scale).add_(coding.offset)
        if values is not stored
        else values * coding.scale + coding.offset
    )
    return values.masked_fill_(~valid, math.nan), valid


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an empty array; in pinned memory where there is a GPU, so that copies to it overlap with work."""
    if not torch.cuda.is_available() or get_worker_info() is not None:
        return np.empty(shape, dtype)
    bytes_ = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, pin_memory=True)
    array: Array = bytes_.numpy().view(dtype).reshape(shape)
    return array


def _ranks() -> tuple[int, int]:
    """Return the rank of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _check_fork() -> None:
    """Raise where this process was forked from one in which Dask has threads: they are missing here."""
    client = sys.modules.get("distributed.client")
    threads = sys.modules.get("dask.threaded")
    alive = client is not None and client._get_global_client() is not None  # noqa: SLF001
    alive = alive or (threads is not None and bool(threads.default_pool or threads.pools))
    if alive:
        raise OptionError(
            "The loader forked a process in which Dask is at work, and reading there would wait for ever: use "
            "stream.loader(), or DataLoader(..., multiprocessing_context='forkserver')."
        )


def _check_identity(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise unless a state belongs to a stream."""
    differing = {key: (state.get(key), value) for key, value in identity.items() if state.get(key) != value}
    if differing:
        shown = ", ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in differing.items())
        raise OptionError(f"The state belongs to another stream: {shown}.")


class SampleStream(IterableDataset[Batch]):
    """Batches of samples, epoch by epoch.

    Each batch is a dictionary:

    - ``x`` (n, time, band) float32: physical values, NaN where there is no data;
    - ``valid`` (n, time, band) bool;
    - ``doy`` (n, time) int64: day of the year;
    - ``y`` (n,) int64 class index, or (n, class) float32 shares.

    Batches are evened out: their sizes differ by one at most, so that no lone last sample upsets batch
    normalisation. Every sample comes once in an epoch, however many loader workers there are.

    A pass over the stream is one epoch; the next pass is the next epoch, in another order if shuffled. With
    the workers of a ``DataLoader``, which work on copies, call :meth:`set_epoch` before each pass, as with
    torch's own distributed sampler.

    Parameters
    ----------
    samples : Samples
        What to stream.
    batch : int
        Samples in a batch, at most.
    shuffle : bool
        Whether every epoch has its own order.
    seed : int
        Seed of the orders, and of the augmentation.
    augment : Augmentation, optional
        Changes to the values; series are not turned.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch: int,
        shuffle: bool,
        seed: int,
        augment: Augmentation | None = None,
    ) -> None:
        if not len(samples):
            raise OptionError("There is no sample to stream: the part is empty.")
        if batch < 1:
            raise OptionError(f"batch={batch!r} must be at least 1.")
        self.samples = samples
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment
        self._epoch = 0
        self._position = 0  # batches of this epoch that have been given out
        self._resume = 0  # where the next pass starts

    def __len__(self) -> int:
        return self._batches() // _ranks()[1]

    def _batches(self) -> int:
        """Count the batches of all ranks: as many for each."""
        ranks = _ranks()[1]
        return math.ceil(math.ceil(len(self.samples) / self.batch) / ranks) * ranks

    def __repr__(self) -> str:
        n, steps, bands = self.samples.x.shape
        size = n * steps * bands * np.dtype("float32").itemsize
        return (
            f"SampleStream: {n} samples of {steps} steps x {bands} bands in {len(self)} batches of at most "
            f"{self.batch}, {'shuffled' if self.shuffle else 'in order'}; "
            f"{self.samples.nbytes / 1e6:.1f} MB held as {self.samples.x.dtype}, "
            f"{size / 1e6:.1f} MB of tensors an epoch"
        )

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        start, self._resume = self._resume, 0
        rank, ranks = _ranks()
        parts = np.array_split(self._order(), self._batches())[rank::ranks]
        mine = range(start + (first - start) % step, len(parts), step)
        epoch = self._epoch
        for index in mine:
            # the epoch ends with its last batch, as trainers that know the length never ask for more
            last = index == mine[-1]
            self._epoch, self._position = (epoch + 1, 0) if last else (epoch, index + 1)
            yield self._tensors(parts[index], epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass.

        Parameters
        ----------
        epoch : int
            From 0. Naming the epoch that a loaded state stands in keeps its position.
        """
        if epoch != self._epoch:
            self._epoch, self._position, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands: the batches given out so far are not given again.

        Returns
        -------
        dict
            Plain numbers, for :meth:`load_state_dict`.
        """
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same samples stood.

        Parameters
        ----------
        state : mapping
            From :meth:`state_dict`.

        Raises
        ------
        OptionError
            If the other stream had other samples, batch size, order or seed.
        """
        _check_identity(state, self._identity())
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._resume = self._position

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a state and its stream."""
        return {"samples": len(self.samples), "batch": self.batch, "shuffle": self.shuffle, "seed": self.seed}

    def _order(self) -> IntArray:
        """Return the order of the samples in this epoch."""
        if not self.shuffle:
            return np.arange(len(self.samples))
        return np.random.default_rng([self.seed, self._epoch]).permutation(len(self.samples))

    def _tensors(self, chosen: IntArray, epoch: int) -> Batch:
        """Decode some samples."""
        values: Array = decode(self.samples.x[chosen], self.samples.encoding)
        seen: Array = ~np.isnan(values)
        if self.augment:
            values, seen = self.augment.altered(values, seen, chosen, (self.seed, epoch))
        y = torch.from_numpy(self.samples.y[chosen])
        doy = torch.from_numpy(self.samples.doy().astype("int64"))
        return {
            "x": torch.from_numpy(values),
            "y": y.to(torch.int64 if self.samples.y.ndim == 1 else torch.float32),
            "valid": torch.from_numpy(seen),
            "doy": doy.expand(len(chosen), -1).clone(),  # contiguous, so that workers can share it
        }
