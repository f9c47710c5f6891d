"""The REPL: how a cell runs, and what it can call."""
