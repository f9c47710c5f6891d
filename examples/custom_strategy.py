"""A custom strategy: guidance for the root model, and helpers for its REPL."""

# the model writes:
# print(chapters(context)[0][:40])
# FINAL(len(chapters(context)))

import argparse
from pathlib import Path

from rlm_langchain import Strategy, create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("book", nargs="?", default="book.txt", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

by_chapter = Strategy(
    name="by_chapter",
    description="for books: read chapter by chapter",
    guidance="`chapters(text)` cuts a book into its chapters. Ask about each with `llm_query_batched`.",
    prelude="import re\n\n\ndef chapters(text):\n    return re.split(r'(?m)^CHAPTER ', text)[1:]\n",
)
rlm = create_rlm(root_model=args.model, strategies=[by_chapter, "grep"])
print(rlm.completion("How many chapters are there?", context=args.book)["answer"], "chapters")
