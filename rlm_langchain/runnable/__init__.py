"""`RLMRunnable`, and what it is built from."""
