"""An RLM as a chat model of LangChain."""
