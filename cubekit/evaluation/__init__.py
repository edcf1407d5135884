"""Scores, accuracy assessment and baselines."""
