"""Baselines: the model alone, BM25 retrieval, and map-reduce.

Each is a fixed program in the REPL. Its answer is a dict with either the answer, as `text`, or the reason why there
is none, as `failed`.
"""

from __future__ import annotations

from dataclasses import replace

from rlm_langchain.bench.arms.arm import Arm, Setting
from rlm_langchain.bench.arms.fixed import program
from rlm_langchain.models.model import Model
from rlm_langchain.runnable.create import create_rlm
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.types import Usage

UNKNOWN_WINDOW = 128_000
"""Context window in tokens that is assumed for a model whose window is unknown."""
CHARS_PER_TOKEN = 3
"""Characters per token, to cut a text to a window. Below the average, so that the prompt fits."""
MAX_OUTPUT_TOKENS = 4_096
"""Maximum tokens reserved for the reply. In a small window, a quarter of it is reserved."""
QUESTION_TOKENS = 200
REPLY_TOKENS = 150
PASSAGE_TOKENS = 300
PIECE_TOKENS = 16_000
"""Maximum tokens of a piece in map-reduce."""

DIRECT = """
if len(context) > ROOM and not CUT:
    FINAL({"failed": "too long"})
half = ROOM // 2
gap = "\\n[...]\\n"
text = context if len(context) <= ROOM else context[:half] + gap + context[-half:]
try:
    FINAL({"text": llm_query(f"Text:\\n{text}\\n\\nQuestion: {QUESTION}")})
except LLMError as error:
    FINAL({"failed": f"model: {error}"})
"""
RETRIEVAL = """
text = "\\n\\n".join(hit["text"] for hit in search(QUESTION, k=K))[:ROOM]
try:
    FINAL({"text": llm_query(f"Passages of a longer text:\\n{text}\\n\\nQuestion: {QUESTION}")})
except LLMError as error:
    FINAL({"failed": f"model: {error}"})
"""
MAP_REDUCE = """
MAP = (
    "Below is a part of a longer text. Note, briefly and exactly, everything in it that helps to answer this "
    "question about the whole text. For a count, give the count in this part. If there is nothing, write NONE."
)
REDUCE = (
    "Below are notes on the parts of a text, in order, each made to answer a question about the whole text. "
    "Combine them: add counts up, keep names, numbers and places."
)

def asked(told, texts):
    replies = llm_query_batched([f"{told}\\n\\nQuestion: {QUESTION}\\n\\n{text}" for text in texts])
    if None in replies:
        FINAL({"failed": f"model: {replies.count(None)} of {len(replies)} parts were not answered"})
    return replies

pieces = [context[start:start + PIECE] for start in range(0, len(context), PIECE)]
notes = asked(MAP, pieces)
while len(notes) > 1 and sum(map(len, notes)) > ROOM:
    groups = [""]
    for note in notes:
        if groups[-1] and len(groups[-1]) + len(note) > PIECE:
            groups.append("")
        groups[-1] += note[:PIECE] + "\\n"
    if len(groups) == len(notes):
        FINAL({"failed": "the notes do not get shorter"})
    notes = asked(REDUCE, groups)
text = "\\n".join(notes)[:ROOM]
try:
    FINAL({"text": llm_query(f"Notes on the parts of a text:\\n{text}\\n\\nQuestion: {QUESTION}")})
except LLMError as error:
    FINAL({"failed": f"model: {error}"})
"""


def window_of(model: Model) -> int:
    """Return the context window of a model in tokens, or `UNKNOWN_WINDOW`."""
    return model.window or UNKNOWN_WINDOW


def room(window: int) -> int:
    """Return the number of characters that fit into a prompt."""
    return CHARS_PER_TOKEN * (window - min(MAX_OUTPUT_TOKENS, window // 4) - QUESTION_TOKENS)


def _piece(window: int) -> int:
    return min(room(window), CHARS_PER_TOKEN * PIECE_TOKENS)


def _run(setting: Setting, code: str, retriever: str | None = None, **constants: object) -> RLMRunnable:
    values = {"QUESTION": setting.question, "ROOM": room(window_of(setting.root)), **constants}
    begin = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    calls = setting.budget.calls
    # The turn in which the program is "written" counts as a call, and must not take one away from the baseline.
    budget = replace(setting.budget, calls=None if calls is None else calls + 1, iterations=1)
    return create_rlm(
        program(begin + code),
        recursive_model=setting.root,
        budget=budget,
        retriever=retriever,  # type: ignore[arg-type]
        **setting.options,
    )


def _direct(setting: Setting) -> RLMRunnable:
    return _run(setting, DIRECT, CUT=True)


def _direct_whole(setting: Setting) -> RLMRunnable:
    return _run(setting, DIRECT, CUT=False)


def _bm25(setting: Setting) -> RLMRunnable:
    return _run(setting, RETRIEVAL, "bm25", K=10)


def _bm25_wide(setting: Setting) -> RLMRunnable:
    return _run(setting, RETRIEVAL, "bm25", K=40)


def _map_reduce(setting: Setting) -> RLMRunnable:
    return _run(setting, MAP_REDUCE, PIECE=_piece(window_of(setting.root)))


def _one_call(tokens: int) -> Usage:
    return Usage(1, tokens + QUESTION_TOKENS, 0, REPLY_TOKENS)


def _expected_direct(tokens: int, window: int) -> Usage:
    return _one_call(min(tokens, window))


def _expected_direct_whole(tokens: int, window: int) -> Usage:
    return _one_call(tokens) if tokens * 4 <= room(window) else Usage()


def _expected_passages(k: int, tokens: int, window: int) -> Usage:
    return _one_call(min(k * PASSAGE_TOKENS, tokens, window))


def _expected_map_reduce(tokens: int, window: int) -> Usage:
    pieces = -(-tokens * 4 // _piece(window))
    read = tokens + pieces * (QUESTION_TOKENS + REPLY_TOKENS)
    return Usage(pieces, read, 0, pieces * REPLY_TOKENS).plus(_one_call(0))


direct = Arm("direct", "the model alone; of a longer text, its beginning and its end", _direct, _expected_direct)
direct_whole = Arm(
    "direct_whole", "the model alone; a longer text is refused", _direct_whole, _expected_direct_whole
)
bm25 = Arm("bm25", "the 10 passages that BM25 ranks best", _bm25, lambda t, w: _expected_passages(10, t, w))
bm25_wide = Arm(
    "bm25_wide", "the 40 passages that BM25 ranks best", _bm25_wide, lambda t, w: _expected_passages(40, t, w)
)
map_reduce = Arm("map_reduce", "notes on each piece, combined", _map_reduce, _expected_map_reduce)
