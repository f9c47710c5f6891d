"""A LangChain vector store on FAISS."""
