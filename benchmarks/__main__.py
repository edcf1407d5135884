"""Run rows: every case in a fresh process, all cases of a row in turn, medians over the rounds."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.expected import accept, regressions
from benchmarks.inputs import Inputs
from benchmarks.report import Record, machine, write_report
from benchmarks.rows import ROWS

HERE = Path(__file__).parent
SECONDS = 300
"""What a run may take."""

ROUNDS: dict[str, tuple[int, float]] = {"quick": (3, 8.0), "full": (5, 150.0)}
"""Runs of each case, and the seconds after which no further round of a row begins."""


def main() -> int:
    """Read the options, run, and write ``results.json``, ``results.md`` and ``results.svg``."""
    options = _options()
    if options.accept:
        accept(json.loads((options.out / "results.json").read_text("utf-8")), HERE / "expected.json")
        return 0
    Inputs(options.inputs).make(size=options.size, side=options.side)
    record = run_rows(options)
    print(write_report(options.out, record))
    if not options.check:
        return 0
    worse = regressions(record, HERE / "expected.json")
    print("\n".join(worse) if worse else "No row is slower than expected.", file=sys.stderr)
    return 1 if worse else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="names, with commas (default: all)")
    parser.add_argument("--full", action="store_true", help="five rounds instead of one to three")
    parser.add_argument("--rounds", type=int, help="runs of each case, however long they take")
    parser.add_argument("--size", type=int, default=2000, help="pixels along the scenes")
    parser.add_argument("--side", type=int, default=768, help="pixels along the cube of 24 dates")
    parser.add_argument("--inputs", type=Path, default=HERE / "inputs", help="folder; made if need be")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a row is slower than expected.json says"
    )
    parser.add_argument(
        "--accept", action="store_true", help="run nothing: make the last results what is expected"
    )
    options = parser.parse_args()
    options.rows = options.rows.split(",")
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"no rows {unknown}; there are {list(ROWS)}")
    return options


def run_rows(options: argparse.Namespace) -> Record:
    """Run the chosen rows, and put down what was found and where."""
    facts, start = machine(), time.monotonic()
    kind = "full" if options.full else "quick"
    rounds, seconds = (options.rounds, math.inf) if options.rounds else ROUNDS[kind]
    runs = {name: run_row(name, rounds, seconds, options.inputs) for name in options.rows}
    facts |= {
        "load after": round(os.getloadavg()[0], 2),
        "kind": kind,
        "rounds": f"up to {rounds}",
        "inputs": f"scenes of {options.size} px, cube of 24 dates and {options.side} px",
        "seconds": round(time.monotonic() - start),
    }
    return {
        "machine": facts,
        "medians": {name: summarise(found) for name, found in runs.items()},
        "runs": runs,
    }


def run_row(name: str, rounds: int, seconds: float, inputs: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the cases of a row A B C A B C …; a case that fails is not run again."""
    runs: dict[str, list[dict[str, Any]]] = {case: [] for case in ROWS[name].cases}
    start = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - start > seconds:
            break
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
        rows[case] |= {"wall_min": min(walls), "wall_max": max(walls), "rounds": len(found)}
    return rows


if __name__ == "__main__":
    sys.exit(main())
