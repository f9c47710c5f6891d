"""The RLM inside other things: agents, chat models, MCP, LangGraph Server."""
