"""RAG and RLM: a retriever narrows a large corpus down to hundreds of passages, and an RLM reads them with code."""

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

# By words; with embeddings=OpenAIEmbeddings() by meaning too. Any LangChain retriever or vector store will do.
rlm = create_hybrid_rlm(retriever=RLMRetriever(corpus=args.folder), k=300, root_model=args.model)
result = rlm.invoke("Which files deal with errors?")

print(result["answer"])
