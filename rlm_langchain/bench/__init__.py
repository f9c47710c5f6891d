"""Benchmarks: questions with known answers, asked of RLMs and of baselines."""
