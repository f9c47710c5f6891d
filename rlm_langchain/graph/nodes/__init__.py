"""One module for each node of the graph."""
