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
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from rlm_langchain.answers.words import is_json_value
from rlm_langchain.sandboxes.reserved_names import RESERVED, parse

_OPENING = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?:[-*+]|\d+[.)])[ \t]+)?"
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)(?P<rest>[^\n`]*)$",
    re.MULTILINE,
)
_ON_ONE_LINE = re.compile(
    r"^[ \t]*(?P<fence>`{3,})(?P<language>\w+)[ \t](?P<code>[^\n`]+)(?P=fence)[ \t]*$", re.MULTILINE
)
_ASKED_FOR = "repl"
"""The language that the prompt asks for: beside it, others are examples."""
_LANGUAGES = frozenset(
    ("python", "py", "python3", "py3", "ipython", "ipython3", "jupyter", "tool_code", "code", "code_interpreter")
) | {"python-repl", "pycon", "doctest"}
_WITHIN_A_LINE = re.compile(
    r"(?<=[^\s`])(?P<indent>)[ \t]*(?P<fence>`{3,})(?P<language>repl|python3?|py3?|ipython3?|tool_code)(?P<rest>)"
    r"[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
"""A fence that opens behind words, in a sentence."""
_CLOSINGS = (
    re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*$", re.MULTILINE),
    re.compile(r"(?<=[^\s`~])[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*$", re.MULTILINE),
    re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})(?=[ \t]+\S)", re.MULTILINE),
)
"""Fences that may close a block: alone on a line, behind code, before words. The likelier ones first."""
_MOST_CLOSINGS = 20
"""Closing fences that are tried for one block."""
_MOST_OPENINGS = 100
"""Opening fences of a reply that are looked at: a model may repeat itself up to its last token."""
_UNSEEN = re.compile("^[\ufeff\u200b-\u200f\u2060]+", re.MULTILINE)
_THOUGHT_OVER = re.compile(r"</(?:think|thinking|thought|reasoning)>[ \t]*(?:\r?\n|(?=```))", re.IGNORECASE)
_CHANNEL = re.compile(
    r"<\|channel\|>(?P<channel>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)"
    r"(?:<\|(?:end|call|return|start)\|>|\Z)",
    re.DOTALL,
)
"""A message of Harmony, as servers leave it that do not read its marks."""
_TAGGED_CALL = re.compile(r"<\|python_tag\|>(?P<code>.*?)(?:<\|\w+\|>|\Z)", re.DOTALL)
_QUOTATION = re.compile(r"^[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)*>.*$", re.MULTILINE)
"""A line of a quotation of Markdown, be it in a list."""
_QUOTED_BLOCK = re.compile(r"> ?(?:`{3,}|~{3,}).*\n(?:>.*\n)*> ?(?:`{3,}|~{3,})")
"""A block that is written as a quotation."""
_QUOTED_CODE = re.compile(r"^[ \t]*>[> \t]*(?:`{3,}|~{3,})[ \t]*repl\b", re.MULTILINE | re.IGNORECASE)
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
    r'<invoke name="(?P<name>[^"]+)">\s*<parameter name="(?:code|python|source|input)">'
    r"(?P<code>.*?)(?:</parameter>|\Z)",
    re.DOTALL,
)
_ACTION = re.compile(
    r"^Action:[ \t]*(?P<name>\S+)[ \t]*\nAction Input:[ \t]*(?P<code>.*?)(?=^Observation:|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MOST_OBJECTS = 20
"""Places of a text where a call in JSON is looked for."""
_INVENTED = re.compile(
    r"^[^\w\n]*(?:(?:the|this|expected|execution|repl|cell|code|real)[^\w\n]+)*"
    r"(?:outputs?|results?|stdout|observation|printed)\b"
    r"[^\n:.]{0,20}(?::|\b(?:shows|says|is|was|confirms|reads|gives)\b)"
    r"|^[^\w\n]*(?:outputs?|results?|stdout|observation|printed)[^\w\n]*$"
    r"|^[ \t]*<(?:output|stdout|result|observation)>"
    r"|^[^\w\n]*(?:it|this|that|(?:the|my) (?:code|cell|block))\s+(?:printed|returned|gave|showed)\b",
    re.MULTILINE | re.IGNORECASE,
)
"""How a model begins what it takes for the output of a block."""
_PRINTED = ("output", "text", "txt", "stdout", "console", "result", "plaintext")
"""The languages of blocks that show an output."""
_WORDS = RESERVED - {"_host_call", "LLMError"} | {"search", "print"}
"""Of which code without a fence has one, or it would be of no use."""
_SOURCE = re.compile(
    rf"^[ \t]*(?:[\w.,][\w., ]* = )?(?:{'|'.join(sorted(_WORDS - {'context', 'budget'}))})\(", re.MULTILINE
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

    Beside a block that is fenced as asked for, others are examples. What stands in a quotation is never code: it
    may be a text of the context. Only a reply that is one quoted block and nothing else is read without its marks.
    """
    words = _words(text)
    text = _read(words)
    blocks, openings_left = _blocks(text)
    ranks = [block.rank for block in blocks]
    best = min((rank for rank in ranks if rank is not None), default=None)
    if best is None:
        ignored = tuple(block.language for block in blocks if block.language and block.language not in _LANGUAGES)
        if _QUOTED_CODE.search(text):
            ignored = (*ignored, "repl in a quotation")
        cells = _called(text, blocks) or _tagged(text) or _unfenced(text, blocks)
        return ModelReply(cells, () if cells else ignored, 0, not cells and bool(_SOURCE.search(text)), words)
    run = [block for block, rank in zip(blocks, ranks, strict=True) if rank == best]
    seen = _until_output(text, run, blocks)
    examples = (block for block, rank in zip(blocks, ranks, strict=True) if rank is not None and rank > best)
    ignored = tuple(block.language or "(no language)" for block in examples)
    languages = {block.language for block in run}
    later = sum(language in languages for language in openings_left)
    unseen = len(run) - seen + (later if best < 2 else (later + 1) // 2)  # bare ones close a block as well
    return ModelReply(tuple(block.code for block in run[:seen]), ignored, unseen, words=words)


def _read(words: str) -> str:
    """Words with the line ends that blocks are read by, without what nobody sees before a fence."""
    words = words.replace("\r\n", "\n")  # a lone \r ends no line: a quoted text may hold one before a fence
    words = _UNSEEN.sub("", words if "\n" in words else words.replace("\r", "\n"))
    is_quoted = _QUOTED_BLOCK.fullmatch(words.strip())
    return re.sub("^> ?", "", words.strip(), flags=re.MULTILINE) if is_quoted else words


def _unquoted(text: str) -> str:
    """The text with spaces for its quotations: all else is where it was."""
    return _QUOTATION.sub(lambda line: " " * len(line[0]), text)


def _words(text: str) -> str:
    """What a reply says once its thoughts are over, without the marks of chat templates that some servers leave."""
    own = _unquoted(text)
    if text.lstrip().startswith(("<|channel|>", "<|start|>")) and (messages := [*_CHANNEL.finditer(own)]):
        spoken = [message for message in messages if message["channel"] != "analysis"] or messages
        start, end = spoken[-1].span("text")
        text = _fenced_call(text[start:end], is_call="to=" in spoken[-1]["to"])
        own = _unquoted(text)
    elif tagged := _TAGGED_CALL.match(text.lstrip()):
        text = _fenced_call(tagged["code"], is_call=True)
        own = _unquoted(text)
    fences = over = at = 0
    for mark in _THOUGHT_OVER.finditer(own):
        fences += own.count("```", at, mark.start())
        at = mark.start()
        if fences % 2 == 0:  # not within a block, whose code may be about such marks
            over = mark.end()
    return text[over:] if text[over:].strip() else text


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


def _blocks(text: str) -> tuple[list[_Block], list[str]]:
    """The blocks of a text, and the languages of the fences that were too many to look at."""
    own = _unquoted(text)
    forms = (_OPENING, _ON_ONE_LINE, _WITHIN_A_LINE)
    openings = sorted((match for form in forms for match in form.finditer(own)), key=lambda match: match.start())
    closings = _closings(text)
    blocks: list[_Block] = []
    position = looked_at = 0
    for opening in openings:
        if opening.start() < position:
            continue
        if looked_at == _MOST_OPENINGS:
            break
        looked_at += 1
        if opening.re is _ON_ONE_LINE:
            code, end = opening["code"].strip(), opening.end()
        else:
            code, end = _block(text, opening, closings)
        if opening.re is _WITHIN_A_LINE and program(code) is None:  # words about fences
            position = opening.end()
            continue
        blocks.append(_Block(opening["language"].lower(), _unprompted(code), opening.start(), end))
        position = end
    return blocks, [left["language"].lower() for left in openings if left.start() >= position]


class _Closing(NamedTuple):
    """A fence that may close a block."""

    start: int
    end: int
    fence: str
    order: int
    """Of the likelihood that it does, 0 the likeliest."""


def _closings(text: str) -> list[_Closing]:
    """All fences of a text that may close a block, in order."""
    return sorted(
        _Closing(found.start("fence") if order == 1 else found.start(), found.end(), found["fence"], order)
        for order, form in enumerate(_CLOSINGS)
        for found in form.finditer(text)
    )


def _block(text: str, opening: re.Match[str], closings: Sequence[_Closing]) -> tuple[str, int]:
    """The code behind an opening fence, and where the text goes on.

    Code may hold fences of its own, in a prompt for instance: the block ends at the first closing fence that
    makes it a program, be it behind the last line of code, else at the first of all. A fence that is never closed
    ends with the text.
    """
    start = min(opening.end() + 1, len(text))
    after = (closings[at] for at in range(bisect_left(closings, (start,)), len(closings)))
    near = islice((one for one in after if one.fence.startswith(opening["fence"])), _MOST_CLOSINGS)
    ends = sorted(near, key=lambda one: one.order)
    for one in ends:
        code = _dedented(text[start : one.start], opening["indent"])
        if program(code) is not None and code.strip():
            return code, one.end
    to, end = ends[0][:2] if ends else (len(text), len(text))
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
    own = _unquoted(text)
    spans = (match.span("code") for match in _TAGS.finditer(own))
    found = (textwrap.dedent(text[start:end]).strip("\n") for start, end in spans)
    return tuple(code for code in found if _is_useful(code))


def _called(text: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """The code of a call of an interpreter, written as JSON: alone, in a block, or in tags."""
    for written in (*(block.code for block in blocks), text):
        for call in _objects(written):
            if code := _code_of(call):
                return (code,)
    own = _unquoted(text)
    for named in (*_ELEMENT.finditer(own), *_ACTION.finditer(own)):
        start, end = named.span("code")
        written = text[start:end].strip()
        if _CALLED.fullmatch(named["name"]) and is_python(written):
            return (written,)
    return ()


def _objects(text: str) -> Iterator[Any]:
    """The objects of JSON in a text."""
    own, at = _unquoted(text), -1
    for _ in range(_MOST_OBJECTS):
        at = own.find("{", at + 1)
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
