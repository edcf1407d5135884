import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import Accuracy, assess

pairs = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=60),
    )
)


@given(pairs)
@settings(deadline=None)  # the first call imports scikit-learn
def test_scores_equal_scikit_learn(case: tuple[int, list[tuple[int, int]]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    size, drawn = case
    true, predicted = np.array(drawn).T
    labels = list(range(size))
    ours = assess(true, predicted, [f"c{i}" for i in labels])
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=np.nan
    )
    np.testing.assert_array_equal(ours.confusion, metrics.confusion_matrix(true, predicted, labels=labels))
    np.testing.assert_allclose(ours.users, precision)
    np.testing.assert_allclose(ours.producers, recall)
    np.testing.assert_allclose(ours.f1, f1)
    np.testing.assert_array_equal(ours.support, support)
    assert ours.overall == pytest.approx(metrics.accuracy_score(true, predicted))
    assert ours.macro_f1 == pytest.approx(np.nanmean(f1))
    assert ours.weighted_f1 == pytest.approx(
        metrics.f1_score(true, predicted, labels=labels, average="weighted", zero_division=0)
    )
    if len({*true, *predicted}) > 1:
        assert ours.kappa == pytest.approx(metrics.cohen_kappa_score(true, predicted, labels=labels))


def test_unlabelled_is_left_out_and_nodata_counted() -> None:
    ours = assess(np.array([0, 1, -1, 1]), np.array([0, -1, 1, 1]), ["a", "b"])
    np.testing.assert_array_equal(ours.confusion, [[1, 0], [0, 1]])
    assert ours.unpredicted == 1
    assert "1 more without a prediction" in ours.table()


def test_maps_are_compared_as_they_are() -> None:
    truth = np.array([[0, 1], [1, -1]], dtype=np.int16)
    assert assess(truth, np.array([[0, 1], [0, 0]], dtype=np.uint8), ["a", "b"]).overall == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("wrong", [np.array([0, 255]), np.array([0, 2], dtype=np.uint8), np.array([0, -9])])
def test_codes_instead_of_indices_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(OptionError, match=rf"y_pred holds {wrong[1]}"):
        assess(np.array([0, 1]), wrong, ["a", "b"])


def test_probabilities_and_other_shapes_are_refused() -> None:
    with pytest.raises(OptionError, match="float64"):
        assess(np.array([0, 1]), np.array([0.2, 0.8]), ["a", "b"])
    with pytest.raises(OptionError, match=r"\(2,\).*\(3,\)"):
        assess(np.array([0, 1]), np.array([0, 1, 1]), ["a", "b"])


def test_table_and_json_show_undefined_scores_as_such() -> None:
    ours = assess(np.array([0, 0, 1]), np.array([0, 1, 1]), ["forest", "water", "never seen"])
    lines = ours.table().splitlines()
    assert lines[1].split() == ["forest", "2", "0.500", "1.000", "0.667"]
    assert lines[3].split()[-3:] == ["-", "-", "-"]
    record = json.loads(json.dumps(ours.to_dict(), allow_nan=False))
    assert record["classes"][2] == {
        "name": "never seen",
        "samples": 0,
        "producers": None,
        "users": None,
        "f1": None,
    }
    assert record["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_nothing_to_compare_gives_no_score() -> None:
    empty = assess(np.array([-1]), np.array([0]), ["a", "b"])
    assert isinstance(empty, Accuracy)
    assert np.isnan([empty.overall, empty.kappa, empty.macro_f1, empty.weighted_f1]).all()
