"""Class maps: from scenes and labels to a map, its scores and its report."""
