"""What lives while a tree of runs works."""
