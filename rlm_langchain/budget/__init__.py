"""Budgets: what a tree of runs may spend, and what keeps it to that."""
