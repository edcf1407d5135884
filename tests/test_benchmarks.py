"""The benchmark suite's own arithmetic: bars, regressions, and the page made from results."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.expected import accept, regressions
from benchmarks.measure import Bar
from benchmarks.report import judged, table
from benchmarks.rows import ROWS


def _record(cubekit: float, peer: float, requests: float = 20.0) -> dict[str, Any]:
    """Return results of one row: CPU seconds of cubekit and of all peers."""

    def case(seconds: float, asked: float) -> dict[str, float]:
        times = {"wall": seconds, "cpu": seconds, "wall_min": seconds, "wall_max": seconds}
        return {**times, "peak_mb": 100.0, "requests": asked}

    cases = {name: case(peer, 80.0) for name in ROWS["http"].cases}
    return {"medians": {"http": {**cases, "cubekit": case(cubekit, requests)}}}


def test_a_bar_compares_with_the_best_of_the_others() -> None:
    medians = {"cubekit": {"wall": 2.0}, "one": {"wall": 6.0}, "two": {"wall": 3.0}}
    bar = Bar(text="", against=("one", "two"), at_least=2)
    assert bar.value(medians) == pytest.approx(1.5)
    assert not bar.met(1.5)
    assert bar.value({"cubekit": {"wall": 2.0}, "one": {"wall": 6.0}}) is None  # one of them is missing


def test_regressions_are_told_beyond_the_band_only(tmp_path: Path) -> None:
    accepted = tmp_path / "expected.json"
    accept(_record(1.0, 2.0), accepted)
    assert regressions(_record(1.2, 2.0), accepted) == []
    slower = regressions(_record(2.0, 2.0), accepted)
    assert len(slower) == len(ROWS["http"].cases) - 1
    assert any("CPU over odc-stac pool" in line for line in slower)
    (asked,) = regressions(_record(1.0, 2.0, requests=60.0), accepted)
    assert "requests" in asked


def test_a_case_of_cubekit_that_fails_is_a_regression(tmp_path: Path) -> None:
    accepted = tmp_path / "expected.json"
    accept(_record(1.0, 2.0), accepted)
    broken = _record(1.0, 2.0)
    broken["medians"]["http"]["cubekit"] = {"failed": "SourceError"}
    assert regressions(broken, accepted) == ["http: cubekit failed: SourceError"]


def test_the_table_names_what_is_missing_and_other_results() -> None:
    rows = _record(1.0, 2.0)["medians"]
    rows["http"]["stackstac"] = {"failed": "No module named 'stackstac'"}
    rows["http"]["cubekit"]["check"], rows["http"]["odc-stac pool"]["check"] = 1.0, 1.5
    lines = "\n".join(table(rows))
    assert "not measured: No module named 'stackstac'" in lines
    assert "other result" in lines


def test_every_row_has_cubekit_and_bars_that_can_be_judged() -> None:
    for name, row in ROWS.items():
        assert any(case.startswith(("cubekit", "24 dates")) for case in row.cases), name
        for bar in row.bars:
            assert set(bar.against) | {bar.case} <= set(row.cases), (name, bar.text)
            assert (bar.at_least is None) != (bar.at_most is None)
        assert all(found["met"] is None for found in judged(row, {}))


def test_expected_ratios_are_of_rows_that_exist() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "expected.json"
    assert set(json.loads(path.read_text("utf-8"))) <= set(ROWS)
