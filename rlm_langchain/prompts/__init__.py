"""Prompts and strategies: everything that models read."""
