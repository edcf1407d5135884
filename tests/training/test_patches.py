"""From a store to a map with a network that looks at patches: streams, training and tiles fit each other."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import cubekit as ck
from cubekit.batching.patches import PatchPlan
from cubekit.testing.archive import SampleArchive

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*different classes"),  # the sample's polygons touch at their borders
]


def test_a_unet_learns_from_patches_of_a_store_and_maps_it(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    items = ck.open_items(sample_archive.items)
    where = ck.grid(crs=sample_archive.crs, resolution=10, bbox=sample_archive.bbox)
    cube = ck.open_cube(items, where, bands=["red", "nir"], mask="clouds")
    cube = ck.fill_gaps(ck.composite(cube, every="2MS"), how="linear")
    cube = ck.write(cube, tmp_path / "cube.zarr", layout="patches", progress=False)
    labels = ck.load_labels(sample_archive.labels, cube, column="class")
    plan = PatchPlan(cube, 16).keep_valid(labels["label"].to_numpy() >= 0, least=0.05)
    train = ck.batches(cube, plan, batch=4, shuffle=True, labels=labels)
    assert set(train.classes.names) == set(sample_archive.classes)
    model = ck.fit(
        "unet",
        train,
        train,
        arguments={"width": 4, "depth": 2},
        epochs=15,
        learning_rate=0.01,
        out=tmp_path / "model",
        progress=False,
    )
    assert model.card.form == "patches"
    history = model.card.history
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    again = ck.load_model(tmp_path / "model")
    made = ck.predict(again, cube, out=tmp_path / "map.zarr", progress=False)
    truth = labels["label"].to_numpy()
    known = truth >= 0
    score = (made["class"].to_numpy()[known] == truth[known]).mean()
    most = np.bincount(truth[known]).max() / known.sum()
    assert score > most + 0.2
