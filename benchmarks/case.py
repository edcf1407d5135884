"""One run of one case in this process: ``python -m benchmarks.case ROW CASE INPUTS`` prints facts as JSON."""

import json
import os
import sys
import warnings
from pathlib import Path

from benchmarks.inputs import Inputs
from benchmarks.measure import Clock
from benchmarks.rows import ROWS


def main(row: str, case: str, folder: str) -> None:
    """Run a case and print what it measured."""
    warnings.simplefilter("ignore")  # peers warn of coming changes; that is not what is measured
    os.environ["CUBEKIT_ALLOW_HOSTS"] = "127.0.0.1"  # where the suite's own file server listens
    clock = Clock()
    facts = ROWS[row].cases[case](Inputs(Path(folder)), clock)
    print(json.dumps({**clock.facts, **facts}), flush=True)
    os._exit(0)  # threads that a library left must not hold the suite up


if __name__ == "__main__":
    main(*sys.argv[1:])
