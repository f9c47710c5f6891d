"""Answers: the check against a schema, the search for quotes, and the share of the context that was read."""
