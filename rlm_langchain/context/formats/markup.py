"""HTML, EPUB and RTF: readable text. Headings, lists and tables are written as in Markdown."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from rlm_langchain.context.decoding import charset, encoding_of
from rlm_langchain.context.describe import count, list_counts
from rlm_langchain.context.formats.packages import Package
from rlm_langchain.context.formats.parsed import AsText, Parsed, SourceFile, Text, Unreadable, library

_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]+?(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_SKIPPED = frozenset(("script", "style", "noscript", "template", "head", "svg", "math"))
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset"),
        *("figcaption", "figure", "footer", "form", "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre"),
        *("section", "summary", "table", "td", "th", "tr", "ul"),
    )
)
_MAX_PADDED = 20
"""Most cells that a table has for each one that is written, once its short rows are filled up."""
_PICTURES = frozenset(("img", "picture", "svg", "video", "audio", "canvas", "object", "embed"))


def read_html(file: SourceFile) -> Parsed | AsText:
    """Read a web page: its readable text, without scripts and styles."""
    library("lxml")
    source, notes = _decoded(file)
    text, left = html_text(source)
    if not text.strip():
        return AsText("it has no readable text, so its source is the text")
    title = re.sub(r"\s+", " ", _title(source))
    notes += [f"left out: {list_counts(left)}"] if left else []
    return Parsed("HTML page", "str", text, "page", f"title: {title[:100]}" if title else "", notes)


def _decoded(file: SourceFile) -> tuple[str, list[str]]:
    """Return the source, in the encoding that it names unless a byte order mark says otherwise."""
    named = _CHARSET.search(file.head)
    if named and encoding_of(file.head) == "utf-8":
        try:
            return file.read(kind="HTML page").decode(charset(named[1].decode())), []
        except (LookupError, UnicodeError):
            pass
    text = Text(file)
    return text.whole(), text.notes()


def _tree(source: str) -> Any:
    html, etree = library("lxml.html"), library("lxml.etree")
    try:
        return html.document_fromstring(
            source.replace("\0", "").encode("utf-8", "replace"), parser=html.HTMLParser(encoding="utf-8")
        )
    except (etree.LxmlError, ValueError):
        return None


def _title(source: str) -> str:
    tree = _tree(source)
    return "" if tree is None else (tree.findtext(".//title") or "").strip()


def html_text(source: str) -> tuple[str, Counter[str]]:
    """Return the readable text of a page, and what of it is left out."""
    tree, left = _tree(source), Counter[str]()
    if tree is None:
        return "", left
    return tidy("".join(_pieces(tree, left))), left


def tidy(text: str) -> str:
    """Return a text without blanks at the ends of lines, and with one empty line between paragraphs."""
    text = re.sub(r"[ \t\r\f\v]*\n[ \t\r\f\v]*", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _pieces(element: Any, left: Counter[str]) -> Iterator[str]:
    """Yield the text of an element, and of those in it."""
    tag = element.tag if isinstance(element.tag, str) else ""
    if tag in _PICTURES:
        left["picture or player"] += 1
        if alt := element.get("alt"):
            yield f"[{_blank(alt)}]"
    elif tag == "table":
        yield f"\n\n{table(_rows(element, left))}\n\n"
    elif tag == "br":
        yield "\n"
    elif tag == "pre":
        yield f"\n\n{''.join(element.itertext())}\n\n"
    elif tag and tag not in _SKIPPED:
        yield _before(tag)
        if tag not in ("ul", "ol"):
            yield _blank(element.text or "")
        for child in element:
            yield from _pieces(child, left)
            yield _blank(child.tail or "")
        yield "\n\n" if tag in _BLOCKS or _level(tag) else ""


def _before(tag: str) -> str:
    if level := _level(tag):
        return f"\n\n{'#' * level} "
    if tag == "li":
        return "\n- "
    return "\n\n" if tag in _BLOCKS else ""


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


def _blank(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _rows(element: Any, left: Counter[str]) -> list[list[str]]:
    rows = [row for row in element.iter("tr") if next(row.iterancestors("table")) is element]
    return [
        [" ".join("".join(_pieces(cell, left)).split()) for cell in row if cell.tag in ("td", "th")] for row in rows
    ]


def table(rows: list[list[str]]) -> str:
    """Return a table as in Markdown."""
    rows = [row for row in rows if row]
    if not rows:
        return ""
    width = max(map(len, rows))
    if width * len(rows) > _MAX_PADDED * sum(map(len, rows)):  # a few long rows and many short ones
        width = 0
    lines = [[cell.replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def read_epub(file: SourceFile) -> Parsed:
    """Read a book: a list of its chapters. Raises `Unreadable`."""
    with Package(file, "EPUB") as package:
        if "META-INF/rights.xml" in package.names or "META-INF/sinf.xml" in package.names:
            raise Unreadable("EPUB", "copy-protected", "get it without protection from who sold it")
        container = package.xml("META-INF/container.xml")
        path = next((one.get("full-path") for one in container.iter("{*}rootfile")), None)
        book = package.xml(path or "")
        files = {one.get("id"): one.get("href") for one in book.iter("{*}item")}
        spine = [files.get(one.get("idref")) for one in book.iter("{*}itemref")]
        title = next((one.text for one in book.iter("{*}title") if one.text), "")
        chapters, left, notes = list[dict[str, Any]](), Counter[str](), list[str]()
        for href in filter(None, spine):
            file.reading.check()
            name = posixpath.normpath(posixpath.join(posixpath.dirname(path or ""), unquote(href)))
            if name not in package.names:
                notes.append(f"left out: {name}, which is missing")
                continue
            source = package.read(name).decode("utf-8", "replace")
            text, pictures = html_text(source)
            left += pictures
            if text.strip():
                heading = re.search(r"^#+ (.+)", text, re.MULTILINE)
                named = heading[1] if heading else _title(source)
                chapters.append({"chapter": len(chapters) + 1, "title": named, "text": text})
    if not chapters:
        raise Unreadable("EPUB", "has no text", "it holds pictures only: recognise the text in them first")
    notes += [f"left out: {list_counts(left)}"] if left else []
    return Parsed(
        "EPUB",
        "list",
        chapters,
        "chapter",
        'dicts with the keys "chapter", "title", "text"' + (f"; title: {title}" if title else ""),
        notes,
    )


def read_rtf(file: SourceFile) -> Parsed:
    """Read the text of an RTF document. Raises `Unreadable`."""
    striprtf = library("striprtf.striprtf")
    source = file.read(64 << 20, "RTF document").decode("latin-1")
    try:
        text = striprtf.rtf_to_text(source, errors="replace")
    except (ValueError, LookupError, IndexError, RecursionError) as error:
        raise Unreadable("RTF document", "damaged", "save it again as .docx, .odt or text") from error
    pictures = len(re.findall(r"\\pict\b", source))
    notes = [f"left out: {count(pictures, 'picture')}"] if pictures else []
    if source.count("{") - source.count("\\{") > source.count("}") - source.count("\\}"):
        notes.append("damaged: its end is missing")
    return Parsed("RTF document", "str", text, notes=notes)
