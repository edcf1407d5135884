"""Speed and memory of cubekit beside its peers and beside the bare work; run with ``make bench``."""
