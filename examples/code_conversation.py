"""A conversation about a code base: the REPL and its variables last between questions and restarts."""

# the model writes:
# try:
#     FINAL({path: len(context[path].splitlines()) for path in found})
# except NameError:
#     found = [path for path, text in context.items() if "Exception" in text]
#     FINAL(found)

import argparse
from pathlib import Path

from langgraph.checkpoint.sqlite import SqliteSaver

from rlm_langchain import create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default="src", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

thread = {"configurable": {"thread_id": "code review"}}
with SqliteSaver.from_conn_string("conversation.sqlite") as saver:
    rlm = create_rlm(root_model=args.model, checkpointer=saver)
    first = rlm.invoke({"query": "Which files define exceptions?", "context": args.folder}, thread)
    print(first["answer"])
    print(rlm.invoke({"query": "How long is each of them?"}, thread)["answer"])
