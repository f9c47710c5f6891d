"""The graph: start with `graph.py`."""
