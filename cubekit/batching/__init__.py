"""From cubes to batches: plans, splits, samples, normalisation, streams."""
