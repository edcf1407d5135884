"""Networks and baselines on the same test pairs, one after the other."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import xarray as xr

from cubekit.batching.pair_splits import PairSplit
from cubekit.batching.pairs import Pair
from cubekit.errors import OptionError
from cubekit.evaluation.fusion_metrics import fusion_scores
from cubekit.pipeline.fuse import steps
from cubekit.pipeline.fuse.scores import FusionScores, mean_scores
from cubekit.pipeline.fuse.spec import FusePipeline
from cubekit.typing import FloatArray

log = logging.getLogger("cubekit")

BASELINES: Mapping[str, Callable[[Pair], xr.DataArray]] = {
    "copy of F1": lambda pair: pair.fine_t1,
    "C2": lambda pair: pair.coarse_t2,
    "F1 + (C2 - C1)": lambda pair: pair.fine_t1 + (pair.coarse_t2 - pair.coarse_t1),
}

_SHOWN = 400
"""Pixels of the longer side of the pictures, at most."""


class Contest:
    """Trains, predicts and scores.

    Parameters
    ----------
    spec : FusePipeline
        The job.
    split : PairSplit
        Pairs to train, to validate and to test.
    """

    def __init__(self, spec: FusePipeline, split: PairSplit) -> None:
        self.spec, self.split = spec, split
        self.scores: dict[str, FusionScores] = {}
        self.pictures: dict[str, FloatArray] = {}
        """Of the last test pair, thinned, ``(c, h, w)``."""
        valid = split.valid if split.protocol == "scene" else split.test[:0]
        self._train = steps.examples_of(split.train, spec.train)
        self._valid = steps.examples_of(valid, spec.train)

    def enter(self, name: str, folder: Path) -> None:
        """Train a network and score it.

        Parameters
        ----------
        name : str
            Of the network.
        folder : pathlib.Path
            For model, metrics, logs and predicted scenes.
        """
        if self._train is None:
            raise OptionError("There is no pair to train on.")
        model, trained = steps.train(name, self.spec, (self._train, self._valid), folder)
        start = perf_counter()
        images = steps.predict(model, self.spec, self.split.test, folder / "test.zarr")
        spent = perf_counter() - start
        self.scores[name] = mean_scores(
            self._scored(name, images),
            parameters=model.card.parameters,
            train_seconds=trained,
            predict_seconds=spent,
            settings={**model.card.settings, "patches": model.card.data.train},
        )

    def enter_baselines(self) -> None:
        """Score what needs no training."""
        for name in self.spec.baselines:
            start = perf_counter()
            images = [BASELINES[name](pair) for pair in self.split.test]
            found = self._scored(name, images)
            self.scores[name] = mean_scores(found, predict_seconds=perf_counter() - start)

    def _scored(self, name: str, images: Sequence[xr.DataArray]) -> list[dict[str, Any]]:
        """Compare predicted images with the true ones, pair by pair."""
        rows = []
        for pair, image in zip(self.split.test, images, strict=True):
            rows.append({"t1": str(pair.t1), "t2": str(pair.t2), **self._compared(pair, image)})
            self.pictures[name] = thinned(image)
        return rows

    def _compared(self, pair: Pair, image: xr.DataArray) -> dict[str, float]:
        truth, values = (each.compute().to_numpy() for each in (pair.fine_t2, image))
        return fusion_scores(values, truth, ratio=self.spec.data.ratio)


def thinned(image: xr.DataArray) -> FloatArray:
    """Read every so many pixels of an image, for a picture."""
    step = -(-max(image.shape[-2:]) // _SHOWN)
    few: FloatArray = image[:, ::step, ::step].compute().to_numpy()
    return few
