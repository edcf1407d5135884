"""Networks, one paper per file, and the registry that names them."""

from cubekit.nn.registry import create, describe, names, register

__all__ = ["create", "describe", "names", "register"]
