"""DOCX and ODT: a text, as in Markdown. PPTX and ODP: a list of slides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rlm_langchain.context.describe import count, list_counts
from rlm_langchain.context.formats.markup import table, tidy
from rlm_langchain.context.formats.packages import Package, nearest
from rlm_langchain.context.formats.parsed import MAX_VALUE_BYTES, Parsed, SourceFile, TooLong, Unreadable

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_PRESENTATION = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MAX_REPEATED = 1_000
"""Most times that an ODF file may ask for a blank or a cell to be repeated."""
_REPEATED = ""
"""The key, among the counts of a document, of its characters that are repetitions."""
_SLIDE_KEYS = 'dicts with the keys "slide", from 1, "title", "text", "notes"'


def read_docx(file: SourceFile) -> Parsed:
    """Read a Word document: headings, paragraphs, lists, tables, footnotes and comments. Raises `Unreadable`."""
    with Package(file, "DOCX document") as package:
        word = _Word(package)
        text = tidy("\n\n".join(word.blocks(package.xml("word/document.xml").find(f"{_W}body"))) + word.ends())
    return _document("DOCX document", text, word.counts, word.left)


def _document(kind: str, text: str, counts: Counter[str], left: Counter[str]) -> Parsed:
    if not text.strip():
        raise Unreadable(kind, "has no text", "if it holds pictures, recognise the text in them first")
    details = ", ".join(count(number, noun) for noun, number in counts.items() if noun != _REPEATED)
    return Parsed(kind, "str", text, details=details, notes=[f"left out: {list_counts(left)}"] if left else [])


class _Word:
    """Turns the XML of a Word document into text."""

    def __init__(self, package: Package) -> None:
        self.counts: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self._package = package
        styles = package.xml_or_none("word/styles.xml")
        self._levels = {} if styles is None else dict(_heading_levels(styles))

    def blocks(self, parent: Any) -> Iterator[str]:
        """Yield the paragraphs and tables of a body, a cell or a footnote."""
        for element in parent if parent is not None else ():
            if element.tag == f"{_W}p":
                yield self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                self.counts["table"] += 1
                yield table([[*self._cells(row)] for row in nearest(element, f"{_W}tr")])
            elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
                yield from self.blocks(element)

    def ends(self) -> str:
        """Return the footnotes, endnotes and comments."""
        parts = list[str]()
        for part, tag, mark in (("footnotes", "footnote", "^"), ("endnotes", "endnote", "^e")):
            root = self._package.xml_or_none(f"word/{part}.xml")
            for note in root if root is not None else ():
                if note.get(f"{_W}type") is None:
                    self.counts[tag] += 1
                    parts.append(f"[{mark}{note.get(f'{_W}id')}]: {' '.join(self.blocks(note)).strip()}")
        root = self._package.xml_or_none("word/comments.xml")
        for note in root if root is not None else ():
            self.counts["comment"] += 1
            parts.append(f"[comment by {note.get(f'{_W}author')}]: {' '.join(self.blocks(note)).strip()}")
        if any(re.fullmatch(r"word/(header|footer)\d*\.xml", name) for name in self._package.names):
            for name in sorted(self._package.names):
                self._count_running_title(name)
        return "\n\n" + "\n\n".join(parts)

    def _count_running_title(self, name: str) -> None:
        if found := re.fullmatch(r"word/(header|footer)\d*\.xml", name):
            text = "".join(one.text or "" for one in self._package.xml(name).iter(f"{_W}t"))
            if text.strip():
                self.left[f"page {found[1]}"] += 1

    def _cells(self, row: Any) -> Iterator[str]:
        for cell in nearest(row, f"{_W}tc"):
            yield " ".join(" ".join(self.blocks(cell)).split())

    def _paragraph(self, element: Any) -> str:
        text = "".join(self._runs(element)).strip()
        style = element.find(f"{_W}pPr/{_W}pStyle")
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        level = int(outline.get(f"{_W}val", 9)) + 1 if outline is not None else 0
        if style is not None and not level:
            level = self._levels.get(style.get(f"{_W}val"), 0)
        if text and 0 < level < 10:
            self.counts["heading"] += 1
            return f"{'#' * min(level, 6)} {text}"
        return f"- {text}" if text and element.find(f"{_W}pPr/{_W}numPr") is not None else text

    def _runs(self, element: Any) -> Iterator[str]:
        for child in element:
            match child.tag:
                case str(tag) if tag == f"{_W}t":
                    yield child.text or ""
                case str(tag) if tag == f"{_W}tab":
                    yield "\t"
                case str(tag) if tag in (f"{_W}br", f"{_W}cr"):
                    yield "\n"
                case str(tag) if tag == f"{_W}noBreakHyphen":
                    yield "-"
                case str(tag) if tag == f"{_W}footnoteReference":
                    yield f"[^{child.get(f'{_W}id')}]"
                case str(tag) if tag == f"{_W}endnoteReference":
                    yield f"[^e{child.get(f'{_W}id')}]"
                case str(tag) if tag in (f"{_W}del", f"{_W}moveFrom"):
                    self.left["tracked deletion"] += 1
                case str(tag) if tag in (f"{_W}pict", f"{_W}drawing"):
                    yield from self._drawing(child)
                case str(tag) if tag not in (_FALLBACK, f"{_W}pPr", f"{_W}rPr", f"{_W}instrText"):
                    yield from self._runs(child)

    def _drawing(self, element: Any) -> Iterator[str]:
        boxes = [*nearest(element, f"{_W}txbxContent")]
        if not boxes:
            self.left["picture"] += 1
        for box in boxes:
            yield "\n" + "\n".join(self.blocks(box)) + "\n"


def _heading_levels(styles: Any) -> Iterator[tuple[str, int]]:
    """Yield styles that make headings, with the level. A translated Word translates the key, not the name."""
    for style in styles.iter(f"{_W}style"):
        name = style.find(f"{_W}name")
        found = re.fullmatch(r"heading (\d)", "" if name is None else name.get(f"{_W}val", "").lower())
        outline = style.find(f"{_W}pPr/{_W}outlineLvl")
        if found:
            yield style.get(f"{_W}styleId"), int(found[1])
        elif name is not None and name.get(f"{_W}val", "").lower() == "title":
            yield style.get(f"{_W}styleId"), 1
        elif outline is not None and outline.get(f"{_W}val", "9") < "9":
            yield style.get(f"{_W}styleId"), int(outline.get(f"{_W}val")) + 1


def read_pptx(file: SourceFile) -> Parsed:
    """Read a presentation: a list of its slides, in their order. Raises `Unreadable`."""
    left = Counter[str]()
    with Package(file, "PPTX presentation") as package:
        targets = package.targets("ppt/presentation.xml")
        numbers = [one.get(f"{_R}id") for one in package.xml("ppt/presentation.xml").iter(f"{_P}sldId")]
        slides = [_slide(package, targets[one][1], at, left) for at, one in enumerate(numbers, 1) if one in targets]
    return _slides("PPTX presentation", slides, left)


def _slides(kind: str, slides: list[dict[str, Any]], left: Counter[str]) -> Parsed:
    if not any(slide["text"] or slide["notes"] for slide in slides):
        raise Unreadable(kind, "has no text", "if it holds pictures, recognise the text in them first")
    return Parsed(kind, "list", slides, "slide", _SLIDE_KEYS, [f"left out: {list_counts(left)}"] if left else [])


def _slide(package: Package, name: str, number: int, left: Counter[str]) -> dict[str, Any]:
    root = package.xml(name)
    left["picture"] += sum(1 for _ in root.iter(f"{_P}pic"))
    left["chart or diagram"] += sum(
        1 for frame in root.iter(f"{_A}graphicData") if frame.get("uri", "").endswith(("/chart", "/diagram"))
    )
    notes = [
        "\n".join(_shape_texts(package.xml(target), ("sldImg", "sldNum", "hdr", "ftr", "dt"))[1])
        for kind, target in package.targets(name).values()
        if kind == "notesSlide" and target in package.names
    ]
    title, texts = _shape_texts(root, ("sldNum", "ftr", "dt"))
    for key in [key for key, value in left.items() if not value]:
        del left[key]
    return {
        "slide": number,
        "title": title,
        "text": tidy("\n\n".join(texts)).strip(),
        "notes": "\n".join(notes).strip(),
    }


def _shape_texts(root: Any, skipped: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the title, and the texts of all shapes and tables."""
    title, texts = "", list[str]()
    for element in nearest(root, f"{_P}sp", f"{_A}tbl"):
        if element.tag == f"{_A}tbl":
            texts.append(
                table(
                    [
                        [" ".join(_lines(cell)) for cell in nearest(row, f"{_A}tc")]
                        for row in nearest(element, f"{_A}tr")
                    ]
                )
            )
            continue
        holder = element.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
        kind = "" if holder is None else holder.get("type", "")
        text = "\n".join(_lines(element))
        if kind in skipped or not text.strip():
            continue
        title = title or (text if kind in ("title", "ctrTitle") else "")
        texts.append(text)
    return title, texts


def _lines(element: Any) -> Iterator[str]:
    for paragraph in nearest(element, f"{_A}p"):
        yield "".join(
            "\n" if one.tag == f"{_A}br" else one.text or "" for one in nearest(paragraph, f"{_A}t", f"{_A}br")
        )


def read_odt(file: SourceFile) -> Parsed:
    """Read an OpenDocument text. Raises `Unreadable`."""
    counts, left = Counter[str](), Counter[str]()
    with Package(file, "ODT document") as package:
        root = package.xml("content.xml")
    text = tidy("\n\n".join(_odf_blocks(next(root.iter("{*}text"), root), counts, left)))
    return _document("ODT document", text, counts, left)


def read_odp(file: SourceFile) -> Parsed:
    """Read an OpenDocument presentation. Raises `Unreadable`."""
    left = Counter[str]()
    with Package(file, "ODP presentation") as package:
        root = package.xml("content.xml")
    counts = Counter[str]()
    slides = [
        _odf_slide(page, number, counts, left) for number, page in enumerate(nearest(root, f"{_DRAW}page"), 1)
    ]
    return _slides("ODP presentation", slides, left)


def _odf_slide(page: Any, number: int, counts: Counter[str], left: Counter[str]) -> dict[str, Any]:
    notes, texts, title = page.find(f"{_PRESENTATION}notes"), list[str](), ""
    for frame in page:
        if frame is notes:
            continue
        text = tidy("\n".join(_odf_blocks(frame, counts, left))).strip()
        if text:
            texts.append(text)
            title = title or (text if frame.get(f"{_PRESENTATION}class") == "title" else "")
    said = "" if notes is None else tidy("\n".join(_odf_blocks(notes, counts, Counter()))).strip()
    return {"slide": number, "title": title, "text": "\n\n".join(texts), "notes": said}


def _odf_blocks(parent: Any, counts: Counter[str], left: Counter[str]) -> Iterator[str]:
    for element in parent:
        if element.tag == f"{_TEXT}h":
            counts["heading"] += 1
            level = element.get(f"{_TEXT}outline-level", "1")
            yield f"{'#' * min(int(level), 6)} {_odf_text(element, counts)}"
        elif element.tag == f"{_TEXT}p":
            yield _odf_text(element, counts)
            left.update(["picture"] * sum(1 for _ in element.iter(f"{_DRAW}image")))
        elif element.tag == f"{_TEXT}list-item":
            yield "\n".join(f"- {block}" for block in _odf_blocks(element, counts, left))
        elif element.tag == f"{_TABLE}table":
            counts["table"] += 1
            yield table([[*_odf_cells(row, counts, left)] for row in nearest(element, f"{_TABLE}table-row")])
        elif element.tag == f"{_DRAW}image":
            left["picture"] += 1
        elif element.tag == f"{_TEXT}tracked-changes":
            left["tracked change"] += len(element)
        elif isinstance(element.tag, str):
            yield from _odf_blocks(element, counts, left)


def _odf_cells(row: Any, counts: Counter[str], left: Counter[str]) -> Iterator[str]:
    for cell in nearest(row, f"{_TABLE}table-cell"):
        text = " ".join(" ".join(_odf_blocks(cell, counts, left)).split())
        again = min(int(cell.get(f"{_TABLE}number-columns-repeated", "1")), _MAX_REPEATED)
        _repeated(len(text) * (again - 1), counts)
        yield from [text] * (again if text else 1)


def _repeated(size: int, counts: Counter[str]) -> None:
    """Count characters that an ODF file has only asked for. Raises `TooLong`."""
    counts[_REPEATED] += size
    if counts[_REPEATED] > MAX_VALUE_BYTES:
        raise TooLong


def _odf_text(element: Any, counts: Counter[str]) -> str:
    """Return the text of a paragraph, with its footnotes in brackets."""
    parts = [element.text or ""]
    for child in element:
        if child.tag == f"{_TEXT}s":
            parts.append(" " * min(int(child.get(f"{_TEXT}c", "1")), _MAX_REPEATED))
            _repeated(len(parts[-1]), counts)
        elif child.tag == f"{_TEXT}tab":
            parts.append("\t")
        elif child.tag == f"{_TEXT}line-break":
            parts.append("\n")
        elif child.tag == f"{_TEXT}note":
            counts["footnote"] += 1
            body = child.find(f"{_TEXT}note-body")
            inside = "" if body is None else " ".join(_odf_text(one, counts) for one in body)
            parts.append(f"[footnote: {inside}]")
        elif isinstance(child.tag, str) and not child.tag.endswith("}annotation"):
            parts.append(_odf_text(child, counts))
        parts.append(child.tail or "")
    return "".join(parts).strip() if element.tag in (f"{_TEXT}p", f"{_TEXT}h") else "".join(parts)
