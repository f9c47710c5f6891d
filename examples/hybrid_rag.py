"""RAG with an RLM: a retriever narrows a large corpus to hundreds of passages, which the RLM reads with code."""

# the model writes:
# print(search("error", k=3))
# FINAL(sorted({doc["metadata"]["source"] for doc in context}))

import argparse
from pathlib import Path

from rlm_langchain import RLMRetriever, create_hybrid_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default="src", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

# Ranks by words; with embeddings=OpenAIEmbeddings() also by meaning. Any LangChain retriever or vector store works.
rlm = create_hybrid_rlm(retriever=RLMRetriever(corpus=args.folder), k=300, root_model=args.model)
result = rlm.invoke("Which files deal with errors?")

print(result["answer"])
