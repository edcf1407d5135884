"""Networks and baselines on the same test pairs, one after the other."""

import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

from cubekit.batching.pair_splits import SURVEY_PATCH, PairSplit
from cubekit.batching.pairs import Pair
from cubekit.errors import OptionError
from cubekit.evaluation.fusion_baselines import predict_baseline
from cubekit.evaluation.fusion_metrics import METRICS
from cubekit.evaluation.fusion_scores import assess_fusion
from cubekit.pipeline.fuse import steps
from cubekit.pipeline.fuse.scores import MethodScores, mean_scores
from cubekit.pipeline.fuse.spec import FusePipeline
from cubekit.tasks.examples import Examples
from cubekit.typing import FloatArray

log = logging.getLogger("cubekit")

NAMES: Mapping[str, str] = {
    "fine_t1": "copy of F1",
    "coarse_t2": "C2",
    "change": "F1 + (C2 - C1)",
    "starfm": "STARFM",
    "fit_fc": "Fit-FC",
}
"""Baselines as tables call them."""

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
        self.scores: dict[str, MethodScores] = {}
        self.pictures: dict[str, FloatArray] = {}
        """Of the last test pair, thinned, ``(c, h, w)``."""
        valid = split.valid if split.protocol == "scene" else split.test[:0]
        self._parts = split.train, valid
        self._examples: tuple[Examples, Examples | None] | None = None

    def enter(self, name: str, folder: Path) -> None:
        """Train a network and score it.

        Parameters
        ----------
        name : str
            Of the network.
        folder : pathlib.Path
            For model, metrics, logs and predicted scenes.
        """
        if self._examples is None:  # cut once, for all networks
            train, valid = (steps.examples_of(part, self.spec.train) for part in self._parts)
            if train is None:
                raise OptionError("There is no pair to train on.")
            self._examples = train, valid
        model, trained = steps.train(name, self.spec, self._examples, folder)
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
            images = [
                predict_baseline(
                    name, pair.coarse_t1, pair.coarse_t2, pair.fine_t1, ratio=self.spec.data.ratio
                ).persist()
                for pair in self.split.test
            ]
            spent = perf_counter() - start
            found = self._scored(NAMES[name], images)
            self.scores[NAMES[name]] = mean_scores(found, predict_seconds=spent)

    def _scored(self, name: str, images: Sequence[xr.DataArray]) -> list[dict[str, Any]]:
        """Compare predicted images with the true ones, pair by pair."""
        rows = []
        for pair, image in zip(self.split.test, images, strict=True):
            rows.append({"t1": str(pair.t1), "t2": str(pair.t2), **self._compared(pair, image)})
            self.pictures[name] = thinned(image)
        return rows

    def _compared(self, pair: Pair, image: xr.DataArray) -> dict[str, Any]:
        """Score a scene as a whole, or as the mean over the patches of the published comparison."""
        ratio = self.spec.data.ratio
        if self.split.protocol == "scene":
            found = assess_fusion(image, pair.fine_t2, ratio=ratio)
            return {**found.scores, "pixels": found.pixels, "n_invalid": found.n_invalid}
        side = min(SURVEY_PATCH, *image.shape[-2:])
        corners = product(*(range(0, size - side + 1, side) for size in image.shape[-2:]))
        parts = [
            assess_fusion(*(each[:, y : y + side, x : x + side] for each in (image, pair.fine_t2)),
                          ratio=ratio, compat=True)
            for y, x in corners
        ]  # fmt: skip
        means = {name: float(np.mean([part.scores[name] for part in parts])) for name in METRICS}
        counted = {what: sum(getattr(part, what) for part in parts) for what in ("pixels", "n_invalid")}
        return means | counted


def thinned(image: xr.DataArray) -> FloatArray:
    """Read every so many pixels of an image, for a picture.

    Parameters
    ----------
    image : xarray.DataArray
        ``(band, y, x)``, lazy or not.

    Returns
    -------
    numpy.ndarray
        ``(c, h, w)``, at most 400 pixels a side.
    """
    step = -(-max(image.shape[-2:]) // _SHOWN)
    few: FloatArray = image[:, ::step, ::step].compute().to_numpy()
    return few
