"""The commands, each in a module of its own except for short ones."""
