"""Run rows: every case in a fresh process, all cases of a row in turn, medians over the rounds."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.inputs import Inputs
from benchmarks.report import machine, write_report
from benchmarks.rows import ROWS

HERE = Path(__file__).parent
SECONDS = 300


def main() -> None:
    """Read the options, run, and write ``results.json``, ``results.md`` and ``results.png``."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="names, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case (default: 3)")
    parser.add_argument("--size", type=int, default=1000, help="pixels along a tile of the inputs")
    parser.add_argument("--dates", type=int, default=12, help="dates of the inputs")
    parser.add_argument("--inputs", type=Path, default=HERE / "inputs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no rows {unknown}; there are {list(ROWS)}")
    Inputs(options.inputs).make(size=options.size, dates=options.dates)
    facts, start = machine(), time.monotonic()
    runs = {name: run_row(name, options.rounds, options.inputs) for name in names}
    facts |= {
        "load after": os.getloadavg()[0],
        "rounds": options.rounds,
        "inputs": f"{options.size} px, {options.dates} dates",
        "seconds": round(time.monotonic() - start),
    }
    rows = {name: summarise(found) for name, found in runs.items()}
    print(write_report(options.out, facts, rows, runs))


def run_row(name: str, rounds: int, inputs: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the cases of a row A B C A B C …; a case that fails is not run again."""
    runs: dict[str, list[dict[str, Any]]] = {case: [] for case in ROWS[name].cases}
    for number in range(rounds):
        for case, found in runs.items():
            if not any("failed" in run for run in found):
                found.append(run_case(name, case, inputs))
                print(f"{name}, round {number + 1}: {case}: {found[-1]}", file=sys.stderr, flush=True)
    return runs


def run_case(row: str, case: str, inputs: Path) -> dict[str, Any]:
    """Run one case in a process of its own; a failure is a result, told in a line."""
    command = [sys.executable, "-m", "benchmarks.case", row, case, str(inputs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"took over {SECONDS} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    return json.loads(lines[-1]) if done.returncode == 0 else {"failed": lines[-1][:200]}


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the median of each figure of each case, with the extremes of wall time; or why it failed."""
    rows: dict[str, dict[str, Any]] = {}
    for case, found in runs.items():
        failed = [run["failed"] for run in found if "failed" in run]
        if failed:
            rows[case] = {"failed": failed[0]}
            continue
        rows[case] = {key: statistics.median(run[key] for run in found) for key in found[0]}
        walls = [run["wall"] for run in found]
        rows[case] |= {"wall_min": min(walls), "wall_max": max(walls)}
    return rows


if __name__ == "__main__":
    main()
