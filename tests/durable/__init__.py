"""A program that is killed, what it asks, and who kills it."""
