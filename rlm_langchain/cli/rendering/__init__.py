"""Shows runs to people, in a terminal."""
