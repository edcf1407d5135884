"""Whole jobs on sample data that are made on the spot: nothing to download, nothing to set."""

from cubekit.demo.run import run_demo

__all__ = ["run_demo"]
