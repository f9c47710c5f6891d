"""The commands: one module for each, except for short ones."""
