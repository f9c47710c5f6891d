"""Budgets: what a tree of runs may spend, and the ledger and limiters that enforce it."""
