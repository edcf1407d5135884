from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.batching.torch import SampleStream, batches  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.errors import OptionError  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Samples]


def numbered(n: int) -> Samples:
    """Samples whose only value is their number."""
    return Samples(
        x=np.arange(1, n + 1, dtype="uint16").reshape(n, 1, 1),
        y=np.zeros(n, "int16"),
        bands=("b",),
        times=np.array(["2020-12-31"], "datetime64[ns]"),
        classes=ClassTable.of(["a"]),
        group=np.zeros(n, "int64"),
        position=np.zeros((n, 2)),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype="uint16", nodata=0),
    )


def numbers(stream: object) -> list[int]:
    return [int(number) for each in stream for number in each["x"].flatten()]  # type: ignore[attr-defined]


def test_a_batch_holds_physical_values_and_what_goes_with_them(make_samples: Make) -> None:
    samples = make_samples(10)
    (batch,) = batches(samples)
    np.testing.assert_array_equal(batch["x"], samples.physical())
    np.testing.assert_array_equal(batch["valid"], samples.valid())
    np.testing.assert_array_equal(batch["y"], samples.y)
    np.testing.assert_array_equal(batch["doy"], np.broadcast_to(samples.doy(), (10, 5)))
    assert {name: value.dtype for name, value in batch.items()} == {
        "x": torch.float32, "y": torch.int64, "valid": torch.bool, "doy": torch.int64
    }  # fmt: skip


def test_shares_are_floats(make_samples: Make) -> None:
    samples = replace(make_samples(10), y=np.full((10, 3), 1 / 3))
    (batch,) = batches(samples)
    assert batch["y"].dtype == torch.float32
    assert batch["y"].shape == (10, 3)


@settings(max_examples=60)
@given(n=st.integers(1, 200), batch=st.integers(1, 70), shuffle=st.booleans(), seed=st.integers(0, 9))
def test_every_sample_comes_once_in_batches_of_like_size(
    *, n: int, batch: int, shuffle: bool, seed: int
) -> None:
    stream = batches(numbered(n), batch=batch, shuffle=shuffle, seed=seed)
    sizes = [len(each["y"]) for each in stream]
    assert len(sizes) == len(stream)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    assert sorted(numbers(stream)) == list(range(1, n + 1))


def test_epochs_have_their_own_order_and_the_seed_repeats_them() -> None:
    stream, again = (batches(numbered(100), batch=8, shuffle=True, seed=3) for _ in range(2))
    epochs = [numbers(stream) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [numbers(again) for _ in range(3)] == epochs
    again.set_epoch(1)
    assert numbers(again) == epochs[1]
    assert numbers(batches(numbered(100), batch=8, shuffle=True, seed=4)) != epochs[0]
    in_order = batches(numbered(100), batch=8)
    assert numbers(in_order) == numbers(in_order) == list(range(1, 101))


def test_a_pass_that_was_left_starts_anew() -> None:
    stream = batches(numbered(100), batch=8, shuffle=True)
    first = next(iter(stream))
    np.testing.assert_array_equal(next(iter(stream))["x"], first["x"])


@settings(max_examples=40)
@given(stop=st.integers(0, 12), epoch=st.integers(0, 3))
def test_a_resumed_stream_gives_the_rest(stop: int, epoch: int) -> None:
    stream = batches(numbered(100), batch=8, shuffle=True, seed=1)
    stream.set_epoch(epoch)
    passing = iter(stream)
    done = [number for _ in range(stop) for number in next(passing)["x"].flatten().int().tolist()]
    other = batches(numbered(100), batch=8, shuffle=True, seed=1)
    other.load_state_dict(stream.state_dict())
    other.set_epoch(epoch)  # as trainers do before each pass; must not lose the place
    whole = batches(numbered(100), batch=8, shuffle=True, seed=1)
    whole.set_epoch(epoch)
    assert done + numbers(other) == numbers(whole)
    assert numbers(other) == numbers(whole)  # and then the next epoch, from its start


def test_the_epoch_ends_with_its_last_batch() -> None:
    stream, whole = (batches(numbered(100), batch=8, shuffle=True) for _ in range(2))
    epochs = [numbers(each for _, each in zip(range(len(stream)), stream, strict=False)) for _ in range(2)]
    assert epochs == [numbers(whole), numbers(whole)]


def test_a_finished_epoch_resumes_at_the_next() -> None:
    stream = batches(numbered(100), batch=8, shuffle=True)
    numbers(stream)
    other = batches(numbered(100), batch=8, shuffle=True)
    other.load_state_dict(stream.state_dict())
    assert numbers(other) == numbers(stream)


def test_the_state_of_another_stream_is_refused() -> None:
    state = batches(numbered(100), batch=8, shuffle=True).state_dict()
    with pytest.raises(OptionError, match="samples was 100, is 99"):
        batches(numbered(99), batch=8, shuffle=True).load_state_dict(state)
    with pytest.raises(OptionError, match="seed was 0, is 1"):
        batches(numbered(100), batch=8, shuffle=True, seed=1).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader_workers_share_out_an_epoch_without_repeats(workers: int) -> None:
    stream = batches(numbered(101), batch=8, shuffle=True, seed=2)
    alone = batches(numbered(101), batch=8, shuffle=True, seed=2)
    alone.set_epoch(5)
    expected = numbers(alone)
    context = "forkserver" if workers else None
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
    stream.set_epoch(5)
    assert len(loader) == 13
    assert numbers(loader) == expected


def test_a_lone_last_sample_does_not_upset_batch_normalisation() -> None:
    norm = torch.nn.BatchNorm1d(1)
    for each in batches(numbered(257), batch=256):
        norm(each["x"][:, 0])


def test_repr_says_what_it_costs(make_samples: Make) -> None:
    text = repr(batches(make_samples(1000), batch=64, shuffle=True))
    assert text == (
        "SampleStream: 1000 samples of 5 steps x 2 bands in 16 batches of at most 64, shuffled; "
        "0.0 MB held as uint16, 0.0 MB of tensors an epoch"
    )


def test_refusals(make_samples: Make) -> None:
    with pytest.raises(OptionError, match="empty"):
        batches(make_samples(5).take([]))
    with pytest.raises(OptionError, match="batch=0"):
        batches(make_samples(5), batch=0)
    assert isinstance(batches(make_samples(5)), SampleStream)
