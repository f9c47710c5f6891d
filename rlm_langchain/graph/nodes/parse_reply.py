"""Reads what a root model wrote: which code to run, and whether there is any.

The only place where a model's text decides what is run. It is never given text of the context or a sub-reply.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rlm_langchain.answers.words import is_json_value
from rlm_langchain.sandboxes.reserved_names import RESERVED, parse

_OPENING = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?:[-*+]|\d+[.)])[ \t]+)?"
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)(?P<rest>[^\n`]*)$",
    re.MULTILINE,
)
_ON_ONE_LINE = re.compile(
    r"^[ \t]*(?P<fence>`{3,})(?P<language>\w+)[ \t]+(?P<code>[^\n`]+?)[ \t]*(?P=fence)[ \t]*$", re.MULTILINE
)
_ASKED_FOR = "repl"
"""The language that the prompt asks for: beside it, others are examples."""
_LANGUAGES = frozenset(
    ("python", "py", "python3", "py3", "ipython", "ipython3", "jupyter", "tool_code", "code", "code_interpreter")
) | {"python-repl", "pycon", "doctest"}
_WITHIN_A_LINE = re.compile(
    r"(?<=\S)(?P<indent>)[ \t]*(?P<fence>`{3,})(?P<language>repl|python3?|py3?|ipython3?|tool_code)(?P<rest>)"
    r"[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
"""A fence that opens behind words, in a sentence."""
_UNSEEN = re.compile("^[\ufeff\u200b-\u200f\u2060]+", re.MULTILINE)
_THOUGHT_OVER = re.compile(r"</(?:think|thinking|thought|reasoning)>[ \t]*(?:\r?\n|(?=```))", re.IGNORECASE)
_CHANNEL = re.compile(
    r"<\|channel\|>(?P<channel>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)"
    r"(?:<\|(?:end|call|return|start)\|>|\Z)",
    re.DOTALL,
)
"""A message of Harmony, as servers leave it that do not read its marks."""
_TAGGED_CALL = re.compile(r"<\|python_tag\|>(?P<code>.*?)(?:<\|\w+\|>|\Z)", re.DOTALL)
_QUOTED = re.compile(r"^> ?`{3}.*(?:\n>.*)*", re.MULTILINE)
"""Blocks in a quotation of Markdown."""
_PROMPTED = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_TAGS = re.compile(
    r"<(?P<tag>repl|python|py|ipython|code|tool_code|execute|execute_\w+|run_\w+)(?:\s[^<>]*)?>(?:<!\[CDATA\[)?"
    r"(?P<code>.*?)(?:\]\]>\s*)?(?:</(?P=tag)>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_CALLED = re.compile(
    r"(.*[._-])?(python|ipython|repl|code|code_?interpreter|execute|(run|execute)_\w+)", re.IGNORECASE
)
"""What models call an interpreter, as a tool that nobody offered."""
_ELEMENT = re.compile(
    r'<invoke name="(?P<name>[^"]+)">\s*<parameter name="(?:code|python|source|input)">(?P<code>.*?)</parameter>',
    re.DOTALL,
)
_ACTION = re.compile(
    r"^Action:[ \t]*(?P<name>\S+)[ \t]*\nAction Input:[ \t]*(?P<code>.*?)(?=^Observation:|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MOST_OBJECTS = 20
"""Places of a text where a call in JSON is looked for."""
_INVENTED = re.compile(
    r"^\W*(?:(?:the|this|expected|execution|repl|cell|code|real)\W+)*(?:outputs?|results?|stdout|observation|printed)\b"
    r"[^\n:.]{0,20}(?::|\b(?:shows|says|is|was|confirms|reads|gives)\b)"
    r"|^\W*(?:outputs?|results?|stdout|observation|printed)\W*$|^\s*<(?:output|stdout|result|observation)>"
    r"|^\W*(?:it|this|that|(?:the|my) (?:code|cell|block))\s+(?:printed|returned|gave|showed)\b",
    re.MULTILINE | re.IGNORECASE,
)
"""How a model begins what it takes for the output of a block."""
_PRINTED = ("output", "text", "txt", "stdout", "console", "result", "plaintext")
"""The languages of blocks that show an output."""
_WORDS = RESERVED - {"_host_call", "LLMError"} | {"search", "print"}
"""Of which code without a fence has one, or it would be of no use."""
_SOURCE = re.compile(
    rf"^[ \t]*(?:[\w., ]+ = )?(?:{'|'.join(sorted(_WORDS - {'context', 'budget'}))})\(", re.MULTILINE
)
_PARSED = 200_000
"""Characters of code that are worth parsing to find where a block ends."""
_LINES = 100
"""Lines of a reply without a fence that are looked through for code."""
_quiet = threading.Lock()
"""`catch_warnings` changes the process: one thread at a time. The model's odd escapes are no news to the user."""


class ModelReply(NamedTuple):
    """A reply of the root model, taken apart."""

    cells: tuple[str, ...]
    """The code blocks, in order."""
    ignored: tuple[str, ...] = ()
    """The languages of fenced blocks that are not run: the model is told."""
    unseen: int = 0
    """Blocks that are not run, since they answer from output that has not been seen yet: the model is told."""
    is_source: bool = False
    """Whether there is code in it that could not be read: it is no answer in words."""
    words: str = ""
    """What it says, without its thoughts."""


class _Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    start: int
    end: int

    @property
    def rank(self) -> int | None:
        """How sure it is that this is to be run, 0 the surest; None: it is not."""
        if not self.code.strip() or is_json_value(self.code):
            return None
        if self.language in (_ASKED_FOR, *_LANGUAGES):
            return 0 if self.language == _ASKED_FOR else 1
        return 2 if not self.language and is_python(self.code) else None


def read_reply(text: str) -> ModelReply:
    """The code in a reply: blocks fenced `repl`; without one, those of Python; without one, what else is code.

    Beside a block that is fenced as asked for, others are examples.
    """
    words = _words(text)
    text = _read(words)
    blocks = [*_blocks(text)]
    best = min((block.rank for block in blocks if block.rank is not None), default=None)
    if best is None:
        ignored = tuple(block.language for block in blocks if block.language and block.language not in _LANGUAGES)
        cells = _called(text, blocks) or _tagged(text) or _unfenced(text, blocks)
        return ModelReply(cells, () if cells else ignored, 0, not cells and bool(_SOURCE.search(text)), words)
    run = [block for block in blocks if block.rank == best]
    seen = _until_output(text, run, blocks)
    examples = (block for block in blocks if block.rank is not None and block.rank > best)
    ignored = tuple(block.language or "(no language)" for block in examples)
    return ModelReply(tuple(block.code for block in run[:seen]), ignored, len(run) - seen, words=words)


def _read(words: str) -> str:
    """Words with the line ends that blocks are read by, without what nobody sees before a fence, unquoted."""
    words = words.replace("\r\n", "\n")  # a lone \r ends no line: a quoted text may hold one before a fence
    words = _UNSEEN.sub("", words if "\n" in words else words.replace("\r", "\n"))
    return _QUOTED.sub(lambda quoted: re.sub("^> ?", "", quoted[0], flags=re.MULTILINE), words)


def _words(text: str) -> str:
    """What a reply says once its thoughts are over, without the marks of chat templates that some servers leave."""
    if text.lstrip().startswith(("<|channel|>", "<|start|>")) and (messages := [*_CHANNEL.finditer(text)]):
        spoken = [message for message in messages if message["channel"] != "analysis"] or messages
        text = _fenced_call(spoken[-1]["text"], is_call="to=" in spoken[-1]["to"])
    elif tagged := _TAGGED_CALL.match(text.lstrip()):
        text = _fenced_call(tagged["code"], is_call=True)
    # Not within a block, whose code may be about such marks.
    over = [end.end() for end in _THOUGHT_OVER.finditer(text) if text.count("```", 0, end.start()) % 2 == 0]
    return text[over[-1] :] if over and text[over[-1] :].strip() else text


def _fenced_call(text: str, *, is_call: bool) -> str:
    """The text of a message; code for an interpreter in a block, unless it is one already, or an object of JSON."""
    return (
        f"```python\n{text}\n```" if is_call and is_python(text) and text.lstrip()[:1] not in ("`", "{") else text
    )


def is_python(code: str) -> bool:
    """Whether this is a program, and not a remark that happens to parse."""
    tree = program(code)
    if tree is None:
        return False
    remarks = (isinstance(s, ast.Expr) and isinstance(s.value, ast.Name | ast.Constant) for s in tree.body)
    return not all(remarks)


def program(code: str) -> ast.Module | None:
    """The code as Python reads it; None for what it cannot read, or what is too long to try."""
    if len(code) > _PARSED:
        return None
    try:
        with _quiet, warnings.catch_warnings(action="ignore"):
            return parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _blocks(text: str) -> Iterator[_Block]:
    position = 0
    while opening := _opening(text, position):
        if "code" in opening.groupdict():
            code, end = opening["code"], opening.end()
        else:
            code, end = _block(text, opening)
        if opening.re is _WITHIN_A_LINE and program(code) is None:  # words about fences
            position = opening.end()
            continue
        yield _Block(opening["language"].lower(), _unprompted(code), opening.start(), end)
        position = end


def _opening(text: str, position: int) -> re.Match[str] | None:
    """The next fence, be it closed on its own line."""
    forms = (_OPENING, _ON_ONE_LINE, _WITHIN_A_LINE)
    found = [match for form in forms if (match := form.search(text, position))]
    return min(found, key=lambda match: match.start(), default=None)


def _block(text: str, opening: re.Match[str]) -> tuple[str, int]:
    """The code behind an opening fence, and where the text goes on.

    Code may hold fences of its own, in a prompt for instance: the block ends at the first closing fence that
    makes it a program, be it behind the last line of code, else at the first of all. A fence that is never closed
    ends with the text.
    """
    start = min(opening.end() + 1, len(text))
    fence = opening["fence"]
    closing = rf"{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$"
    alone = [(found.start(), found.end()) for found in re.compile(rf"^[ \t]*{closing}", re.M).finditer(text, start)]
    behind = [
        (found.start(1), found.end()) for found in re.compile(rf"\S[ \t]*({closing})", re.M).finditer(text, start)
    ]
    within = [
        (found.start(), found.end())
        for found in re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}(?=[ \t]+\S)", re.M).finditer(
            text, start
        )
    ]
    ends = (*alone, *(end for end in behind if text[end[0] - 1] != fence[0]), *within)
    candidates = ((_dedented(text[start:to], opening["indent"]), end) for to, end in ends)
    for code, end in candidates:
        if program(code) is not None and code.strip():
            return code, end
    to, end = ends[0] if ends else (len(text), len(text))
    code = _dedented(text[start:to], opening["indent"])
    rest = opening["rest"].strip()
    return (rest if not code.strip() and is_python(rest) else code), end


def _unprompted(code: str) -> str:
    """Code that was written as an interactive session, without its prompts and its outputs."""
    if not code.lstrip().startswith(">>>") or program(code) is not None:
        return code
    lines = [line for line in code.splitlines() if _PROMPTED.match(line)]
    return "".join(f"{_PROMPTED.sub('', line)}\n" for line in lines)


def _dedented(code: str, indent: str) -> str:
    """Code without the indent of its fence."""
    if not code.startswith((" ", "\t")) or program(code) is not None:
        return code
    if indent:
        cut = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        if program(cut) is not None:
            return cut
    flat = textwrap.dedent(code)
    return flat if program(flat) is not None else code


def _until_output(text: str, run: Sequence[_Block], blocks: Sequence[_Block]) -> int:
    """How many of the blocks to run: not those behind an output that the model has made up.

    That is one between two blocks, or an answer that takes nothing from the blocks before it.
    """
    for number, block in enumerate(run[1:], 1):
        before = run[number - 1]
        shows = any(
            other.start >= before.end
            and other.end <= block.start
            and (other.language in _PRINTED or not other.language)
            for other in blocks
        )
        if shows or _INVENTED.search(text[before.end : block.start]) or _answers_by_heart(block.code):
            return number
    return len(run)


def _answers_by_heart(code: str) -> bool:
    """Whether code gives a literal for an answer, whatever the code before it has found."""
    tree = program(code)
    for statement in tree.body if tree else ():
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id="FINAL"), args=[value])):
                return not any(isinstance(node, ast.Name) for node in ast.walk(value))
    return False


def _tagged(text: str) -> tuple[str, ...]:
    """Code between tags."""
    found = (textwrap.dedent(match["code"]).strip("\n") for match in _TAGS.finditer(text))
    return tuple(code for code in found if _is_useful(code))


def _called(text: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """The code of a call of an interpreter, written as JSON: alone, in a block, or in tags."""
    for written in (*(block.code for block in blocks), text):
        for call in _objects(written):
            if code := _code_of(call):
                return (code,)
    for named in (*_ELEMENT.finditer(text), *_ACTION.finditer(text)):
        written = str(named["code"]).strip()
        if _CALLED.fullmatch(named["name"]) and is_python(written):
            return (written,)
    return ()


def _objects(text: str) -> Iterator[Any]:
    """The objects of JSON in a text."""
    at = -1
    for _ in range(_MOST_OBJECTS):
        at = text.find("{", at + 1)
        if at < 0:
            return
        with suppress(ValueError, RecursionError):
            found, end = json.JSONDecoder(strict=False).raw_decode(text, at)
            yield found
            at = end - 1


def _code_of(call: Any) -> str | None:
    if not isinstance(call, dict):
        return None
    if isinstance(several := call.get("tool_calls"), list) and several:
        return _code_of(several[0])
    if isinstance(inner := call.get("function"), dict):
        call = inner
    names = [
        call[key]
        for key in ("name", "tool", "function", "action", "recipient_name")
        if isinstance(call.get(key), str)
    ]
    keys = ("arguments", "parameters", "input", "args", "action_input", "kwargs")
    given = next((call[key] for key in keys if key in call), call)
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given, strict=False)
        except (ValueError, RecursionError):
            return None
    code = (
        next((given[key] for key in ("code", "python", "source") if key in given), None)
        if isinstance(given, dict)
        else given
    )
    if not isinstance(code, str):
        return None
    if any(_CALLED.fullmatch(name) for name in names):
        return code if is_python(code) else None
    return code if not names and set(call) <= {"code", "language"} and _is_useful(code) else None


def _unfenced(text: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """Code that stands in the text as it is, behind words and before them, and uses the REPL."""
    lines = text.split("\n")
    if blocks or len(lines) > _LINES or not any(word in text for word in _WORDS):
        return ()
    for start, line in enumerate(lines):
        if not line.strip():
            continue
        for end in [
            n for n in range(len(lines), start, -1) if n == len(lines) or not lines[n].strip() or n == start + 1
        ]:
            code = textwrap.dedent("\n".join(lines[start:end])).strip("\n")
            if _is_useful(code):
                return (code,)
    return ()


def _is_useful(code: str) -> bool:
    """Whether this is a program that uses the REPL."""
    tree = program(code)
    nodes = [*ast.walk(tree)] if tree else []
    uses = any(isinstance(node, ast.Name) and node.id in _WORDS for node in nodes)
    return uses and any(isinstance(node, ast.Call | ast.Import | ast.For | ast.FunctionDef) for node in nodes)
