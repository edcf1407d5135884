from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cubekit.errors import ExportError
from cubekit.evaluation.fractions import share_bins
from cubekit.exports.figures import fraction_maps_figure, save_figure, share_reliability_figure
from cubekit.exports.fraction_tables import write_comparison, write_fractions
from cubekit.labels import ClassTable

CLASSES = ClassTable.of(["Artificial", "Forests"], codes=[1, 42])
IDS = np.array([30, 4, 12])
FOUND = np.array([[0.25, 0.75], [0.9, 0.1], [np.nan, np.nan]])


def test_inference_table_is_sorted_and_complete(tmp_path: Path) -> None:
    table = pd.read_csv(write_fractions(tmp_path / "out" / "p.csv", IDS, FOUND, CLASSES))
    assert list(table) == ["id", "1", "42", "cls_max", "cls_max_prob"]
    assert table["id"].tolist() == [4, 12, 30]
    assert table["cls_max"].tolist()[::2] == [1, 42]
    assert table["cls_max_prob"].tolist()[::2] == [0.9, 0.75]
    assert table.iloc[1, 1:].isna().all()


def test_comparison_table_has_the_columns_of_the_specification(tmp_path: Path) -> None:
    truth = np.array([[0.4, 0.6], [0.2, 0.8], [1.0, 0.0]])
    table = pd.read_csv(write_comparison(tmp_path / "e.csv", IDS, truth, FOUND, CLASSES))
    assert list(table) == [
        *("square_id", "1_true", "42_true", "1_pred", "42_pred"),
        *("cls_max_true", "cls_max_pred", "cls_max_true_prob", "cls_max_pred_prob"),
    ]
    assert table["square_id"].tolist() == [4, 12, 30]
    row = table.set_index("square_id").loc[4]
    assert (row["cls_max_true"], row["cls_max_pred"]) == (42, 1)
    assert (row["cls_max_true_prob"], row["cls_max_pred_prob"]) == (0.8, 0.9)
    with pytest.raises(ExportError, match="Cannot write"):
        write_fractions(tmp_path / "e.csv" / "p.csv", IDS, FOUND, CLASSES)


def test_figures_show_every_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(2), (20, 30)).transpose(2, 0, 1)
    maps[:, :3] = np.nan
    figure = fraction_maps_figure(xr.DataArray(maps, dims=("category", "y", "x")), CLASSES)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == [f"{n}, {np.nanmean(m):.0%} of the land" for n, m in zip(CLASSES, maps, strict=True)]
    assert save_figure(figure, tmp_path / "maps.png").stat().st_size > 5_000
    flat = np.nan_to_num(maps.reshape(2, -1).T, nan=0.5)
    drawn = share_reliability_figure(share_bins(flat, flat), CLASSES)
    assert np.asarray(drawn.axes[0].collections[0].get_offsets()).shape[0] > 3
    with pytest.raises(ExportError, match="2 layers"):
        fraction_maps_figure(xr.DataArray(maps[:1], dims=("category", "y", "x")), CLASSES)
