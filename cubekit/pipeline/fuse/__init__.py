"""Fine images of dates that only a coarse sensor saw."""
