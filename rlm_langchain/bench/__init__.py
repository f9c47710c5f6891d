"""Benchmarks: the same questions, with known answers, put to an RLM and to what people would use instead."""
