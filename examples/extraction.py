"""Extract the same facts from hundreds of documents, as typed values."""

# the model writes:
# import json
# asked = [f'As JSON, {{"name": ..., "total": ...}}:\n\n{doc["page_content"]}' for doc in context]
# FINAL({"invoices": [json.loads(reply) for reply in llm_query_batched(asked)]})
# a sub-call replies: {"name": "Ada Lovelace", "total": 12.5}

import argparse

from langchain_core.documents import Document
from pydantic import BaseModel

from rlm_langchain import Budget, create_rlm


class Invoice(BaseModel):
    name: str
    total: float


class Invoices(BaseModel):
    invoices: list[Invoice]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

documents = [Document(f"Invoice {n}. Dear Ada Lovelace, you owe us $12.50.") for n in range(300)]
rlm = create_rlm(root_model=args.model, output_schema=Invoices, budget=Budget(calls=400), memo=False)
result = rlm.invoke({"query": "Who owes how much? One entry for each document, in order.", "context": documents})

found = result["answer"].invoices
print(len(found), "invoices, in total", sum(invoice.total for invoice in found), "dollars; the first:", found[0])
