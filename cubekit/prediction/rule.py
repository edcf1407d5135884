"""All that a task of a prediction needs beside the numbers."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from cubekit.cube.contract import Encoding
from cubekit.prediction.outputs import Kind, Output, dtype_of, planes_of
from cubekit.prediction.shipping import ShippedModel
from cubekit.prediction.windows import Windows

BATCH = 1024
"""Series per call of the model. Every call gets exactly this many: a network's rounding may depend on the
shape of its batch, and a map must not depend on how a scene was cut. Larger batches fall out of the cache."""

STRIP = 1 << 14
"""Series of a window whose gaps are filled at a time."""

PROBE = 64
"""Pixels a side of the image with which layers are counted, about."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Models, coding of the numbers, and layers; small, picklable, deterministically tokenised."""

    models: tuple[ShippedModel, ...]
    """Members of an ensemble; usually one."""

    kind: Kind
    """What they give."""

    count: int
    """How many values they give for a pixel."""

    outputs: tuple[Output, ...]
    """Layers of the map."""

    codings: tuple[Encoding, ...]
    """Of the cube's numbers, then of each ancillary variable."""

    windows: Windows | None = None
    """Where the windows of a patch model lie; None for models of pixel series."""

    passes: int = 0
    """Thinned networks drawn from each model."""

    turning: Literal["none", "flips", "rotations"] = "none"
    """Test-time augmentation."""

    @property
    def planes(self) -> int:
        """Planes of the packed result."""
        return sum(planes_of(output, self.count) for output in self.outputs)

    @property
    def dtype(self) -> str:
        """Type of the packed result."""
        return dtype_of(self.kind)

    @property
    def token(self) -> str:
        """Digest of the models."""
        return "+".join(model.token for model in self.models)

    def forward(self) -> Any:
        """Return what predicts, built once per process.

        Returns
        -------
        callable
            `PatchMembers` or `SeriesMembers`; for a single model of series without a network its own method.
        """
        models = [model.get() for model in self.models]
        key = (*map(id, models), self.kind, self.windows is None, self.passes, self.turning, self.codings[0])
        with _LOCK:
            if key not in _BUILT:
                _BUILT[key] = (models, self._build(models))  # the models are held: an id is never used again
            _BUILT.move_to_end(key)
            while len(_BUILT) > _KEPT:
                _BUILT.popitem(last=False)
            return _BUILT[key][1]

    def _build(self, models: list[Any]) -> Any:
        if self.windows is None and len(models) == 1 and not hasattr(models[0], "network"):
            return getattr(models[0], "values" if self.kind == "value" else "probabilities")  # needs no torch
        from cubekit.prediction.members import PatchMembers, SeriesMembers

        if self.windows is None:
            return SeriesMembers(models, self.kind, passes=self.passes, coding=self.codings[0])
        return PatchMembers(
            models, self.kind, passes=self.passes, turning=self.turning, coding=self.codings[0]
        )

    def __dask_tokenize__(self) -> tuple[object, ...]:
        codings = [(str(coding.attrs()), coding.dtype) for coding in self.codings]
        windows = None if self.windows is None else repr(self.windows)
        return (
            *(self.token, self.kind, self.count, self.outputs, codings),
            *(windows, self.passes, self.turning, BATCH),
        )


_BUILT: OrderedDict[tuple[object, ...], tuple[list[Any], Any]] = OrderedDict()
_KEPT = 2
_LOCK = threading.Lock()
