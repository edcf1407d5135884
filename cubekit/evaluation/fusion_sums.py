"""What the scores of a fused image are made of, as sums that parts of a scene give one by one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from cubekit.typing import BoolArray, FloatArray

MARGIN = 8
"""Pixels around a part that its windows look at: filters of 3, 8 and 11 pixels, two of them in a row."""

_BLOCK, _GAUSS = 8, 11
_FLAT = 1e-14  # of the squared range: what running sums leave of a window without contrast
_LAPLACE = np.array([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])


@dataclass(frozen=True)
class Place:
    """Where a part lies in its scene, in pixels; stops are excluded."""

    scene: tuple[int, int]
    """Rows and columns of the whole scene."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    """First and last of those that this part counts."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns to read: the part and a margin, as far as there is a scene."""
        (top, bottom), (left, right) = self.rows, self.columns
        return (
            slice(max(top - MARGIN, 0), min(bottom + MARGIN, self.scene[0])),
            slice(max(left - MARGIN, 0), min(right + MARGIN, self.scene[1])),
        )

    def inside(self, values: Any, before: int = 0, after: int | None = None) -> Any:
        """Cut a map of the window to what this part counts, less a rim of the scene.

        Parameters
        ----------
        values : numpy.ndarray
            ``(…, y, x)`` of the window.
        before, after : int, optional
            Rows and columns at the beginning and the end of the scene to leave out; `after` as `before`.

        Returns
        -------
        numpy.ndarray
            A view.
        """
        after = before if after is None else after
        cuts = []
        for (first, stop), size, window in zip(
            (self.rows, self.columns), self.scene, self.window, strict=True
        ):
            begin = max(first, before)
            cuts.append(slice(begin - window.start, max(min(stop, size - after), begin) - window.start))
        return values[..., cuts[0], cuts[1]]


@dataclass(frozen=True)
class Moments:
    """Means and sums of squared deviations of two images, for each band ``(c,)``."""

    n: int
    mean_p: FloatArray
    mean_g: FloatArray
    pp: FloatArray
    gg: FloatArray
    pg: FloatArray

    @classmethod
    def of(cls, p: FloatArray, g: FloatArray) -> "Moments":
        """Take the moments of two images.

        Parameters
        ----------
        p, g : numpy.ndarray
            Values ``(c, n)``.

        Returns
        -------
        Moments
            Zeros where there are no values.
        """
        if not p.shape[1]:
            return cls(0, *(np.zeros(len(p)) for _ in range(5)))
        mean_p, mean_g = p.mean(axis=1), g.mean(axis=1)
        dp, dg = p - mean_p[:, None], g - mean_g[:, None]
        return cls(
            p.shape[1], mean_p, mean_g, (dp * dp).sum(axis=1), (dg * dg).sum(axis=1), (dp * dg).sum(axis=1)
        )

    def __add__(self, other: "Moments") -> "Moments":
        """Join two parts; Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115."""
        n = self.n + other.n
        if not n:
            return self
        dp, dg = other.mean_p - self.mean_p, other.mean_g - self.mean_g
        share, weight = other.n / n, self.n * other.n / n
        return Moments(
            n,
            self.mean_p + dp * share,
            self.mean_g + dg * share,
            self.pp + other.pp + dp * dp * weight,
            self.gg + other.gg + dg * dg * weight,
            self.pg + other.pg + dp * dg * weight,
        )

    def band(self, index: int) -> "Moments":
        """Return those of one band.

        Parameters
        ----------
        index : int
            Of the band.

        Returns
        -------
        Moments
            Of length one.
        """
        one = slice(index, index + 1)
        return Moments(self.n, self.mean_p[one], self.mean_g[one], self.pp[one], self.gg[one], self.pg[one])


@dataclass(frozen=True)
class Total:
    """Sum and number of the values of a map: for each band ``(c,)``, or of all bands together ``(1,)``."""

    total: FloatArray
    n: int

    def __add__(self, other: "Total") -> "Total":
        """Join two parts."""
        return Total(self.total + other.total, self.n + other.n)

    @property
    def mean(self) -> FloatArray:
        """Mean over the scene; NaN where nothing was counted."""
        return self.total / self.n if self.n else np.full(len(self.total), np.nan)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over a part of a scene, or the whole of it."""

    moments: Moments
    """Of the images."""

    high: Moments
    """Of the images after a Laplacian filter; windows with a gap do not count."""

    totals: Mapping[str, Total]
    """Of maps: ``absolute``, ``squared``, ``clipped``, ``ssim``, ``uqi``, ``angle`` and so on."""

    unknown: int = 0
    """Pixels without a true value in some band."""

    n_invalid: int = 0
    """Pixels that have true values but no finite prediction in some band."""

    dark: int = 0
    """Pixels that are zero in all bands of an image: they have no spectral angle."""

    def __add__(self, other: "Sums") -> "Sums":
        """Join two parts of a scene."""
        return Sums(
            moments=self.moments + other.moments,
            high=self.high + other.high,
            totals={name: total + other.totals[name] for name, total in self.totals.items()},
            unknown=self.unknown + other.unknown,
            n_invalid=self.n_invalid + other.n_invalid,
            dark=self.dark + other.dark,
        )

    def band(self, index: int) -> "Sums":
        """Return the sums of one band; what belongs to all bands together is not defined there.

        Parameters
        ----------
        index : int
            Of the band.

        Returns
        -------
        Sums
            Of length one, without ``angle``.
        """
        totals = {
            name: Total(total.total[index : index + 1], total.n)
            for name, total in self.totals.items()
            if name not in {"angle", "rase"}
        }
        if "rase_band" in totals:
            totals["rase"] = totals["rase_band"]
        return replace(self, moments=self.moments.band(index), high=self.high.band(index), totals=totals)


def part_sums(
    predicted: FloatArray, target: FloatArray, place: Place, *, data_range: float = 1.0, compat: bool = False
) -> Sums:
    """Sum up a part of a scene.

    Parameters
    ----------
    predicted, target : numpy.ndarray
        Images of ``place.window`` ``(c, h, w)``; a pixel counts where all bands of both are finite, a window
        where all of its pixels count.
    place : Place
        Of the part.
    data_range : float, optional
        Largest value that can occur.
    compat : bool, optional
        For the definitions of the published comparison.

    Returns
    -------
    Sums
        Of the pixels and windows whose centre lies in the part.
    """
    known = np.isfinite(target).all(axis=0)
    valid = np.asarray(known & np.isfinite(predicted).all(axis=0))
    p, g = (np.where(valid, image, 0).astype(np.float64) for image in (predicted, target))
    scene = _Scene(place, valid, whole=bool(valid.all()))
    counted = place.inside(valid)
    inner_p, inner_g = (place.inside(image)[:, counted] for image in (p, g))
    totals = {
        "absolute": _of(np.abs(inner_p - inner_g)),
        "squared": _of((inner_p - inner_g) ** 2),
        "clipped": _of((inner_p.clip(0, data_range) - inner_g.clip(0, data_range)) ** 2),
    }
    totals["angle"], dark = _angles(inner_p, inner_g)
    totals["ssim"] = _ssim(p, g, data_range, scene, compat=compat)
    totals["uqi"] = _uqi(p, g, data_range, scene, compat=compat)
    high = [ndimage.correlate(image, _LAPLACE[None], mode="reflect") for image in (p, g)]
    if compat:
        totals |= _local_errors((p - g) ** 2, g, scene)
        totals["scc"] = _local_correlation(high[0], high[1], scene)
    smooth = place.inside(scene.undisturbed(3, "reflect"))
    return Sums(
        moments=Moments.of(inner_p, inner_g),
        high=Moments.of(*(place.inside(image)[:, smooth] for image in high)),
        totals=totals,
        unknown=int((~place.inside(known)).sum()),
        n_invalid=int((place.inside(known) & ~counted).sum()),
        dark=dark,
    )


@dataclass(frozen=True)
class _Scene:
    """A part with its gaps."""

    place: Place
    valid: BoolArray
    whole: bool

    def undisturbed(self, size: int, mode: str) -> BoolArray:
        """Tell where a window of some pixels holds no gap."""
        if self.whole:
            return self.valid
        border = "nearest" if mode in {"reflect", "mirror", "constant"} else mode
        return np.asarray(ndimage.minimum_filter(self.valid, size=size, mode=border))

    def count(
        self, values: FloatArray, windows: BoolArray, before: int = 0, after: int | None = None
    ) -> Total:
        """Sum up a map ``(c, h, w)`` over windows without gaps."""
        kept = self.place.inside(windows, before, after)
        return _of(self.place.inside(values, before, after)[:, kept])


def _of(values: FloatArray) -> Total:
    """Sum up values ``(c, n)``."""
    return Total(values.sum(axis=1), values.shape[1])


def _angles(p: FloatArray, g: FloatArray) -> tuple[Total, int]:
    """Sum up spectral angles in radians, and count pixels that have none."""
    lengths = np.linalg.norm(p, axis=0) * np.linalg.norm(g, axis=0)
    bright = lengths > 0  # a zero vector has no direction
    cosines = (p * g).sum(axis=0)[bright] / lengths[bright]
    return _of(np.arccos(cosines.clip(-1, 1))[None]), int((~bright).sum())


def _ssim(p: FloatArray, g: FloatArray, data_range: float, scene: _Scene, *, compat: bool) -> Total:
    if compat:
        p, g = p.clip(0, data_range), g.clip(0, data_range)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_p, mean_g = _gauss(p), _gauss(g)
    var_p, var_g = ((_gauss(a * a) - m * m).clip(0) for a, m in ((p, mean_p), (g, mean_g)))
    covariance = _gauss(p * g) - mean_p * mean_g
    similar = (2 * mean_p * mean_g + c1) * (2 * covariance + c2)
    similar /= (mean_p**2 + mean_g**2 + c1) * (var_p + var_g + c2)
    return scene.count(similar, scene.undisturbed(_GAUSS, "mirror"), 0 if compat else _GAUSS // 2)


def _uqi(p: FloatArray, g: FloatArray, data_range: float, scene: _Scene, *, compat: bool) -> Total:
    if compat:
        blur, size, border = _gauss, _GAUSS, (_GAUSS // 2, _GAUSS // 2)
    else:
        blur, size, border = _box, _BLOCK, (_BLOCK // 2, _BLOCK // 2 - 1)
    mean_p, mean_g = blur(p), blur(g)
    var_p, var_g = blur(p * p) - mean_p**2, blur(g * g) - mean_g**2
    covariance = blur(p * g) - mean_p * mean_g
    light, contrast = mean_p**2 + mean_g**2, var_p + var_g
    if compat:
        quality: FloatArray = 4 * mean_p * mean_g * covariance / (light * contrast + np.finfo(np.float32).eps)
    else:
        agreement = _quotient(2 * mean_p * mean_g, light, data_range)
        quality = agreement * _quotient(2 * covariance, contrast, data_range)
    return scene.count(quality, scene.undisturbed(size, "reflect"), *border)


def _quotient(part: FloatArray, whole: FloatArray, data_range: float) -> FloatArray:
    """Divide, and give 1 for nothing of nothing: flat windows, as the authors' own code has it."""
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > _FLAT * data_range**2)


def _local_errors(squared: FloatArray, g: FloatArray, scene: _Scene) -> dict[str, Total]:
    """Sum up RMSE and RASE over 8 x 8 windows, as the published comparison defines them."""
    local, means = _box(squared), _box(g) / _BLOCK**2
    windows, rim = scene.undisturbed(_BLOCK, "reflect"), _BLOCK // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        together = 100 / means.mean(axis=0) * np.sqrt(local.mean(axis=0))
        each = 100 / means * np.sqrt(local)
    return {
        "rmse": scene.count(np.sqrt(local), windows, rim),
        "rase": scene.count(together[None], windows, rim),
        "rase_band": scene.count(each, windows, rim),
    }


def _local_correlation(a: FloatArray, b: FloatArray, scene: _Scene) -> Total:
    """Sum up correlations over 8 x 8 windows with zeros around the scene; 0 where there is no variation."""
    mean_a, mean_b = _box(a, mode="constant"), _box(b, mode="constant")
    var_a, var_b = (_box(h * h, mode="constant") - m * m for h, m in ((a, mean_a), (b, mean_b)))
    covariance = _box(a * b, mode="constant") - mean_a * mean_b
    spread = np.sqrt(var_a.clip(0)) * np.sqrt(var_b.clip(0))
    local = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread != 0)
    return scene.count(local, scene.undisturbed(_BLOCK + 2, "constant"))


def _box(x: FloatArray, *, mode: str = "reflect") -> FloatArray:
    """Mean over 8 x 8 windows from 4 before to 3 after; scipy's "reflect" repeats the edge pixel."""
    means: FloatArray = ndimage.uniform_filter(x, size=(1, _BLOCK, _BLOCK), mode=mode)
    return means


def _gauss(x: FloatArray) -> FloatArray:
    """Mean under a Gaussian of 11 x 11 pixels; scipy's "mirror" does not repeat the edge pixel."""
    means: FloatArray = ndimage.gaussian_filter(x, 1.5, mode="mirror", radius=_GAUSS // 2, axes=(1, 2))
    return means
