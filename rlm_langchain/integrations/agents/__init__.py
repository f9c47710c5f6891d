"""RLMs for LangChain agents: as a tool, and as a middleware."""
