"""Networks, one paper per file, and the registry that names them."""
