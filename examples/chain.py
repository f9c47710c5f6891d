"""A chain in LCEL: a retriever finds documents, an RLM reads all of them, a parser converts the answer."""

# the model writes:
# import json
# lines = [doc["page_content"] for doc in context]
# FINAL(json.dumps({"errors": sum(text.count("ERROR") for text in lines)}))

import argparse
from operator import itemgetter
from pathlib import Path

from langchain_core.output_parsers import JsonOutputParser
from langchain_core.runnables import RunnablePassthrough

from rlm_langchain import RLMRetriever, create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", nargs="?", default="big.log", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

chain = (
    {"query": RunnablePassthrough(), "context": RLMRetriever(corpus=args.file, k=100)}
    | create_rlm(root_model=args.model)
    | itemgetter("answer")
    | JsonOutputParser()
)
for part in chain.stream('How many lines are an ERROR? Answer with JSON text: {"errors": N}'):
    print(part)
