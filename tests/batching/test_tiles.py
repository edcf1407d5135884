"""Labelled tiles in NPZ files."""

from pathlib import Path

import numpy as np
import pytest

import cubekit as ck
from cubekit.batching.samples import Samples
from cubekit.errors import CubekitError, LabelError, OptionError

BANDS, TIMES = ("red", "nir"), ("2021-10-31", "2021-11-14", "2021-11-28")
CLASSES = {1: "forest", 4: "pasture", 2: "dry jungle"}


def read(folder: Path) -> Samples:
    return ck.read_tiles(folder, bands=BANDS, times=TIMES, classes=CLASSES)


@pytest.fixture
def tiles(tmp_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write two whole tiles and a flattened one, as the field campaign has them."""
    rng = np.random.default_rng(0)
    held = {}
    for name, shape in {"3655-7318-14": (6, 5), "3656-7318-14": (4, 4), "3657-7318-14": (30,)}.items():
        x = rng.integers(1, 9999, (*shape, 3, 2)).astype("uint16")
        y = rng.choice([0, 1, 2, 4], shape).astype("uint8")
        x[rng.random(shape) < 0.1] = 0
        np.savez(tmp_path / f"{name}.npz", X=x, y=y)
        held[name] = (x, y)
    return held


def test_labelled_pixels_become_series_with_a_group_for_each_tile(
    tiles: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    samples = read(tmp_path)
    names = np.array(samples.classes.names)
    assert samples.x.dtype == "uint16"
    for number, (x, y) in enumerate(tiles.values()):
        own = samples.group == number
        wanted = (y != 0) & (x != 0).any(axis=(-2, -1))
        np.testing.assert_array_equal(samples.x[own], x[wanted])
        assert names[samples.y[own]].tolist() == [CLASSES[code] for code in y[wanted].tolist()]
    assert samples.physical().max() < 1
    train, valid, test = ck.split(samples, by="groups", fractions=(0.34, 0.33, 0.33))
    assert not {*train.group} & {*test.group}
    assert len(train) + len(valid) + len(test) == len(samples)


@pytest.mark.parametrize(
    ("arrays", "kind", "said"),
    [
        ({"X": np.zeros((4, 4, 3, 2)), "Y": np.zeros((4, 4), int)}, OptionError, "named X and y"),
        ({"X": np.ones((4, 4, 2, 3)), "y": np.ones((4, 4), int)}, OptionError, "X has shape"),
        ({"X": np.ones((4, 4, 3, 2)), "y": np.full((4, 4), 7)}, LabelError, r"y holds \[7\]"),
        ({"X": np.ones((4, 4, 3, 2)), "y": np.zeros((4, 4), int)}, LabelError, "No pixel"),
        ({"X": np.array([{}]), "y": np.zeros(1, int)}, OptionError, "named X and y"),
    ],
)
def test_files_of_another_kind_are_refused_by_name(
    arrays: dict[str, np.ndarray], kind: type[CubekitError], said: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(kind, match=said):
        read(tmp_path)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(OptionError, match=r"no \.npz file"):
        read(tmp_path)
