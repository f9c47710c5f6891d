"""See what happens while it happens: the records of a run, as LangGraph custom events."""

# the model writes:
# chapters = context.split("CHAPTER ")[1:]
# FINAL(llm_query_batched([f"Sum up in one sentence:\n\n{chapter}" for chapter in chapters]))
# a sub-call replies: Ishmael meets the whale.

import asyncio
from pathlib import Path

from rlm_langchain import create_rlm

rlm = create_rlm(root_model="openai/gpt-4o", recursive_model="openai/gpt-4o-mini")


async def main() -> None:
    question = {"query": "What happens in each chapter?", "context": Path("book.txt")}
    async for record in rlm.astream(question, stream_mode="custom"):
        match record["type"]:
            case "turn":
                print(f"the model wrote {len(record['cells'])} block(s) in {record['seconds']:.1f} s")
            case "wave":
                print(f"the code asks {record['count']} models")
            case "call":
                print(f"  {record['call']}: {record['value'] or record['error']}")
            case "answer":
                print("answer:", record["answer"])


asyncio.run(main())
