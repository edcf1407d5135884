import subprocess
import sys

import numpy as np
import pytest

from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.evaluation.accuracy import assess
from cubekit.evaluation.baselines import majority, random_forest
from cubekit.labels import ClassTable


def make_samples(n: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype("int16")
    x = (y[:, None, None] + rng.normal(0, 0.2, (n, 6, 2))).astype("float32")
    x[rng.random(x.shape) < 0.3] = np.nan
    x[:, 0] = y[:, None]
    return Samples(
        x=x,
        y=y,
        bands=("a", "b"),
        times=np.arange("2022-01", "2022-07", dtype="datetime64[M]").astype("datetime64[ns]"),
        classes=ClassTable.of(["common", "rare"]),
        group=np.arange(n),
        position=np.full((n, 2), np.nan),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype="float32", nodata=float("nan")),
    )


def test_scores_and_baselines_load_without_torch() -> None:
    code = (
        "import sys, cubekit.evaluation.baselines, cubekit.evaluation.area; "
        "assert not {'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_table_names_the_classes() -> None:
    test = make_samples(7, 1)
    assert assess(test.y, majority(test, test), test.classes).classes == ("common", "rare")


def test_majority_is_the_commonest_training_class() -> None:
    assert majority(make_samples(100, 0), make_samples(7, 1)).tolist() == [0] * 7


def test_random_forest_learns_and_repeats() -> None:
    pytest.importorskip("sklearn")
    train, test = make_samples(200, 0), make_samples(100, 1)
    first = random_forest(train, test, seed=3, trees=20)
    assert (first == test.y).mean() > 0.95
    np.testing.assert_array_equal(first, random_forest(train, test, seed=3, trees=20))


def test_random_forest_gives_no_class_without_data() -> None:
    pytest.importorskip("sklearn")
    train, test = make_samples(60, 0), make_samples(5, 1)
    test.x[2, :, 1] = np.nan
    assert (random_forest(train, test, trees=5) == -1).tolist() == [False, False, True, False, False]
