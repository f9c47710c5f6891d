"""Two OpenRouter models, a strong one for the code and a cheap one for the reading, watched as they work."""

# the model writes:
# chapters = context.split("CHAPTER ")[1:]
# FINAL(llm_query_batched([f"Sum up in one sentence:\n\n{chapter}" for chapter in chapters]))
# a sub-call replies: Ishmael meets the whale.

import argparse
import asyncio
from pathlib import Path

from rlm_langchain import Budget, create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("book", nargs="?", default="book.txt", type=Path)
parser.add_argument("--model", default="anthropic/claude-sonnet-4.5")  # needs OPENROUTER_API_KEY
parser.add_argument("--sub-model", default="openai/gpt-4o-mini")
args = parser.parse_args()


async def main() -> None:
    rlm = create_rlm(root_model=args.model, recursive_model=args.sub_model, budget=Budget(usd=0.50))
    question = {"query": "What happens in each chapter?", "context": args.book}
    async for record in rlm.astream(question, stream_mode="custom"):
        match record["type"]:
            case "turn":
                print(f"the model wrote {len(record['cells'])} block(s), for ${record['usage']['cost'] or 0:.4f}")
            case "wave":
                print(f"the code asks {record['count']} models")
            case "call":
                print(f"  {record['call']}: {record['value'] or record['error']}")
            case "answer":
                print("answer:", record["answer"])


asyncio.run(main())
