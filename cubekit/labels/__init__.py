"""Reference labels on a grid: polygons, points and rasters become class indices with a class table."""

from cubekit.labels.classes import ClassTable, class_table
from cubekit.labels.fractions import load_fractions
from cubekit.labels.load import load_labels

__all__ = ["ClassTable", "class_table", "load_fractions", "load_labels"]
