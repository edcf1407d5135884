"""Whole jobs written down as one YAML file, from scenes to a map and its report."""
