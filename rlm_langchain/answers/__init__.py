"""Answers: checked against a schema, with quotes found in the context and the share of it that was read."""
