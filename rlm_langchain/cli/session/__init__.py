"""One run of the command: asking, keeping, approving, interrupting."""
