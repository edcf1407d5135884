"""Stored numbers made ready in one pass, against decoding, filling and normalising one after the other."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from cubekit.batching.normalise import Normalisation  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.prediction.block import physical_series  # noqa: E402
from cubekit.prediction.prepare import Preparation  # noqa: E402
from cubekit.tasks.series import SeriesInput  # noqa: E402

TIMES = pd.date_range("2023-01-01", periods=5, freq="MS").to_numpy()
BANDS = ("a", "b", "c")
RULES = {
    "by band": Normalisation(method="percentile", bands=BANDS, low=(0.1, 0.0, 0.2), high=(0.4, 0.7, 0.5)),
    "by step": Normalisation(
        method="standard", bands=BANDS, mean=tuple(np.linspace(0, 1, 15)), std=tuple(np.linspace(1, 2, 15))
    ),
}
CODINGS = {
    "uint16": Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1),
    "int16": Encoding(dtype="int16", nodata=-9999, scale=1e-4),
    "uint8": Encoding(dtype="uint8"),
    "float32": Encoding(dtype="float32", nodata=float("nan")),
    "float64": Encoding(dtype="float64", nodata=-1.0, scale=2.0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", CODINGS)
@pytest.mark.parametrize(("shape", "threads"), [((40, 300), 1), ((40, 300), 3), ((1, 700), 1), ((50, 7), 2)])
def test_one_pass_gives_the_same_bits(
    rule: str, kind: str, shape: tuple[int, int], threads: int, three_at_most: None
) -> None:
    del three_at_most
    rng = np.random.default_rng(0)
    coding = CODINGS[kind]
    stored = rng.integers(1, 200, (5, 3, *shape)).astype(kind)
    if coding.nodata is not None:
        gaps = rng.random(stored.shape) < 0.02
        gaps[:, 1, :, -2:] = True  # a band that was never observed
        stored[gaps] = coding.nodata
    wide = np.pad(stored, [(0, 0), (0, 0), (2, 3), (1, 4)])[:, :, 2:-3, 1:-4]  # a part of a larger array
    inputs = SeriesInput(TIMES, RULES[rule])
    torch.set_num_threads(threads)
    found, usable = Preparation(inputs, coding)(wide)
    physical, _ = physical_series(stored, coding)
    expected = inputs(torch.from_numpy(np.ascontiguousarray(physical.transpose(2, 3, 0, 1))).view(-1, 5, 3))
    assert torch.equal(found.view(-1, 5, 3), expected["x"])
    assert torch.equal(usable.view(-1), expected["usable"])
    assert bool(usable.all()) == (coding.nodata is None)


@pytest.fixture
def three_at_most() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
