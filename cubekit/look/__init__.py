"""A first look at a cube: pictures of one date or many, of what was observed when, and of one pixel."""
