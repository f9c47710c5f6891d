"""The replies of the scripted models to the programs that are killed: a run with every kind of call.

Every reply ends with a mark, a hash of its request. So the replies that a process has received can be read from its
files, and compared with the requests of a later process.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tests.servers.openai import Message

WIDE = 230
"""Calls in the largest batch of a wide run: more than 200, so that a task has several."""
CONTEXT = "".join(f"piece {i:03} of a text that is looked at; " for i in range(100))

ROOT = (
    """
import random, time
nonce = f"{random.random()} {time.time()}"
chunks = [context[i:i + 41] for i in range(0, len(context), 41)]
print(len(chunks), chunks[0], nonce)
""",
    """
labels = llm_query_batched([f"label {i} {chunks[i % len(chunks)]} {nonce}" for i in range(WIDE)])
print(len(set(labels)))
""",
    """
trail = ""
for i in range(5):
    trail = llm_query(f"step {i} after {trail[-40:]}")
    print(trail)
left = budget()["calls"] > 0  # how many are left depends on what was in flight when a process was killed
print(left)
""",
    """
kids = rlm_query_batched([f"MID {i}" for i in range(3)], chunks[:3])
print(kids)
```
```repl
total = sum(i * i for i in range(300_000))
said = llm_query(f"total {total} {left}")
""",
    """
same = llm_query_batched(["same"] * 3 + [f"other {random.random()}"])
print(same)
""",
    """
import hashlib
everything = repr([labels, trail, left, kids, total, said, same, nonce])
FINAL(hashlib.sha256(everything.encode()).hexdigest())
""",
)
MID = (
    """
mine = llm_query_batched([f"mid {context} {j}" for j in range(4)])
print(mine)
""",
    """
low = rlm_query(f"LOW {context[:9]}", context)
FINAL(mine[0] + low)
""",
)
LOW = (
    """
a = llm_query("low " + context)
print(a)
""",
    """
FINAL(a + llm_query("deeper " + a))
""",
)
SPIN = (
    """
word = llm_query("before the long work")
n = 0
while n < 20_000_000:
    n += 1
FINAL(word + llm_query(f"after {n}"))
""",
)
"""A cell that computes for a second between two calls."""
SCARCE = (
    """
replies = llm_query_batched([f"scarce {i}" for i in range(WIDE)])
print(sum(reply is not None for reply in replies))
""",
    """
FINAL(f"{sum(reply is not None for reply in replies)} of {len(replies)}")
""",
)
"""More calls than there is budget for."""
SCRIPTS = {"MID": MID, "LOW": LOW, "ROOT": ROOT, "SPIN": SPIN, "SCARCE": SCARCE}
WIDTH = re.compile(r"all of it\? (\d+)")
MARK = re.compile(r"r-[0-9a-f]{16}")


def query(wide: int = 10, word: str = "ROOT") -> str:
    """Return the question of a run whose largest batch has so many calls."""
    return f"{word}: what is in all of it? {wide}"


def mark(messages: list[Message]) -> str:
    """Return the mark of the reply to these messages."""
    asked = json.dumps([[m["role"], m["content"]] for m in messages])
    return "r-" + hashlib.sha256(asked.encode()).hexdigest()[:16]


def scripted_reply(messages: list[Message]) -> str:
    """Return the reply to a request: the next cell for a run, a word for a sub-call."""
    if messages[0]["role"] not in ("system", "developer"):
        return f"<{messages[0]['content'][:12]} {mark(messages)}>"
    question = str(messages[1]["content"])
    cells = next(cells for word, cells in SCRIPTS.items() if f"{word}:" in question or f"{word} " in question)
    turn = sum(m["role"] == "assistant" for m in messages)
    cell = cells[min(turn, len(cells) - 1)].replace("WIDE", (WIDTH.search(question) or ["", "0"])[1])
    return f"```repl{cell}# {mark(messages)}\n```"


def marks(text: Any) -> set[str]:
    """Return the marks in a text or in bytes."""
    return set(MARK.findall(text if isinstance(text, str) else text.decode("latin-1")))
