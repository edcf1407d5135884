import csv
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.errors import OptionError, TrainingError, UnknownNameError  # noqa: E402
from cubekit.evaluation.accuracy import assess  # noqa: E402
from cubekit.training.bundle import Model, load_model  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Samples]


class Linear(nn.Module):
    """A network that no registry knows."""

    def __init__(self, steps: int = 12, bands: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(steps * bands, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def test_a_separable_problem_is_learned(model: Model, make_samples: Make) -> None:
    test = make_samples(300, seed=2)
    score = assess(test.y, model.classify(test.physical()), test.classes.names)
    assert score.overall > 0.95
    assert not model.network.training


def test_the_best_epoch_is_kept(model: Model) -> None:
    losses = [row["valid_loss"] for row in model.card.history]
    assert len(losses) == 5
    assert model.card.metrics["valid_loss"] == min(losses)
    assert model.card.metrics["epoch"] == 1 + losses.index(min(losses))


def test_kept_weights_are_those_of_the_best_epoch(make_samples: Make) -> None:
    valid = make_samples(150, seed=1)
    # a learning rate this high makes the loss jump up and down, so the best epoch is seldom the last
    model = fit(
        Linear(),
        make_samples(64),
        valid,
        epochs=6,
        batch=32,
        learning_rate=1.0,
        calibrate=False,
        progress=False,
    )
    likely = model.probabilities(valid.physical())[np.arange(150), valid.y]
    usable = np.isfinite(likely)
    assert -np.log(likely[usable]).mean() == pytest.approx(model.card.metrics["valid_loss"], rel=1e-3)


def test_the_best_score_chooses_the_epoch_where_asked(make_samples: Make) -> None:
    from sklearn.metrics import f1_score

    valid = make_samples(150, seed=1)
    options = {"epochs": 6, "batch": 32, "learning_rate": 1.0, "progress": False}
    model = fit(Linear(), make_samples(64), valid, keep="weighted_f1", **options)  # type: ignore[arg-type]
    scores = [row["valid_weighted_f1"] for row in model.card.history]
    assert model.card.metrics["valid_weighted_f1"] == max(scores)
    predicted = model.classify(valid.physical())
    known = predicted >= 0
    expected = f1_score(valid.y[known], predicted[known], average="weighted")
    assert max(scores) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(OptionError, match="needs validation samples"):
        fit(Linear(), valid, keep="weighted_f1")


def test_the_learning_rate_is_halved_after_the_epochs_listed() -> None:
    from cubekit.tasks.task import Recipe, scheduler_of

    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = scheduler_of(optimizer, Recipe(schedule=(2, 5)))
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 2.5e-4]


@pytest.mark.parametrize("schedule", [(), (5, 2), (0, 3), (3, 3)])
def test_epochs_that_halve_the_rate_rise(make_samples: Make, schedule: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="rise from 1 on"):
        fit("conv1d", make_samples(64), make_samples(64, seed=1), schedule=schedule)


def test_same_seed_same_weights_other_seed_others(make_samples: Make) -> None:
    def weights(seed: int) -> Tensor:
        trained = fit("tempcnn", make_samples(64), epochs=1, batch=32, seed=seed, progress=False)
        flat: Tensor = torch.cat([value.flatten().float() for value in trained.network.state_dict().values()])
        return flat

    before = torch.get_rng_state()
    first, again, other = weights(0), weights(0), weights(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_has_its_own_order(make_samples: Make) -> None:
    seen: list[Tensor] = []

    class Watching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    fit(Watching(), make_samples(64), epochs=2, batch=64, progress=False)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(*(x.flatten().sort().values for x in seen))


def test_a_network_of_ones_own_is_trained_as_a_copy(make_samples: Make, tmp_path: Path) -> None:
    mine = Linear()
    before = mine.head.weight.clone()
    model = fit(
        mine,
        make_samples(400),
        make_samples(100, seed=1),
        epochs=5,
        batch=32,
        learning_rate=0.01,
        progress=False,
    )
    assert torch.equal(mine.head.weight, before)
    assert model.card.metrics["valid_accuracy"] > 0.9
    assert model.card.network.endswith("Linear")
    model.save(tmp_path)
    x = make_samples(20, seed=3).physical()
    loaded = load_model(tmp_path, network=Linear())
    np.testing.assert_array_equal(loaded.probabilities(x), model.probabilities(x))


def test_days_of_the_year_reach_a_network_that_asks(make_samples: Make) -> None:
    class Dated(Linear):
        def forward(self, x: Tensor, mask: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
            assert mask is None
            assert doy is not None
            assert doy[0, :3].tolist() == [1, 32, 60]
            return super().forward(x)

    fit(Dated(), make_samples(32), epochs=1, batch=32, progress=False)


def test_out_holds_model_and_log(make_samples: Make, tmp_path: Path) -> None:
    for _ in range(2):  # a run may be repeated into its folder
        fit(
            "tempcnn",
            make_samples(64),
            make_samples(40, seed=1),
            epochs=2,
            batch=32,
            out=tmp_path,
            progress=False,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "metrics.csv", "model.json", "weights.safetensors",
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert sum(bool(row["valid_loss"]) for row in rows) == 2
    assert load_model(tmp_path).card.data.train == 64


def test_series_without_a_band_are_left_out_and_counted(make_samples: Make) -> None:
    train = make_samples(80)
    train.x[:5, :, 1] = 0
    model = fit(Linear(), train, epochs=1, batch=32, progress=False)
    assert (model.card.data.train, model.card.data.dropped) == (75, 5)
    assert sum(model.card.data.train_counts) == 75


def test_gaps_have_no_influence(model: Model, make_samples: Make) -> None:
    samples = make_samples(50, seed=4)
    other = replace(samples, x=samples.x.copy(), encoding=replace(samples.encoding, nodata=7))
    other.x[samples.x == 0] = 7
    np.testing.assert_array_equal(
        model.probabilities(samples.physical()), model.probabilities(other.physical())
    )


@pytest.mark.parametrize("size", [33, 64, 65])
def test_no_batch_is_left_with_one_sample(make_samples: Make, size: int) -> None:
    fit("tempcnn", make_samples(size), epochs=1, batch=32, progress=False)


def test_progress_without_a_terminal_is_one_line_a_tenth(
    make_samples: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(Linear(), make_samples(32), make_samples(32, seed=1), epochs=20, batch=32)
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("train: epoch 20/20")
    assert "valid accuracy" in lines[-1]
    assert captured.out == ""


def test_a_bar_shows_the_scores(make_samples: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fit(Linear(), make_samples(32), make_samples(32, seed=1), epochs=2, batch=32, progress=True)
    captured = capfd.readouterr()
    assert "valid_accuracy" in captured.out + captured.err


def test_training_stops_when_it_gets_no_better(make_samples: Make) -> None:
    noise = make_samples(64)
    noise = replace(noise, y=np.random.default_rng(0).permutation(noise.y))
    model = fit(
        Linear(),
        noise,
        noise.take(list(range(20))),
        epochs=50,
        batch=32,
        patience=2,
        learning_rate=1.0,
        progress=False,
    )
    assert len(model.card.history) < 50


@pytest.mark.parametrize("weights", ["balanced", (1.0, 2.0, 0.5)])
def test_class_weights_are_taken(make_samples: Make, weights: str | tuple[float, ...]) -> None:
    model = fit(Linear(), make_samples(64), epochs=1, batch=32, class_weights=weights, progress=False)  # type: ignore[arg-type]
    assert model.card.settings["class_weights"] in (weights, list(weights))


def test_one_class_is_refused(make_samples: Make) -> None:
    with pytest.raises(TrainingError, match="'bare soil': a classifier needs at least two"):
        fit("tempcnn", make_samples(40, classes=1), batch=32)


def test_fewer_samples_than_a_batch_are_refused(make_samples: Make) -> None:
    with pytest.raises(
        TrainingError, match="40 training samples are fewer than one batch of 256: lower batch="
    ):
        fit("tempcnn", make_samples(40))


def test_validation_of_another_kind_is_refused(make_samples: Make) -> None:
    other = replace(make_samples(40), bands=("nir", "red"), encoding=Encoding(dtype="uint16", nodata=0))
    with pytest.raises(TrainingError, match=r"differ in bands.*'red', 'nir'.*coding"):
        fit("tempcnn", make_samples(40), other, batch=32)


def test_a_loss_that_is_no_number_stops_with_epoch_and_batch(make_samples: Make) -> None:
    samples = make_samples(96)
    values = samples.physical()
    values[5, 3] = 3e38
    wrong = replace(samples, x=values, encoding=Encoding(dtype="float32", nodata=float("nan")))
    from cubekit.batching.normalise_fit import fit_normalisation

    ready = fit_normalisation(samples)
    with pytest.raises(
        TrainingError,
        match=r"loss became (nan|inf) in epoch 1, batch [123]: the largest input is 3e\+38, in sample 5",
    ):
        fit(Linear(), wrong, epochs=2, batch=32, normalise=ready, progress=False)


def test_infinite_samples_are_refused_by_number(make_samples: Make) -> None:
    stored = make_samples(64)
    train = replace(stored, x=stored.physical(), encoding=Encoding(dtype="float32", nodata=float("nan")))
    train.x[37, 4, 0] = np.inf
    with pytest.raises(TrainingError, match=r"1 training samples \(37\) hold infinite values"):
        fit(Linear(), train, epochs=1, batch=32, progress=False)


def test_unknown_names_and_options_are_refused(make_samples: Make) -> None:
    train = make_samples(40)
    with pytest.raises(UnknownNameError, match="tempcnn"):
        fit("tempcn", train, batch=32)
    with pytest.raises(OptionError, match=r"no argument 'widht'.*'width'"):
        fit("tempcnn", train, batch=32, arguments={"widht": 3})
    with pytest.raises(OptionError, match="'classify'"):
        fit("tempcnn", train, batch=32, task="clasify")  # type: ignore[arg-type]
    for wrong in ({"epochs": 0}, {"learning_rate": -1}, {"label_smoothing": 1}, {"patience": 2}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            fit("tempcnn", train, batch=32, **wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="class_weights"):
        fit("tempcnn", train, batch=32, class_weights=[1, 2])


def test_an_interrupt_stays_an_interrupt(make_samples: Make) -> None:
    handler = signal.getsignal(signal.SIGINT)

    class Interrupted(Linear):
        def forward(self, x: Tensor) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), make_samples(64), epochs=1, batch=32, progress=False)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.shared
def test_real_series_beat_the_majority(shared: Path) -> None:
    from cubekit.batching.series import read_series
    from cubekit.evaluation.baselines import majority, random_forest

    path = shared / "data/cbers4_bahia_2018_2019/cbers_samples_022024.parquet"
    samples = read_series(path, bands=["ndvi", "evi"])
    order = np.random.default_rng(0).permutation(len(samples))
    train, test = samples.take(order[:700]), samples.take(order[700:])
    model = fit("tempcnn", train, epochs=3, batch=64, progress=False)
    names = samples.classes.names
    learned = assess(test.y, model.classify(test.physical()), names)
    assert learned.overall > assess(test.y, majority(train, test), names).overall + 0.2
    assert assess(test.y, random_forest(train, test, trees=30), names).overall > 0.6
    json.dumps(learned.to_dict(), allow_nan=False)


def test_the_split_and_a_scaling_by_step_are_stored_with_the_model(
    make_samples: Make, tmp_path: Path
) -> None:
    from cubekit.batching.split import plan_split
    from cubekit.batching.split_record import load_split

    samples = make_samples(120)
    split = plan_split(samples, by="random")
    train, valid, _ = split.apply(samples)
    model = fit(
        Linear(), train, valid, epochs=1, batch=16, normalise="standard_by_step", split=split, out=tmp_path,
        progress=False,
    )  # fmt: skip
    again = load_model(tmp_path, network=Linear())
    assert again.card.data.split == load_split(tmp_path / "split.parquet").digest() == split.digest()
    assert f"Split `{split.digest()}`" in (tmp_path / "README.md").read_text()
    assert again.card.normalisation.steps == len(samples.times)
    physical = train.physical()
    np.testing.assert_allclose(
        np.reshape(again.card.normalisation.mean, physical.shape[1:]), np.nanmean(physical, axis=0), rtol=1e-4
    )
    np.testing.assert_array_equal(model.classify(physical), again.classify(physical))
    with pytest.raises(OptionError, match=r"numbers for \d+ steps; the samples have"):
        fit(
            Linear(), replace(train, x=train.x[:, :-1], times=train.times[:-1]), epochs=1, batch=16,
            normalise=again.card.normalisation, progress=False,
        )  # fmt: skip
