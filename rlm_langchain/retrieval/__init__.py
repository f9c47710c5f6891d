"""Retrieval: any context cut into passages, found by words (BM25) and by meaning (FAISS), fused by rank.

Indexes are made when they are first needed, once for each context, and kept in the store. The libraries for it are
an extra, `pip install "rlm-langchain[retrieval]"`, and are imported when they are first needed too.
"""
