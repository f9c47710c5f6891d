"""The kinds of context, one module each."""
