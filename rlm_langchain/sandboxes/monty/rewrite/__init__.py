"""Rewrites a cell into the subset of Python that Monty runs."""
