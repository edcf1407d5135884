"""Batches of patches or pixel series as tensors, read from cubes chunk by chunk."""

import hashlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from dask.base import tokenize
from torch.utils.data import DataLoader, get_worker_info

from cubekit.batching.describe import describe
from cubekit.batching.fetch import ahead
from cubekit.batching.pixels import PixelPlan
from cubekit.batching.plan import Plan
from cubekit.batching.schedule import share_out
from cubekit.batching.stream import BlockStream, Shard
from cubekit.batching.torch.shared import Batch, Pass, SharedStream
from cubekit.batching.torch.transfer import Carrier, pinned
from cubekit.cube.contract import MAIN, Encoding, geobox_of
from cubekit.errors import OptionError
from cubekit.labels import ClassTable
from cubekit.typing import Array, IntArray

_PREFETCH = 2  # batches made ahead


class CubeStream(SharedStream):
    """Batches of patches or pixel series, epoch by epoch, read from cubes chunk by chunk.

    Each batch is a dictionary:

    - ``x`` (n, time, band, y, x) or (n, time, band) float32: physical values, NaN (or ``fill``) where there
      is no data;
    - ``valid``, same shape, bool;
    - ``doy`` (n, time) int64: day of the year;
    - ``index`` (n,) int64: number of the patch in its plan, or of the pixel in the windows of its plan; plans
      of several cubes are counted one after the other;
    - ``y``: labels (n, y, x) or (n,) int64; for a plan with a horizon the dates to forecast, float32;
    - ``aux`` (n, layer, y, x) or (n, layer), where given.

    With ``stored``, ``x`` and ``future`` are the stored numbers instead: :meth:`decode` makes the batch above
    of them, on the device where they are.

    Every sample comes once in an epoch, for any number of workers and ranks; sizes of batches differ by one
    at most in each worker; all ranks give out equally many. Ranks are those of ``torch.distributed``. Not
    shuffled, samples come block by block. A pass is one epoch, the next pass the next; with worker processes
    call :meth:`set_epoch` before each pass.

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
    classes : ClassTable, optional
        Of the labels.
    fill : float, optional
        What stands in ``x`` where there is no data.
    """

    def __init__(
        self,
        stream: BlockStream,
        *,
        stored: bool,
        device: str | torch.device | None,
        workers: int,
        classes: ClassTable | None = None,
        fill: float = math.nan,
    ) -> None:
        if workers < 0:
            raise OptionError(f"workers={workers!r} must not be negative.")
        super().__init__()
        self.stream = stream
        self.stored = stored
        self.device = device
        self.workers = workers
        self.fill = fill
        self.classes = ClassTable.of(()) if classes is None else classes
        if any(source.readers["x"].by_scene for source in stream.sources):
            warnings.warn(
                "The cube is stored one date a chunk, over large areas: whole dates are decoded for a patch. "
                "cubekit.rechunk writes it in chunks for learning.",
                UserWarning,
                stacklevel=3,
            )

    @property
    def plans(self) -> Sequence[Plan]:
        """The xbatcher generators that the stream follows, one for each cube."""
        return self.stream.plans

    @property
    def batcher(self) -> Plan:
        """The xbatcher generator that the stream follows; the first one of several cubes."""
        return self.stream.plans[0]

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of ``x``."""
        return tuple(str(band) for band in self._cube["band"].to_numpy())

    @property
    def times(self) -> npt.NDArray[np.datetime64]:
        """Dates of the cube, the first one of several."""
        return self._cube["time"].to_numpy().astype("datetime64[ns]")

    @property
    def encoding(self) -> Encoding:
        """How the cube is stored."""
        return self.stream.sources[0].encoding

    @property
    def crs(self) -> str:
        """CRS of the cube."""
        return str(geobox_of(self._cube).crs)

    @property
    def resolution(self) -> float:
        """Pixel size of the cube, in units of its CRS."""
        return abs(float(geobox_of(self._cube).resolution.x))

    @property
    def _cube(self) -> xr.Dataset:
        return self.stream.sources[0].cube

    def digest(self) -> str:
        """Return a fingerprint of the cubes, the plans and the order.

        Returns
        -------
        str
            SHA-256 in hexadecimal; equal for equal streams over equal stores.
        """
        state = {key: value for key, value in self._identity().items() if key != "ranks"}
        data = [source.cube[MAIN].data for source in self.stream.sources]
        names = [values.name if hasattr(values, "name") else tokenize(values) for values in data]
        return hashlib.sha256(f"{sorted(state.items())} {names}".encode()).hexdigest()

    def __len__(self) -> int:
        return sum(self._counts(max(1, self.workers)))

    def _counts(self, workers: int) -> list[int]:
        """Return how many batches each worker of a rank gives out: the same for every rank."""
        _, ranks = self._share()
        most = self._loads(workers * ranks).reshape(ranks, workers).max(axis=0)
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
                f"{len(shard)} blocks cannot be shared out among {shards} workers: use fewer workers, or "
                "write the cube in smaller chunks."
            )
        return loads

    def _pass(self, epoch: int, start: int, number: int, workers: int) -> Pass:
        """Return the batches of a worker: those of its shard, read ahead."""
        if get_worker_info() and self._sent is None:
            _check_fork()
        rank, ranks = self._share()
        count = self._counts(workers)[number]
        passing = self.stream.pass_over(
            epoch,
            start=start,
            shard=Shard(number=rank * workers + number, count=ranks * workers),
            count=count,
            sharing=workers,
        )
        finish = partial(self._finished, epoch=epoch, carry=Carrier(self.device))
        if self._is_host and not self.stored:  # batches are decoded ahead too
            done = ahead(passing, _PREFETCH, finish=finish)
            return count - 1, ((at, partial(dict, each)) for at, each in enumerate(done, start))
        # copies to a device stay on the caller's stream
        arrays = ahead(passing, _PREFETCH, finish=pinned())
        return count - 1, ((at, partial(finish, each)) for at, each in enumerate(arrays, start))

    @property
    def _is_host(self) -> bool:
        """Whether batches stay in the memory of this machine's processor."""
        return self.device is None or torch.device(self.device).type == "cpu"

    def _finished(self, arrays: Mapping[str, Array], *, epoch: int, carry: Carrier) -> Batch:
        """Turn arrays into tensors, and decode them unless stored numbers are wanted."""
        batch = carry(arrays)
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
        if not math.isnan(self.fill):
            done["x"].masked_fill_(~done["valid"], self.fill)
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

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a state and its stream."""
        stream = self.stream
        digest = hashlib.sha256()
        for plan in stream.plans:
            digest.update(np.ascontiguousarray(plan.windows.bounds).tobytes())
            if isinstance(plan, PixelPlan) and plan.mask is not None:
                digest.update(np.packbits(plan.mask).tobytes())
        return {
            "samples": stream.total, "plan": digest.hexdigest(), "batch": stream.batch,
            "shuffle": stream.shuffle, "seed": stream.seed, "blocks": len(stream.blocks.run),
            "held": stream.held(), "ranks": self._share()[1],
        }  # fmt: skip

    def __repr__(self) -> str:
        return describe(self.stream, len(self))


def _decoded(
    stored: torch.Tensor, coding: Encoding, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return physical values, NaN where there is no data, and where there is some."""
    values = stored.to(torch.float32)  # whole numbers above 2**24 are no satellite data
    nodata = None if coding.nodata is None or math.isnan(coding.nodata) else coding.nodata
    if not stored.is_floating_point() and nodata is not None:
        valid = values != nodata
    else:
        valid = ~torch.isnan(values)
        if nodata is not None:
            valid &= values != nodata
    if mask is not None:
        valid &= mask[:, :, None].to(torch.bool)
    values = (
        values.mul_(coding.scale).add_(coding.offset)
        if values is not stored
        else values * coding.scale + coding.offset
    )
    return values.masked_fill_(~valid, math.nan), valid


def _check_fork() -> None:
    """Raise where this process was forked from one in which Dask has threads: they are missing here."""
    client = sys.modules.get("distributed.client")
    threads = sys.modules.get("dask.threaded")
    alive = client is not None and client._get_global_client() is not None  # noqa: SLF001
    alive = alive or (threads is not None and bool(threads.default_pool or threads.pools))
    if alive:
        raise OptionError(
            "The loader forked a process in which Dask is at work; reading there would wait for ever: use "
            "stream.loader(), or DataLoader(..., multiprocessing_context='forkserver')."
        )
