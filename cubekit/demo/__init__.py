"""Whole jobs on sample data that are made on the spot: nothing to download, nothing to set."""

from cubekit.demo.run import compare_demo, run_demo

__all__ = ["compare_demo", "run_demo"]
