"""The live objects of a tree of runs while it works."""
