"""From items to a lazy cube, and functions from cube to cube."""
