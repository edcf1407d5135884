import weakref
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cubekit.batching.torch.transfer import Carrier, pinned  # noqa: E402

pytestmark = pytest.mark.torch


def arrays() -> dict[str, Any]:
    return {"x": np.arange(6, dtype="uint16").reshape(2, 3), "index": np.arange(2)}


def test_memory_is_held_until_the_copy_from_it_is_over() -> None:
    told: list[str] = []

    class Event:
        """In place of CUDA's: tells when it is waited for."""

        def __init__(self, number: int) -> None:
            self.number = number

        def synchronize(self) -> None:
            assert alive[self.number]() is not None
            told.append(f"waited for {self.number}")

    alive: list[Any] = []
    carry = Carrier("meta", mark=lambda: Event(len(alive) - 1))
    for number in range(3):
        batch = arrays()
        alive.append(weakref.ref(batch["x"]))
        there = carry(batch)
        del batch
        assert there["x"].device.type == "meta"
        assert told == [f"waited for {before}" for before in range(number)]
        assert [each() is not None for each in alive] == [False] * number + [True]


def test_tensors_stay_where_no_device_is_named() -> None:
    given = arrays()
    there = Carrier(None)(given)
    given["x"][0, 0] = 9
    assert int(there["x"][0, 0]) == 9  # the same memory
    assert torch.equal(Carrier("cpu")(given)["x"], there["x"])


def test_batches_are_copied_to_pinned_memory_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    empty = torch.empty

    def noted(size: int, **options: Any) -> Any:
        asked.append(options)
        return empty(size, dtype=options["dtype"])

    assert pinned() is None
    monkeypatch.setattr(torch, "empty", noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pin = pinned()
    assert pin is not None
    given = {"x": np.arange(2**20, dtype="uint16").reshape(2, -1), "index": np.arange(2)}
    first = pin(given)
    for name, values in first.items():
        np.testing.assert_array_equal(values, given[name])
    assert asked == [{"dtype": torch.uint8, "pin_memory": True}]  # small arrays are not worth it
    del first, values
    pin(given)
    assert len(asked) == 1  # the same memory again
