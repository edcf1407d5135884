"""Whole scenes: tiled prediction on Dask."""
