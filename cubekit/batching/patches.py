"""Plans of patches: on a grid that loses no edge, random, of one share of valid pixels, balanced by class."""

from collections.abc import Iterator, Mapping
from typing import Literal, Self

import numpy as np
import xarray as xr

from cubekit.batching.plan import Plan, Windows, check_space
from cubekit.errors import LabelError, OptionError, check_option
from cubekit.typing import Array, BoolArray, FloatArray, IntArray

Edge = Literal["keep", "drop"]


class PatchPlan(Plan):
    """Patches of one size, as an ``xbatcher.BatchGenerator``.

    Every patch covers all dates, or a number of consecutive ones. Methods return a plan of fewer, or other,
    patches. Held in 16 bytes a patch, 24 where it is cut in time.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        With dims ``y`` and ``x``; read when a patch is asked for.
    size : int or tuple of int, optional
        Rows and columns of a patch.
    stride : int or tuple of int, optional
        Rows and columns from one patch to the next. Default: `size`.
    steps : int, optional
        Dates in a patch. Default: all.
    horizon : int, optional
        Dates that follow them and are to be forecast.
    every : int, optional
        Dates from one patch to the next, where `steps` is given.
    edge : {"keep", "drop"}, optional
        Whether a last patch is put flush with the edge where the grid leaves a rest, or the rest is lost, as
        plain xbatcher does.

    Raises
    ------
    OptionError
        If a dimension is missing or shorter than a patch, or a number is not positive.

    Examples
    --------
    >>> cube = xr.Dataset({"data": (("time", "y", "x"), np.zeros((3, 5, 4)))})
    >>> [int(n) for n in PatchPlan(cube, 2).bounds("y")[::2, 0]]
    [0, 2, 3]
    """

    def __init__(
        self,
        data: xr.Dataset | xr.DataArray,
        size: int | tuple[int, int] = 64,
        *,
        stride: int | tuple[int, int] | None = None,
        steps: int | None = None,
        horizon: int = 0,
        every: int = 1,
        edge: Edge = "keep",
    ) -> None:
        check_option("edge", edge, ["keep", "drop"])
        lengths = _lengths(data, size, steps, horizon)
        strides = dict(zip(("y", "x"), _pair("stride", size if stride is None else stride), strict=True))
        if every < 1:
            raise OptionError(f"every={every!r} must be at least 1.")
        # naming every dim keeps xbatcher from flattening time and band into "sample"
        super().__init__(data, {str(dim): length for dim, length in data.sizes.items()} | lengths)
        self.steps, self.horizon = steps, horizon
        starts = {
            dim: _starts(
                data.sizes[dim], length, strides.get(dim, every), flush=edge == "keep" and dim != "time"
            )
            for dim, length in lengths.items()
        }
        self._batch_selectors.selectors = Windows.product(
            {dim: np.stack([first, first + lengths[dim]], axis=1) for dim, first in starts.items()}
        )

    @classmethod
    def random(
        cls,
        data: xr.Dataset | xr.DataArray,
        size: int | tuple[int, int] = 64,
        *,
        count: int,
        seed: int = 0,
        steps: int | None = None,
        horizon: int = 0,
    ) -> Self:
        """Draw patches anywhere, every position as likely as any other and at most once.

        Parameters
        ----------
        data : xarray.Dataset or xarray.DataArray
            With dims ``y`` and ``x``.
        size : int or tuple of int, optional
            Rows and columns of a patch.
        count : int
            Patches to draw.
        seed : int, optional
            Of the draw.
        steps : int, optional
            Dates in a patch. Default: all.
        horizon : int, optional
            Dates that follow them and are to be forecast.

        Returns
        -------
        PatchPlan
            In the order drawn.

        Raises
        ------
        OptionError
            If there are fewer positions than `count`.
        """
        plan = cls(data, size, steps=steps, horizon=horizon)
        lengths = _lengths(data, size, steps, horizon)
        free = [data.sizes[dim] - length + 1 for dim, length in lengths.items()]
        total = int(np.prod(free))
        if not 1 <= count <= total:
            raise OptionError(f"count={count!r}: there are {total} positions for such patches.")
        chosen = np.random.default_rng(seed).choice(total, count, replace=False)
        bounds = np.empty((count, 2 * len(free)), "int32")
        for axis, (first, length) in enumerate(
            zip(np.unravel_index(chosen, free), lengths.values(), strict=True)
        ):
            bounds[:, 2 * axis], bounds[:, 2 * axis + 1] = first, first + length
        return plan._with(Windows(bounds, tuple(lengths)))

    @classmethod
    def at(
        cls,
        data: xr.Dataset | xr.DataArray,
        size: int | tuple[int, int] = 64,
        *,
        corners: IntArray,
        steps: int | None = None,
        horizon: int = 0,
    ) -> Self:
        """Take patches at given corners.

        Parameters
        ----------
        data : xarray.Dataset or xarray.DataArray
            With dims ``y`` and ``x``.
        size : int or tuple of int, optional
            Rows and columns of a patch.
        corners : numpy.ndarray
            (n, 2) first row and column of each patch, or (n, 3) with the first date before them where `steps`
            is given; also repeatedly.
        steps : int, optional
            Dates in a patch. Default: all.
        horizon : int, optional
            Dates that follow them and are to be forecast.

        Returns
        -------
        PatchPlan
            In the order given.

        Raises
        ------
        OptionError
            If a patch reaches beyond the data, or the corners have another shape.
        """
        lengths = _lengths(data, size, steps, horizon)
        first, last = np.asarray(corners), [data.sizes[dim] - length for dim, length in lengths.items()]
        if first.ndim != 2 or first.shape[1] != len(last):  # noqa: PLR2004
            raise OptionError(f"corners has shape {first.shape}, expected (n, {len(last)}): {list(lengths)}.")
        if len(first) and (first.min() < 0 or (first > last).any()):
            raise OptionError(f"corners: patches of {lengths} must lie within {dict(data.sizes)}.")
        sizes = np.array(list(lengths.values()))
        bounds = np.stack([first, first + sizes], axis=2).reshape(len(first), -1)
        plan = cls(data, size, steps=steps, horizon=horizon, stride=max(data.sizes["y"], data.sizes["x"]))
        return plan._with(Windows(bounds.astype("int32"), tuple(lengths)))

    def share(self, mask: BoolArray) -> FloatArray:
        """Return which share of each patch is True.

        Parameters
        ----------
        mask : numpy.ndarray
            (y, x) bool.

        Returns
        -------
        numpy.ndarray
            (n,) float64, 0 to 1.
        """
        values = self._raster("mask", mask) != 0
        height, width = (self.input_dims[dim] for dim in ("y", "x"))
        share: FloatArray = self._sums(values) / (height * width)
        return share

    def shares(self, label: IntArray | xr.DataArray, classes: int) -> FloatArray:
        """Return the share of each class in the pixels of each patch.

        Parameters
        ----------
        label : numpy.ndarray or xarray.DataArray
            (y, x) class index, below 0 where there is none.
        classes : int
            How many there are.

        Returns
        -------
        numpy.ndarray
            (n, classes) float64; rows sum to the labelled share of the patch.

        Raises
        ------
        OptionError
            If the shape differs from the data's.
        """
        shares = np.zeros((len(self), classes))
        area = self.input_dims["y"] * self.input_dims["x"]
        for each, sums, _ in self._by_class(label):
            shares[:, each] = sums / area
        return shares

    def keep_valid(self, valid: BoolArray | xr.DataArray, *, least: float = 0.5) -> Self:
        """Leave out patches with too little data.

        Parameters
        ----------
        valid : numpy.ndarray or xarray.DataArray
            (y, x) bool: pixels that count as data, such as ``(cube["observations"] > 0).any("time")``.
        least : float, optional
            Smallest share of such pixels in a patch, 0 to 1.

        Returns
        -------
        PatchPlan
            The patches that have it, in the same order.

        Raises
        ------
        OptionError
            If the shape differs from the data's, or `least` is no share.
        """
        if not 0 <= least <= 1:
            raise OptionError(f"least={least!r} must be a share from 0 to 1.")
        return self.take(self.share(np.asarray(valid)) >= least)

    def stratified(self, label: IntArray | xr.DataArray, *, per_class: int, seed: int = 0) -> Self:
        """Draw the same number of patches of each class.

        A patch is of the class that most of its labelled pixels have; patches without labels are left out.

        Parameters
        ----------
        label : numpy.ndarray or xarray.DataArray
            (y, x) class index, below 0 where there is none.
        per_class : int
            Patches to draw of each class; all of a class that has fewer.
        seed : int, optional
            Of the draw.

        Returns
        -------
        PatchPlan
            In the order of this plan.

        Raises
        ------
        LabelError
            If no patch has a label.
        OptionError
            If the shape differs from the data's, or `per_class` is not positive.
        """
        if per_class < 1:
            raise OptionError(f"per_class={per_class!r} must be at least 1.")
        majority = self.majority(label)
        random = np.random.default_rng(seed)
        classes = np.unique(majority[majority >= 0])
        if not classes.size:
            raise LabelError(f"None of {len(self)} patches has a labelled pixel.")
        chosen = [random.permutation(np.flatnonzero(majority == each))[:per_class] for each in classes]
        return self.take(np.sort(np.concatenate(chosen)))

    def weighted(
        self,
        label: IntArray | xr.DataArray,
        *,
        count: int,
        weights: Mapping[int, float] | None = None,
        seed: int = 0,
        replace: bool = False,
    ) -> Self:
        """Draw patches, the likelier the more pixels of heavy classes they have.

        The weight of a patch is the sum of the weights of its pixels.

        Parameters
        ----------
        label : numpy.ndarray or xarray.DataArray
            (y, x) class index, below 0 where there is none: such pixels weigh nothing.
        count : int
            Patches to draw.
        weights : mapping, optional
            Weight of each class index; classes that it lacks weigh nothing. Default: one over the number of
            pixels of the class, so that all classes are drawn alike.
        seed : int, optional
            Of the draw.
        replace : bool, optional
            Whether a patch may be drawn repeatedly.

        Returns
        -------
        PatchPlan
            In the order drawn.

        Raises
        ------
        LabelError
            If fewer than `count` patches weigh anything, and none may be drawn twice.
        OptionError
            If the shape differs from the data's, a weight is negative, or `count` is not positive.
        """
        if count < 1:
            raise OptionError(f"count={count!r} must be at least 1.")
        heavy = np.zeros(len(self))
        for each, sums, pixels in self._by_class(label):
            weight = 1 / pixels if weights is None else weights.get(each, 0)
            if weight < 0:
                raise OptionError(f"weights[{each}]={weight!r} must not be negative.")
            heavy += sums * weight
        weighing = int((heavy > 0).sum())
        if not weighing or (weighing < count and not replace):
            raise LabelError(
                f"{weighing} of {len(self)} patches hold pixels of classes that weigh anything; "
                f"count={count}. replace=True draws patches repeatedly."
            )
        random = np.random.default_rng(seed)
        return self.take(random.choice(len(self), count, replace=replace, p=heavy / heavy.sum()))

    def majority(self, label: IntArray | xr.DataArray) -> IntArray:
        """Return the class that most labelled pixels of each patch have.

        Parameters
        ----------
        label : numpy.ndarray or xarray.DataArray
            (y, x) class index, below 0 where there is none.

        Returns
        -------
        numpy.ndarray
            (n,) int64, -1 where no pixel has a label; the lower class where two have as many.
        """
        best, winner = np.zeros(len(self)), np.full(len(self), -1)
        for each, sums, _ in self._by_class(label):
            more = sums > best
            best[more], winner[more] = sums[more], each
        return winner

    def _by_class(self, label: IntArray | xr.DataArray) -> Iterator[tuple[int, FloatArray, int]]:
        """Give each class with its pixels in every patch, and in all."""
        values = self._raster("label", label)
        for each in np.unique(values[values >= 0]).tolist():
            mask = values == each
            yield int(each), self._sums(mask), int(mask.sum())

    def _raster(self, what: str, values: Array | xr.DataArray) -> Array:
        """Return an array that has the rows and columns of the data."""
        raster, shape = np.asarray(values), (self.ds.sizes["y"], self.ds.sizes["x"])
        if raster.shape != shape:
            raise OptionError(f"{what} has shape {raster.shape}; the data has {shape} rows and columns.")
        return raster

    def _sums(self, mask: BoolArray) -> FloatArray:
        """Count the True pixels of every patch: sums between all borders first, then of whole patches."""
        (rows, top, bottom), (columns, left, right) = (_borders(self.bounds(dim)) for dim in ("y", "x"))
        padded = np.zeros((len(rows), len(columns)), "int64")
        inner = mask[rows[0] : rows[-1], columns[0] : columns[-1]]
        counts = np.add.reduceat(inner, columns[:-1] - columns[0], axis=1, dtype="int32")
        padded[1:, 1:] = np.add.reduceat(counts, rows[:-1] - rows[0], axis=0).cumsum(0).cumsum(1)
        total = padded[bottom, right] - padded[top, right] - padded[bottom, left] + padded[top, left]
        return total.astype("float64")

    def __repr__(self) -> str:
        height, width = (self.input_dims[dim] for dim in ("y", "x"))
        dates = f", {self.steps} + {self.horizon} dates" if self.steps else ""
        return (
            f"PatchPlan: {len(self)} patches of {height} x {width} pixels{dates}, of "
            f"{self.ds.sizes['y']} x {self.ds.sizes['x']}"
        )


def _pair(what: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns."""
    pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:  # noqa: PLR2004
        raise OptionError(f"{what}={value!r} must be a positive number of pixels, or two.")
    return int(pair[0]), int(pair[1])


def _lengths(
    data: xr.Dataset | xr.DataArray, size: int | tuple[int, int], steps: int | None, horizon: int
) -> dict[str, int]:
    """Return the length of a patch along each dimension that is cut."""
    check_space(data)
    lengths = dict(zip(("y", "x"), _pair("size", size), strict=True))
    if steps is not None:
        if steps < 1 or horizon < 0:
            raise OptionError(f"steps={steps!r} must be at least 1, horizon={horizon!r} at least 0.")
        lengths = {"time": steps + horizon, **lengths}
    elif horizon:
        raise OptionError(f"horizon={horizon} needs steps=: the number of dates before it.")
    for dim, length in lengths.items():
        if length > data.sizes.get(dim, 0):
            found = data.sizes.get(dim, 0)
            raise OptionError(f"A patch takes {length} along {dim!r}; the data has {found}.")
    return lengths


def _starts(length: int, size: int, stride: int, *, flush: bool) -> IntArray:
    """Return where patches begin along a dimension; the last one flush with the edge if asked."""
    first = np.arange(0, length - size + 1, stride, dtype="int32")
    rest = length - size - first[-1]
    return np.append(first, length - size).astype("int32") if flush and rest else first


def _borders(bounds: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return all borders in order, and which of them each patch begins and ends at."""
    borders, place = np.unique(bounds, return_inverse=True)
    first, last = place.reshape(bounds.shape).T
    return borders, first, last
