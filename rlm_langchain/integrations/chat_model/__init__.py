"""`ChatRLM`, an RLM with the interface of a LangChain chat model."""
