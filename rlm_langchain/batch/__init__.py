"""Batches: a file of questions, a file of results, and one budget and one rate limit for all of them."""
