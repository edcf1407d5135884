"""Studies on real data: one script a system, over the public functions."""
