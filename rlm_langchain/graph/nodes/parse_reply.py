"""Finds the code in a reply of the root model.

This is the only module in which a model's text decides what code runs. Text of the context, or of replies to
sub-calls, is never passed to it.
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
_REQUESTED_LANGUAGE = "repl"
"""The language tag that the prompt asks for. If a reply has such a block, its other blocks are examples."""
_PYTHON_LANGUAGES = frozenset(
    ("python", "py", "python3", "py3", "ipython", "ipython3", "jupyter", "tool_code", "code", "code_interpreter")
) | {"python-repl", "pycon", "doctest"}
_WITHIN_A_LINE = re.compile(
    r"(?<=[^\s`])(?P<indent>)[ \t]*(?P<fence>`{3,})(?P<language>repl|python3?|py3?|ipython3?|tool_code)(?P<rest>)"
    r"[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
"""An opening fence behind words, at the end of a line."""
_CLOSINGS = (
    re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*$", re.MULTILINE),
    re.compile(r"(?<=[^\s`~])[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*$", re.MULTILINE),
    re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})(?=[ \t]+\S)", re.MULTILINE),
)
"""Fences that may close a block, the likeliest first: alone on a line, behind code, before words."""
_MAX_CLOSINGS = 20
"""Most closing fences that are tried for one block."""
_MAX_OPENINGS = 100
"""Most opening fences of a reply that are read. A model may repeat itself up to its last token."""
_INVISIBLE = re.compile("^[\ufeff\u200b-\u200f\u2060]+", re.MULTILINE)
_END_OF_THOUGHTS = re.compile(r"</(?:think|thinking|thought|reasoning)>[ \t]*(?:\r?\n|(?=```))", re.IGNORECASE)
_HARMONY_MESSAGE = re.compile(
    r"<\|channel\|>(?P<channel>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)"
    r"(?:<\|(?:end|call|return|start)\|>|\Z)",
    re.DOTALL,
)
"""A message in the Harmony format, which some servers pass on unparsed."""
_PYTHON_TAG_CALL = re.compile(r"<\|python_tag\|>(?P<code>.*?)(?:<\|\w+\|>|\Z)", re.DOTALL)
_QUOTATION = re.compile(r"^[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)*>.*$", re.MULTILINE)
"""A line of a Markdown quotation, also within a list."""
_QUOTED_BLOCK = re.compile(r"> ?(?:`{3,}|~{3,}).*\n(?:>.*\n)*> ?(?:`{3,}|~{3,})")
"""A fenced block inside a quotation."""
_QUOTED_CODE = re.compile(r"^[ \t]*>[> \t]*(?:`{3,}|~{3,})[ \t]*repl\b", re.MULTILINE | re.IGNORECASE)
_SESSION_LINE = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_TAGGED_CODE = re.compile(
    r"<(?P<tag>repl|python|py|ipython|code|tool_code|execute|execute_\w+|run_\w+)(?:\s[^<>]*)?>(?:<!\[CDATA\[)?"
    r"(?P<code>.*?)(?:\]\]>\s*)?(?:</(?P=tag)>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_CODE_SPAN = re.compile(
    r"^[ \t]*[*_]{0,3}(?P<fence>`{1,2})(?P<code>[^`\n]+)(?P=fence)[*_]{0,3}[ \t]*$", re.MULTILINE
)
"""A line that consists of code in single backticks. An answer may have such lines, too."""
_ANSWER_OR_ASK = re.compile(r"\b(?:FINAL|llm_query|rlm_query)\w*\(")
_NOTHING_FENCED = re.compile(r"\s*+(?:(?:`{3,}+|~{3,}+)[ \t]*+\w*+\s*+)++")
"""A reply of fences without anything in them."""
_INTERPRETER_NAME = re.compile(
    r"(.*[._-])?(python|ipython|repl|code|code_?interpreter|execute|(run|execute)_\w+)", re.IGNORECASE
)
"""Names by which models call an interpreter as a tool, though no such tool is offered."""
_INVOKE_ELEMENT = re.compile(
    r'<invoke name="(?P<name>[^"]+)">\s*<parameter name="(?:code|python|source|input)">'
    r"(?P<code>.*?)(?:</parameter>|\Z)",
    re.DOTALL,
)
_REACT_ACTION = re.compile(
    r"^Action:[ \t]*(?P<name>\S+)[ \t]*\nAction Input:[ \t]*(?P<code>.*?)(?=^Observation:|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MAX_OBJECTS = 20
"""Most positions of a text at which a call in JSON is looked for."""
_INVENTED_OUTPUT = re.compile(
    r"^[^\w\n]*(?:(?:the|this|expected|execution|repl|cell|code|real)[^\w\n]+)*"
    r"(?:outputs?|results?|stdout|observation|printed)\b"
    r"[^\n:.]{0,20}(?::|\b(?:shows|says|is|was|confirms|reads|gives)\b)"
    r"|^[^\w\n]*(?:outputs?|results?|stdout|observation|printed)[^\w\n]*$"
    r"|^[ \t]*<(?:output|stdout|result|observation)>"
    r"|^[^\w\n]*(?:it|this|that|(?:the|my) (?:code|cell|block))\s+(?:printed|returned|gave|showed)\b",
    re.MULTILINE | re.IGNORECASE,
)
"""The beginning of an output that a model invents for its block."""
_OUTPUT_LANGUAGES = ("output", "text", "txt", "stdout", "console", "result", "plaintext")
"""Language tags of blocks that show an output."""
_REPL_NAMES = RESERVED - {"_host_call", "LLMError"} | {"search", "print"}
"""Names of the REPL. Code without a fence is run only if it uses one of them."""
_REPL_CALL = re.compile(
    rf"^[ \t]*(?:[\w.,][\w., ]* = )?(?:{'|'.join(sorted(_REPL_NAMES - {'context', 'budget'}))})\(", re.MULTILINE
)
_MAX_PARSED_CHARS = 200_000
"""Longest code that is parsed, in characters."""
_MAX_UNFENCED_LINES = 100
"""Longest reply without a fence that is searched for code, in lines."""
_warnings_lock = threading.Lock()
"""Held while warnings about the model's code are ignored: `catch_warnings` changes the whole process."""


class ModelReply(NamedTuple):
    """The parts of a reply of the root model."""

    cells: tuple[str, ...]
    """The code blocks, in order."""
    ignored: tuple[str, ...] = ()
    """The languages of fenced blocks that are not run, for a note to the model."""
    unseen: int = 0
    """Number of blocks that are not run because they rely on output that the model has not seen yet."""
    is_source: bool = False
    """Whether the reply has code that could not be parsed, or an empty block. Then its text is not taken as an
    answer."""
    words: str = ""
    """The text of the reply, without the model's thoughts."""


class _Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    start: int
    end: int

    @property
    def rank(self) -> int | None:
        """How likely the block is meant to be run: 0 is the likeliest, None means that it is not."""
        if not self.code.strip() or is_json_value(self.code):
            return None
        if self.language in (_REQUESTED_LANGUAGE, *_PYTHON_LANGUAGES):
            return 0 if self.language == _REQUESTED_LANGUAGE else 1
        return 2 if not self.language and is_python(self.code) else None


def read_reply(text: str) -> ModelReply:
    """Return the code of a reply: blocks tagged `repl`; if there is none, Python blocks; if there is none, other
    code.

    Only blocks of the likeliest kind are run; others are taken for examples. Text in a quotation is never code,
    because it may be a text of the context. The exception is a reply that consists of one quoted block only.
    """
    words = _after_thoughts(text)
    text = _normalised(words)
    blocks, openings_left = _blocks(text)
    ranks = [block.rank for block in blocks]
    best = min((rank for rank in ranks if rank is not None), default=None)
    if best is None:
        ignored = tuple(
            block.language for block in blocks if block.language and block.language not in _PYTHON_LANGUAGES
        )
        if _QUOTED_CODE.search(text):
            ignored = (*ignored, "repl in a quotation")
        cells = _code_in_calls(text, blocks) or _code_in_tags(text) or _unfenced_code(text, blocks)
        is_source = not cells and bool(_REPL_CALL.search(text) or _NOTHING_FENCED.fullmatch(text))
        return ModelReply(cells, () if cells else ignored, 0, is_source, words)
    run = [block for block, rank in zip(blocks, ranks, strict=True) if rank == best]
    count = _count_before_output(text, run, blocks)
    examples = (block for block, rank in zip(blocks, ranks, strict=True) if rank is not None and rank > best)
    ignored = tuple(block.language or "(no language)" for block in examples)
    languages = {block.language for block in run}
    later = sum(language in languages for language in openings_left)
    unseen = len(run) - count + (later if best < 2 else (later + 1) // 2)  # a bare fence may also close a block
    return ModelReply(tuple(block.code for block in run[:count]), ignored, unseen, words=words)


def _normalised(words: str) -> str:
    """Return the text with normalised line ends, and without invisible characters at the start of lines."""
    words = words.replace("\r\n", "\n")  # a lone \r ends no line, because a quoted text may have one before a fence
    words = _INVISIBLE.sub("", words if "\n" in words else words.replace("\r", "\n"))
    is_quoted = _QUOTED_BLOCK.fullmatch(words.strip())
    return re.sub("^> ?", "", words.strip(), flags=re.MULTILINE) if is_quoted else words


def _blank_quotations(text: str) -> str:
    """Return the text with its quotations replaced by spaces, so that positions stay the same."""
    return _QUOTATION.sub(lambda line: " " * len(line[0]), text)


def _after_thoughts(text: str) -> str:
    """Return the text after the model's thoughts, without tokens of chat templates that a server left in it."""
    own = _blank_quotations(text)
    if text.lstrip().startswith(("<|channel|>", "<|start|>")) and (messages := [*_HARMONY_MESSAGE.finditer(own)]):
        spoken = [message for message in messages if message["channel"] != "analysis"] or messages
        start, end = spoken[-1].span("text")
        text = _fenced_call(text[start:end], is_call="to=" in spoken[-1]["to"])
        own = _blank_quotations(text)
    elif tagged := _PYTHON_TAG_CALL.match(text.lstrip()):
        text = _fenced_call(tagged["code"], is_call=True)
        own = _blank_quotations(text)
    fences = over = at = 0
    for mark in _END_OF_THOUGHTS.finditer(own):
        fences += own.count("```", at, mark.start())
        at = mark.start()
        if fences % 2 == 0:  # not within a block, whose code may contain such a tag
            over = mark.end()
    return text[over:] if text[over:].strip() else text


def _fenced_call(text: str, *, is_call: bool) -> str:
    """Return the text of a message. Code for an interpreter is put into a block, unless it is a block or JSON."""
    return (
        f"```python\n{text}\n```" if is_call and is_python(text) and text.lstrip()[:1] not in ("`", "{") else text
    )


def is_python(code: str) -> bool:
    """Return whether this is a program, and not just words that happen to parse."""
    tree = program(code)
    if tree is None:
        return False
    remarks = (isinstance(s, ast.Expr) and isinstance(s.value, ast.Name | ast.Constant) for s in tree.body)
    return not all(remarks)


def program(code: str) -> ast.Module | None:
    """Return the syntax tree of the code. None if it cannot be parsed or is too long to try."""
    if len(code) > _MAX_PARSED_CHARS:
        return None
    try:
        with _warnings_lock, warnings.catch_warnings(action="ignore"):
            return parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _blocks(text: str) -> tuple[list[_Block], list[str]]:
    """Return the blocks of a text, and the languages of the opening fences beyond `_MAX_OPENINGS`."""
    own = _blank_quotations(text)
    forms = (_OPENING, _ON_ONE_LINE, _WITHIN_A_LINE)
    openings = sorted((match for form in forms for match in form.finditer(own)), key=lambda match: match.start())
    closings = _closings(text)
    blocks: list[_Block] = []
    position = looked_at = 0
    for opening in openings:
        if opening.start() < position:
            continue
        if looked_at == _MAX_OPENINGS:
            break
        looked_at += 1
        if opening.re is _ON_ONE_LINE:
            code, end = opening["code"].strip(), opening.end()
        else:
            code, end = _code_of_block(text, opening, closings)
        if opening.re is _WITHIN_A_LINE and program(code) is None:  # a sentence about fences
            position = opening.end()
            continue
        blocks.append(_Block(opening["language"].lower(), _without_session_prompts(code), opening.start(), end))
        position = end
    return blocks, [left["language"].lower() for left in openings if left.start() >= position]


class _Closing(NamedTuple):
    """A fence that may close a block."""

    start: int
    end: int
    fence: str
    order: int
    """The index of its form in `_CLOSINGS`: 0 is the likeliest."""


def _closings(text: str) -> list[_Closing]:
    """Return all fences of a text that may close a block, by position."""
    return sorted(
        _Closing(found.start("fence") if order == 1 else found.start(), found.end(), found["fence"], order)
        for order, form in enumerate(_CLOSINGS)
        for found in form.finditer(text)
    )


def _code_of_block(text: str, opening: re.Match[str], closings: Sequence[_Closing]) -> tuple[str, int]:
    """Return the code behind an opening fence, and the position after its block.

    Code may contain fences, for example in a prompt. So the block ends at the first closing fence with which the
    code parses; if there is none, at the first closing fence; and if there is none, with the text.
    """
    start = min(opening.end() + 1, len(text))
    after = (closings[at] for at in range(bisect_left(closings, (start,)), len(closings)))
    near = islice((one for one in after if one.fence.startswith(opening["fence"])), _MAX_CLOSINGS)
    ends = sorted(near, key=lambda one: one.order)
    for one in ends:
        code = _dedented(text[start : one.start], opening["indent"])
        if program(code) is not None and code.strip():
            return code, one.end
    to, end = ends[0][:2] if ends else (len(text), len(text))
    code = _dedented(text[start:to], opening["indent"])
    rest = opening["rest"].strip()
    return (rest if not code.strip() and is_python(rest) else code), end


def _without_session_prompts(code: str) -> str:
    """Return code that was written as an interactive session without its prompts and outputs."""
    if not code.lstrip().startswith(">>>") or program(code) is not None:
        return code
    lines = [line for line in code.splitlines() if _SESSION_LINE.match(line)]
    return "".join(f"{_SESSION_LINE.sub('', line)}\n" for line in lines)


def _dedented(code: str, indent: str) -> str:
    """Return code without the indentation of its fence."""
    if not code.startswith((" ", "\t")) or program(code) is not None:
        return code
    if indent:
        cut = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        if program(cut) is not None:
            return cut
    flat = textwrap.dedent(code)
    return flat if program(flat) is not None else code


def _count_before_output(text: str, run: Sequence[_Block], blocks: Sequence[_Block]) -> int:
    """Return how many of the blocks to run: those before the first output that the model has invented.

    A sign of that is an output between two blocks, or an answer that uses no variable of the blocks before it.
    """
    for number, block in enumerate(run[1:], 1):
        before = run[number - 1]
        shows = any(
            other.start >= before.end
            and other.end <= block.start
            and (other.language in _OUTPUT_LANGUAGES or not other.language)
            for other in blocks
        )
        if shows or _INVENTED_OUTPUT.search(text[before.end : block.start]) or _answers_with_literal(block.code):
            return number
    return len(run)


def _answers_with_literal(code: str) -> bool:
    """Return whether the code calls `FINAL` with a literal, which cannot depend on what other code found."""
    tree = program(code)
    for statement in tree.body if tree else ():
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id="FINAL"), args=[value])):
                return not any(isinstance(node, ast.Name) for node in ast.walk(value))
    return False


def _code_in_tags(text: str) -> tuple[str, ...]:
    """Return the code between tags such as `<python>`, or in single backticks on lines of its own, if it uses the
    REPL."""
    own = _blank_quotations(text)
    matches = [*_TAGGED_CODE.finditer(own)]
    if not matches and any(_ANSWER_OR_ASK.search(span["code"]) for span in _CODE_SPAN.finditer(own)):
        matches = [*_CODE_SPAN.finditer(own)]
    spans = (match.span("code") for match in matches)
    found = (textwrap.dedent(text[start:end]).strip("\n") for start, end in spans)
    return tuple(code for code in found if _uses_repl(code))


def _code_in_calls(text: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """Return the code of a tool call to an interpreter: as JSON, as an XML element, or in the ReAct format."""
    for written in (*(block.code for block in blocks), text):
        for call in _json_objects(written):
            if code := _code_of(call):
                return (code,)
    own = _blank_quotations(text)
    for named in (*_INVOKE_ELEMENT.finditer(own), *_REACT_ACTION.finditer(own)):
        start, end = named.span("code")
        written = text[start:end].strip()
        if _INTERPRETER_NAME.fullmatch(named["name"]) and is_python(written):
            return (written,)
    return ()


def _json_objects(text: str) -> Iterator[Any]:
    """Yield the JSON objects in a text."""
    own, at = _blank_quotations(text), -1
    for _ in range(_MAX_OBJECTS):
        at = own.find("{", at + 1)
        if at < 0:
            return
        with suppress(ValueError, RecursionError):
            found, end = json.JSONDecoder(strict=False).raw_decode(text, at)
            yield found
            at = end - 1


def _code_of(call: Any) -> str | None:
    """Return the code in a tool call of any provider's format, or None."""
    if not isinstance(call, dict):
        return None
    if isinstance(calls := call.get("tool_calls"), list) and calls:
        return _code_of(calls[0])
    if isinstance(inner := call.get("function"), dict):
        call = inner
    names = [
        call[key]
        for key in ("name", "tool", "function", "action", "recipient_name")
        if isinstance(call.get(key), str)
    ]
    keys = ("arguments", "parameters", "input", "args", "action_input", "kwargs")
    arguments = next((call[key] for key in keys if key in call), call)
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            return None
    code = (
        next((arguments[key] for key in ("code", "python", "source") if key in arguments), None)
        if isinstance(arguments, dict)
        else arguments
    )
    if not isinstance(code, str):
        return None
    if any(_INTERPRETER_NAME.fullmatch(name) for name in names):
        return code if is_python(code) else None
    return code if not names and set(call) <= {"code", "language"} and _uses_repl(code) else None


def _unfenced_code(text: str, blocks: Sequence[_Block]) -> tuple[str, ...]:
    """Return the code that stands in the text without a fence, if it uses the REPL."""
    lines = text.split("\n")
    if blocks or len(lines) > _MAX_UNFENCED_LINES or not any(word in text for word in _REPL_NAMES):
        return ()
    for start, line in enumerate(lines):
        if not line.strip():
            continue
        for end in [
            n for n in range(len(lines), start, -1) if n == len(lines) or not lines[n].strip() or n == start + 1
        ]:
            code = textwrap.dedent("\n".join(lines[start:end])).strip("\n")
            if _uses_repl(code):
                return (code,)
    return ()


def _uses_repl(code: str) -> bool:
    """Return whether this is a program that uses the REPL."""
    tree = program(code)
    nodes = [*ast.walk(tree)] if tree else []
    uses = any(isinstance(node, ast.Name) and node.id in _REPL_NAMES for node in nodes)
    return uses and any(isinstance(node, ast.Call | ast.Import | ast.For | ast.FunctionDef) for node in nodes)
