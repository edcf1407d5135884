"""Accuracies of the five systems on real data: one script a system, over the public functions."""
