"""Fusion networks: the fine image of a second date, from both images of a first and its coarse one."""
