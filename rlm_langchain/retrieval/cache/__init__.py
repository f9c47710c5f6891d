"""Stores indexes and embeddings on disk."""
