"""Retrieval: splits a context into passages and finds them by words (BM25) and by meaning (FAISS), fused by rank.

An index is built when it is first needed, once for each context, and stored. The libraries are an extra,
`pip install "rlm-langchain[retrieval]"`, and are imported when they are first needed.
"""
