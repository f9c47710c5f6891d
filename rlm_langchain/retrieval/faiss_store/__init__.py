"""A vector store of LangChain on FAISS."""
