"""Ask about all files in a folder, for at most a quarter of a dollar, and show what it took."""

# the model writes:
# FINAL([path for path, text in context.items() if "Error" in text])

import argparse
from pathlib import Path

from rlm_langchain import Budget, create_rlm

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default="src", type=Path)
parser.add_argument("--model", default="openai/gpt-4o")
args = parser.parse_args()

rlm = create_rlm(root_model=args.model, budget=Budget(usd=0.25))
result = rlm.invoke({"query": "Which files define or raise errors?", "context": args.folder})

print(result["answer"])
print(result["status"], "· turns:", result["iterations"], "· sub-calls:", result["sub_calls"])
