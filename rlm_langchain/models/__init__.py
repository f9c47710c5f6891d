"""Models: finding them by name, calling them, and computing the usage and price of each call."""
