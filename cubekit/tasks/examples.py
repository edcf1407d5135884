"""Training examples in memory for every task: named arrays, and what a model must know of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch

from cubekit.batching.samples import Samples
from cubekit.batching.torch import Batch, SampleStream
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError
from cubekit.labels import ClassTable
from cubekit.typing import Array, BBox, BoolArray, IntArray

PHYSICAL = Encoding(dtype="float32", nodata=float("nan"))
"""Coding of physical values: nothing to decode, NaN where there is no data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Examples of any task, in memory and in physical units. Nothing is lazy.

    ========== =========================================================== ==============================
    task       inputs                                                      target ``y``
    ========== =========================================================== ==============================
    classify   ``x`` (n, t, c) or (n, t, c, h, w)                          (n,) or (n, h, w) integers, -1
                                                                           where there is no label
    fractions  ``x`` (n, t, c); ``ancillary`` (n, a) where wanted          (n, k), rows sum to one
    forecast   ``x`` (n, t, 1, h, w), oldest map first                     (n, h, w), NaN where not known
    fuse       ``coarse_t1``, ``coarse_t2``, ``fine_t1`` (n, c, h, w)      (n, c, h, w), no gaps
    ========== =========================================================== ==============================
    """

    arrays: Mapping[str, Array]
    """Inputs and ``y`` by name, each with one entry an example; float32, NaN where there is no data."""

    bands: tuple[str, ...]
    """Band names, in the order of the axis ``c``."""

    times: Array = field(default_factory=lambda: np.array([], dtype="datetime64[ns]"))
    """Dates of the steps (t,), datetime64; empty where the task has none."""

    classes: ClassTable = field(default_factory=lambda: ClassTable((), (), ()))
    """Classes of ``y``, for classify and fractions."""

    variables: tuple[str, ...] = ()
    """Names of the columns of ``ancillary``."""

    encoding: Encoding = PHYSICAL
    """Coding of the cube that the values came from; the values themselves are physical."""

    crs: str | None = None
    """CRS of the examples."""

    resolution: float | None = None
    """Pixel size in units of the CRS."""

    extent: BBox | None = None
    """West, south, east, north of the examples in degrees."""

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.arrays.items()}
        if "y" not in lengths or len(set(lengths.values())) != 1:
            raise OptionError(f"Examples need y and as many entries in every array; found {lengths}.")
        x = self.arrays.get("x")
        if x is not None and x.shape[1:3] != (len(self.times), len(self.bands)):
            raise OptionError(
                f"x has shape {x.shape}, expected (n, {len(self.times)}, {len(self.bands)}, …): as many "
                "steps as times and as many channels as bands."
            )
        extra = self.arrays.get("ancillary")
        found = None if extra is None else extra.shape
        if self.variables and found != (len(self), len(self.variables)):
            raise OptionError(
                f"ancillary has shape {found}, expected {(len(self), len(self.variables))}: a column for "
                f"each of {self.variables}."
            )

    def __len__(self) -> int:
        return len(self.arrays["y"])

    def take(self, index: IntArray | BoolArray | list[int]) -> "Examples":
        """Return some of the examples.

        Parameters
        ----------
        index : numpy.ndarray or list of int
            Positions, in any order, or a mask.

        Returns
        -------
        examples : Examples
            A copy of those.
        """
        chosen = np.asarray(index)
        return replace(self, arrays={name: values[chosen] for name, values in self.arrays.items()})

    def digest(self) -> str:
        """Return a fingerprint of everything that training reads.

        Returns
        -------
        str
            SHA-256 in hexadecimal.
        """
        about = {
            "bands": self.bands,
            "times": self.times.astype("datetime64[s]").astype("int64").tolist(),
            "classes": asdict(self.classes),
            **({"variables": self.variables} if self.variables else {}),
        }
        state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, values in sorted(self.arrays.items()):
            state.update(f"{name} {values.dtype.str} {values.shape}".encode())
            state.update(np.ascontiguousarray(values).tobytes())
        return state.hexdigest()


class ExampleStream(SampleStream):
    """Batches of samples or examples, each with the numbers of its members.

    As :class:`~cubekit.batching.torch.SampleStream`, with ``index`` (n,) int64 in every batch, so that an
    error can name the samples. Examples keep the names of their arrays.

    Parameters
    ----------
    samples : Samples or Examples
        What to stream.
    batch : int
        Samples in a batch, at most.
    shuffle : bool, optional
        Whether every epoch has its own order.
    seed : int, optional
        Seed of the orders.
    """

    def __init__(
        self, samples: Samples | Examples, *, batch: int, shuffle: bool = False, seed: int = 0
    ) -> None:
        super().__init__(samples, batch=batch, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.source = samples

    def __repr__(self) -> str:
        return f"ExampleStream: {len(self.source)} examples in {len(self)} batches of at most {self.batch}"

    def _tensors(self, chosen: IntArray, epoch: int) -> Batch:
        """Gather some samples, decoded where they are stored numbers."""
        index = {"index": torch.from_numpy(np.asarray(chosen, dtype=np.int64))}
        if isinstance(self.source, Samples):
            return super()._tensors(chosen, epoch) | index
        return {
            name: torch.from_numpy(_as_taken(values[chosen])) for name, values in self.source.arrays.items()
        } | index


def _as_taken(values: Array) -> Array:
    """Return what networks compute with: float32, and int64 for class indices."""
    return np.ascontiguousarray(values, dtype=np.int64 if values.dtype.kind in "iu" else np.float32)
