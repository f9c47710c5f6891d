"""`RLMRunnable`, and how it is built and run."""
