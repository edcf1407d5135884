"""Fractions of pixels as CSV tables: for use, and for comparison with the truth."""

from pathlib import Path

import numpy as np
import pandas as pd

from cubekit.errors import ExportError
from cubekit.labels import ClassTable
from cubekit.typing import Array, FloatArray, StrPath


def write_fractions(path: StrPath, ids: Array, fractions: FloatArray, classes: ClassTable) -> Path:
    """Write predicted fractions: ``id``, a column for each class code, ``cls_max``, ``cls_max_prob``.

    Parameters
    ----------
    path : path
        CSV file; replaced.
    ids : numpy.ndarray
        Numbers of the pixels ``(n,)``.
    fractions : numpy.ndarray
        Predicted ``(n, k)``; rows of NaN stay empty.
    classes : ClassTable
        The k classes.

    Returns
    -------
    pathlib.Path
        The file, rows sorted by id.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    codes = [str(code) for code in classes.codes]
    table = pd.DataFrame(fractions, columns=codes)
    table.insert(0, "id", ids)
    table["cls_max"], table["cls_max_prob"] = _greatest(fractions, codes)
    return _write(table.sort_values("id"), path)


def write_comparison(
    path: StrPath, ids: Array, truth: FloatArray, fractions: FloatArray, classes: ClassTable
) -> Path:
    """Write true beside predicted fractions.

    Columns: ``square_id``, ``<class>_true`` of all classes, ``<class>_pred`` of all classes,
    ``cls_max_true``, ``cls_max_pred``, ``cls_max_true_prob``, ``cls_max_pred_prob``.

    Parameters
    ----------
    path : path
        CSV file; replaced.
    ids : numpy.ndarray
        Numbers of the pixels ``(n,)``.
    truth : numpy.ndarray
        True fractions ``(n, k)``.
    fractions : numpy.ndarray
        Predicted ``(n, k)``; rows of NaN stay empty.
    classes : ClassTable
        The k classes.

    Returns
    -------
    pathlib.Path
        The file, rows sorted by id.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    codes = [str(code) for code in classes.codes]
    columns: dict[str, object] = {"square_id": ids}
    for name, values in (("true", truth), ("pred", fractions)):
        columns |= {f"{code}_{name}": values[:, index] for index, code in enumerate(codes)}
    (true, true_share), (found, share) = _greatest(truth, codes), _greatest(fractions, codes)
    columns |= {"cls_max_true": true, "cls_max_pred": found}
    columns |= {"cls_max_true_prob": true_share, "cls_max_pred_prob": share}
    return _write(pd.DataFrame(columns).sort_values("square_id"), path)


def _greatest(shares: FloatArray, codes: list[str]) -> tuple[Array, FloatArray]:
    """Return code and share of the greatest class of each row; None and NaN where a row is not known."""
    known = np.isfinite(shares).all(axis=1)
    best = np.where(known, np.nan_to_num(shares).argmax(axis=1), 0)
    code = np.array(codes, dtype=object)[best]
    code[~known] = None
    return code, np.where(known, np.take_along_axis(shares, best[:, None], axis=1)[:, 0], np.nan)


def _write(table: pd.DataFrame, path: StrPath) -> Path:
    """Write a table; the file is whole at any time."""
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(part, index=False, float_format="%.6f")
        part.replace(target)
    except OSError as error:
        raise ExportError(f"Cannot write {target}: {error.strerror}.") from error
    return target
