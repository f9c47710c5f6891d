"""Clock, randomness and threads, the same in every replay."""
