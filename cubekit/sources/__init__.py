"""Where scenes come from; every source yields pystac items."""
