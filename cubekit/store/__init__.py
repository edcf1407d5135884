"""Zarr stores that survive: layout, resumable writing, opening, verifying."""
