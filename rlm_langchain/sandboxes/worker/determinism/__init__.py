"""Replaces clock, randomness and threads by versions that are the same in every replay."""
