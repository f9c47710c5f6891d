"""Indexes and embeddings that are kept."""
