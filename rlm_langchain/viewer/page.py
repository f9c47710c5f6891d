"""Writes the page of a run: HTML, CSS, JavaScript and data in one file that opens from disk."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from rlm_langchain.context.sanitize import one_line, visible
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError
from rlm_langchain.records import Record, RLMOutput
from rlm_langchain.trajectory.degradation import STOP_SENTENCES
from rlm_langchain.viewer.data import Json, page_data

MODULES = (
    "text.js", "model.js", "query.js", "widgets.js", "detail.js", "summary.js", "run.js", "list.js", "timeline.js",
    "context.js", "costs.js", "main.js",
)  # fmt: skip
"""The JavaScript modules, each after the modules that it imports."""
MAX_NOTEBOOK_CHARS = 4_000_000
"""Maximum characters of a page that a notebook embeds. For a larger one, it says how to write a file."""
GENERATOR_TAG = b'<meta name="generator" content="rlm_langchain">'
"""Tag in the head of every page, by which our pages are recognised."""
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|let|function|class|async)", re.MULTILINE)


@dataclass(frozen=True)
class RunPage:
    """The page of a run. Write it to a file, or let a notebook display it as the last value of a cell.

    It contains prompts and replies: protect it as you would protect the context.
    """

    run: RLMOutput | Iterable[Record]
    """An output of the RLM, its trajectory, or the records of a trace."""
    limits: Mapping[str, float] | None = None
    """Limits of the run, by field of `Budget`. Records do not contain them."""
    store: ContextStore | None = None
    """The store of the contexts, for the text around quotes. None: the page shows only text that models wrote or
    code printed."""

    def html(self) -> str:
        """Return the page as HTML."""
        records = cast(RLMOutput, self.run)["trajectory"] if isinstance(self.run, dict) else self.run
        data = page_data(records, limits=self.limits, store=self.store)
        style, program = _part("page.css"), _program()
        packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 6, mtime=0)
        parts = {
            "title": html.escape(_title(data)),
            "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(program)}'; "
            "base-uri 'none'; form-action 'none'",
            "style": style,
            "summary": html.escape(_plain_summary(data)),
            "data": base64.b64encode(packed).decode(),
            "program": program,
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))

    def to_html(self, path: Path | str) -> None:
        """Write the page to a file, replacing an earlier page of a run.

        Raises `InputError` if the file exists and is not such a page, or cannot be written.
        """
        path = Path(path)
        try:
            if path.is_file() and not _is_page(path):
                raise InputError(
                    f"{path} exists and is not the page of a run, so it is not overwritten: give another file"
                )
            path.write_text(self.html(), encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}): give another file") from error

    def _repr_html_(self) -> str:
        page = self.html()
        if len(page) > MAX_NOTEBOOK_CHARS:
            return f"<p>This page is too large for a notebook ({len(page):,} characters): use to_html(path).</p>"
        return (
            f'<iframe title="The page of a run" sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
            'style="width:100%;height:720px;border:1px solid #8884;border-radius:8px"></iframe>'
        )


def _is_page(path: Path) -> bool:
    """Return whether a file is empty or the page of a run."""
    with path.open("rb") as file:
        head = file.read(4_000)
    return not head or GENERATOR_TAG in head


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")


@cache
def _program() -> str:
    """Return the JavaScript modules as one script, without their imports and exports."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _part(name))) for name in MODULES)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _title(data: Json) -> str:
    question = data["runs"][0]["question"]
    query = one_line(" ".join(question["query"].split())[:80]) if question else "no question"
    return f"{query} · run"


def _plain_summary(data: Json) -> str:
    """Return the text for browsers without JavaScript."""
    end = data["runs"][0]["answer"]
    if not end:
        return "This run has not ended. The page needs JavaScript to show what it did."
    why = f"{end['status']}: {STOP_SENTENCES[end['reason']]}"
    return visible(f"{why}\n\n{end['answer'] or ''}\n\nThe page needs JavaScript to show what the run did.")
