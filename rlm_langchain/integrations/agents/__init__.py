"""RLMs for agents: a node, a tool, a middleware."""
