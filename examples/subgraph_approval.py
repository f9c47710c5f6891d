"""An RLM as a node of a graph that asks a person before it makes many calls."""

# the model writes:
# chapters = context.split("CHAPTER ")[1:]
# FINAL(llm_query_batched([f"Sum up in one sentence:\n\n{chapter}" for chapter in chapters]))
# a sub-call replies: Ishmael meets the whale.

import argparse
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from rlm_langchain import Budget, create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("book", nargs="?", default="book.txt", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()


class Desk(TypedDict, total=False):
    question: str
    book: Any
    summary: Any


rlm = create_rlm(root_model=args.model, budget=Budget(approve_above_calls=2))
graph = StateGraph(Desk).add_node("read", rlm.as_node(query="question", context="book", answer="summary"))
app = graph.set_entry_point("read").compile(checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "1"}}
state = app.invoke({"question": "What happens in each chapter?", "book": args.book.read_text()}, thread)
while pauses := state.get("__interrupt__"):
    print("May it make", pauses[0].value["calls"], "calls? Yes.")
    state = app.invoke(Command(resume=True), thread)
print(state["summary"])
