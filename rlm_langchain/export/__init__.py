"""Exports finished runs as training data, and as traces for trace viewers."""
