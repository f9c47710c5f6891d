"""Recursive Language Models on LangGraph (Zhang, Kraska, Khattab, arXiv 2512.24601)."""
