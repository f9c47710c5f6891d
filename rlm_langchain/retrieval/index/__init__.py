"""The index of a context: splits it into passages, and finds them by words and by meaning."""
