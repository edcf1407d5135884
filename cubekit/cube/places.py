"""Places of a block's pixels in a file: along two axes, at nodes with lines between them, or one by one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from cubekit.typing import FloatArray, IntArray

_EXACT: Final = 1e-9  # of a pixel: what is beside it weighs nothing among whole numbers


@dataclass(frozen=True)
class Positions:
    """Places in a source, in its pixels; (0, 0) is the outer corner of the first pixel."""

    rows: FloatArray
    """Shape (y, 1) on parallel axes, else (y, x); not finite where there is no such place."""

    cols: FloatArray
    """Shape (1, x) or (y, x)."""

    @property
    def on_axes(self) -> bool:
        """Whether rows of the target are rows of the source."""
        return bool(self.rows.shape[1] == 1 and self.cols.shape[0] == 1)

    @cached_property
    def on_centres(self) -> bool:
        """Whether all places are centres of pixels, so that weighing gives the nearest pixel itself."""
        return self.on_axes and all(
            bool((np.abs(places % 1 - 0.5) < _EXACT).all()) for places in (self.rows, self.cols)
        )


@dataclass(frozen=True, eq=False)
class Nodes:
    """Pixels of a target at which places are known; in between they are linear."""

    rows: FloatArray
    """Rows of the source at the nodes, shape (node along y, node along x)."""

    cols: FloatArray
    """Columns, same shape."""

    step: int
    """Pixels from one node to the next."""

    past: tuple[int, int]
    """How far the first row and column of the target lie behind the first nodes."""

    shape: tuple[int, int]
    """Rows and columns of the target."""

    def along(self, axis: int) -> tuple[IntArray, FloatArray]:
        """Return the node before each row (axis 0) or column of the target, and the share of the next one.

        Parameters
        ----------
        axis : int
            0 or 1.

        Returns
        -------
        tuple of numpy.ndarray
            Numbers of nodes, and shares from 0 to 1.
        """
        behind = self.past[axis] + np.arange(self.shape[axis])
        node = np.minimum(behind // self.step, self.rows.shape[axis] - 2)
        return node, (behind - node * self.step) / self.step

    def at(self, lines: IntArray, columns: IntArray) -> Positions:
        """Return the places of some rows and columns of the target.

        Parameters
        ----------
        lines, columns : numpy.ndarray of int
            Which ones.

        Returns
        -------
        Positions
            Every place is the same whatever others are asked for.
        """
        (rows, down), (cols, right) = self.along(0), self.along(1)
        rows, down, cols, right = rows[lines], down[lines, None], cols[columns], right[columns]
        found = []
        for nodes in (self.rows, self.cols):
            with np.errstate(invalid="ignore"):
                first, second = nodes[rows], nodes[rows + 1]
                across = first + (second - first) * down
                first, second = np.take(across, cols, axis=1), np.take(across, cols + 1, axis=1)
                found.append(first + (second - first) * right)
        return Positions(*found)

    def corners(self) -> Positions:
        """Return the places among which are the outermost of each row and column of the source.

        Returns
        -------
        Positions
            At the nodes, and on the rim of the target.
        """
        lines, columns = (
            np.unique([0, size - 1, *range(-past % self.step, size, self.step)])
            for size, past in zip(self.shape, self.past, strict=True)
        )
        return self.at(lines, columns)


class Meshed(Positions):
    """Places between nodes, worked out in full only if somebody asks for them.

    Parameters
    ----------
    nodes : Nodes
        What is known.
    """

    nodes: Nodes

    def __init__(self, nodes: Nodes) -> None:
        object.__setattr__(self, "nodes", nodes)

    @cached_property
    def _full(self) -> Positions:
        return self.nodes.at(np.arange(self.nodes.shape[0]), np.arange(self.nodes.shape[1]))

    @property
    def rows(self) -> FloatArray:
        """Shape (y, x)."""
        return self._full.rows

    @property
    def cols(self) -> FloatArray:
        """Shape (y, x)."""
        return self._full.cols

    @property
    def on_axes(self) -> bool:
        """Never."""
        return False


def mesh_of(where: Positions, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray, tuple[Any, ...]]:
    """Return places as compiled kernels take them.

    Parameters
    ----------
    where : Positions
        From :func:`positions`.
    shape : tuple of int
        Rows and columns of the target.

    Returns
    -------
    tuple
        Rows and columns of the source at the nodes; then, for each row of the target, the node before it and
        the share of the next, how far the first column is behind its node, and the step. A step of 1 means
        that every pixel is a node.
    """
    if isinstance(where, Meshed):
        nodes = where.nodes
        return nodes.rows, nodes.cols, (*nodes.along(0), nodes.past[1], nodes.step)
    rows, cols = (np.ascontiguousarray(np.broadcast_to(part, shape)) for part in (where.rows, where.cols))
    return rows, cols, (np.zeros(0, np.intp), np.zeros(0), 0, 1)
