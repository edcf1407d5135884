"""The eleven scores of a fused scene of any size: block by block, with gaps, for each band and all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import dask
import numpy as np
import xarray as xr

from cubekit.cube.blocks import is_lazy
from cubekit.errors import OptionError
from cubekit.evaluation.fusion_metrics import METRICS, fusion_scores, scores_of
from cubekit.evaluation.fusion_sums import Place, Sums, part_sums
from cubekit.typing import Array

_LEAST = 11  # pixels, of the widest window
_DIMENSIONS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class FusionScores:
    """Scores of a predicted fine image. No value is ever dropped: what does not count is counted here."""

    scores: dict[str, float]
    """Of all bands, by the names in :data:`cubekit.evaluation.fusion_metrics.METRICS`."""

    bands: dict[str, dict[str, float]]
    """The same for each band alone; SAM needs more than one and is NaN."""

    pixels: int
    """Pixels that count: all bands of both images are finite."""

    n_invalid: int
    """Pixels that have true values but no finite prediction; in no score."""

    unknown: int
    """Pixels without true values; in no score."""

    compat: bool
    """Whether definitions are those of the published comparison."""

    @property
    def overall(self) -> float:
        """Root mean squared error of all bands."""
        return self.scores["RMSE"]

    def table(self) -> str:
        """Write the scores as text.

        Returns
        -------
        str
            One line a band, then all bands; then what was counted.
        """
        width = max(map(len, (*self.bands, "all bands")))
        lines = [f"{'':<{width}}" + "".join(f"{name:>9}" for name in METRICS)]
        for name, scores in (*self.bands.items(), ("all bands", self.scores)):
            lines.append(f"{name:<{width}}" + "".join(f"{_number(scores[each]):>9}" for each in METRICS))
        kind = "definitions of the published comparison" if self.compat else "textbook definitions"
        lines.append(
            f"{self.pixels} pixels; {self.n_invalid} more without a prediction, {self.unknown} without "
            f"truth; {kind}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold.

        Returns
        -------
        dict
            ``scores``, ``bands``, ``pixels``, ``n_invalid``, ``unknown``, ``compat``; None where a score is
            not defined or infinite.
        """
        return {
            "scores": _plain(self.scores),
            "bands": {name: _plain(scores) for name, scores in self.bands.items()},
            "pixels": self.pixels,
            "n_invalid": self.n_invalid,
            "unknown": self.unknown,
            "compat": self.compat,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchScores:
    """Scores of patches, each on its own: how published tables are made, but for what they leave out."""

    mean: dict[str, float]
    """Mean over the patches with a finite score, by metric; NaN where there is none."""

    std: dict[str, float]
    """Standard deviation of the population of those."""

    n_invalid: dict[str, int]
    """Patches whose score is not finite; nothing else is left out, however unusual."""

    patches: int
    """All of them."""

    def table(self) -> str:
        """Write the scores as text.

        Returns
        -------
        str
            One line a metric.
        """
        rows = (
            f"{name:<6}{_number(self.mean[name]):>10}{_number(self.std[name]):>10}{self.n_invalid[name]:>9}"
            for name in METRICS
        )
        return "\n".join([f"{'':<6}{'mean':>10}{'std':>10}{'invalid':>9}", *rows, f"{self.patches} patches"])


def assess_patches(
    predicted: Array,
    target: Array,
    *,
    ratio: float = 16.0,
    data_range: float = 1.0,
    compat: bool = True,
) -> PatchScores:
    """Score patches one by one, as the published comparison does, without its rejection of unusual values.

    Parameters
    ----------
    predicted, target : numpy.ndarray
        Patches ``(n, c, h, w)``, reflectance, finite; those of the published comparison have 512 pixels a
        side (``pairs.patches(512, edge="drop")``).
    ratio, data_range : float, optional
        As for :func:`assess_fusion`.
    compat : bool, optional
        Definitions of the published comparison; the mean of textbook scores of patches is not that of scenes.

    Returns
    -------
    PatchScores
        Means and deviations over the patches.

    Raises
    ------
    OptionError
        If there is no patch, or shapes differ.
    """
    if not len(target) or predicted.shape != target.shape:
        raise OptionError(
            f"Patches have shapes {predicted.shape} and {target.shape}: expected some, and alike."
        )
    how: dict[str, Any] = {"ratio": ratio, "data_range": data_range, "compat": compat}
    each = [fusion_scores(p, g, **how) for p, g in zip(predicted, target, strict=True)]
    values = {name: np.array([scores[name] for scores in each]) for name in METRICS}
    known = {name: found[np.isfinite(found)] for name, found in values.items()}
    return PatchScores(
        mean={name: float(found.mean()) if found.size else np.nan for name, found in known.items()},
        std={name: float(found.std()) if found.size else np.nan for name, found in known.items()},
        n_invalid={name: len(each) - known[name].size for name in METRICS},
        patches=len(each),
    )


def assess_fusion(
    predicted: xr.DataArray | Array,
    target: xr.DataArray | Array,
    *,
    bands: Sequence[str] | None = None,
    ratio: float = 16.0,
    data_range: float = 1.0,
    compat: bool = False,
    block: int = 1024,
) -> FusionScores:
    """Score a predicted image against the true one, however large.

    Parameters
    ----------
    predicted, target : xarray.DataArray, numpy.ndarray or dask.array.Array
        Images ``(band, y, x)``, reflectance, in the same order of bands; NaN where there is no data. Lazy
        ones are read a block at a time.
    bands : sequence of str, optional
        Names for the table. Default: those of `target`, or numbers from 1.
    ratio : float, optional
        Coarse pixel size divided by the fine one, for ERGAS.
    data_range : float, optional
        Largest value that can occur, for PSNR and SSIM.
    compat : bool, optional
        Definitions of the published comparison, see
        :func:`cubekit.evaluation.fusion_metrics.fusion_scores`.
    block : int, optional
        Rows and columns computed at once; scores do not depend on it.

    Returns
    -------
    FusionScores
        A pixel counts where all bands of both images are finite; a window of SSIM, UQI and the like where all
        of its pixels count. With no gaps the same as
        :func:`~cubekit.evaluation.fusion_metrics.fusion_scores`.

    Raises
    ------
    OptionError
        If shapes differ, sides are shorter than 11 pixels, names do not fit, or no pixel counts.
    """
    if block < _LEAST:
        raise OptionError(f"block={block!r} must be at least {_LEAST} pixels.")
    names = _names(bands, target)
    images = [image.data if isinstance(image, xr.DataArray) else image for image in (predicted, target)]
    _check(images[0].shape, images[1].shape, names)
    parts: list[Sums] | list[Any] = []
    lazy = any(map(is_lazy, images))
    work: Any = dask.delayed(part_sums, pure=False) if lazy else part_sums  # type: ignore[attr-defined]
    for place in _places(images[1].shape[1:], block):
        near = [image[(slice(None), *place.window)] for image in images]
        parts.append(work(*near, place, data_range=data_range, compat=compat))
    if lazy:
        parts = list(dask.compute(*parts))  # type: ignore[attr-defined,no-untyped-call]
    sums = reduce(add, parts)
    if not sums.moments.n:
        raise OptionError(
            f"No pixel can be compared: {sums.unknown} have no truth and {sums.n_invalid} no prediction."
        )
    how: dict[str, Any] = {"ratio": ratio, "data_range": data_range, "compat": compat}
    return FusionScores(
        scores=scores_of(sums, **how),
        bands={name: scores_of(sums.band(index), **how) for index, name in enumerate(names)},
        pixels=sums.moments.n,
        n_invalid=sums.n_invalid,
        unknown=sums.unknown,
        compat=compat,
    )


def _places(scene: tuple[int, int], block: int) -> list[Place]:
    """Return the blocks of a scene."""
    spans = [[(first, min(first + block, size)) for first in range(0, size, block)] for size in scene]
    return [Place(scene, rows, columns) for rows, columns in product(*spans)]


def _names(bands: Sequence[str] | None, target: xr.DataArray | Array) -> list[str]:
    if bands is not None:
        return [str(name) for name in bands]
    if isinstance(target, xr.DataArray) and "band" in target.coords:
        return [str(name) for name in np.atleast_1d(target["band"].to_numpy())]
    return [str(number + 1) for number in range(target.shape[0])]


def _check(predicted: tuple[int, ...], target: tuple[int, ...], names: Sequence[str]) -> None:
    if predicted != target or len(target) != _DIMENSIONS or min(target[1:]) < _LEAST:
        raise OptionError(
            f"Images have shapes {predicted} and {target}, expected twice (c, h, w) with sides of at least "
            f"{_LEAST}."
        )
    if len(names) != target[0]:
        raise OptionError(f"{len(names)} names for {target[0]} bands: {list(names)}.")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def _plain(scores: dict[str, float]) -> dict[str, float | None]:
    """Turn what JSON cannot hold into None."""
    return {name: float(value) if np.isfinite(value) else None for name, value in scores.items()}
