"""What a file is: by its first bytes, a ZIP by its members, and by its name only where a format is text itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from rlm_langchain.context.formats.parsed import SourceFile, Unreadable

_TRANSCRIBE = "write down what is said in it first, for example with `whisper`, and give that text"
_NO_IMAGE = "convert it first, for example with `magick FILE picture.png`, and give that"
_STRINGS = "give its source, or the texts in it: `strings FILE > texts.txt`"
_OTHER_ARCHIVE = "unpack it first, for example with `{}`, and give the folder"


class Signature(NamedTuple):
    """Bytes at a place, by which a format is known."""

    magic: bytes
    name: str
    """The key of a reader in `table.py`; with `way_out`, what the file is."""
    way_out: str = ""
    """What to do with a file that nothing here reads."""
    at: int = 0
    has_nul: bool = False
    """Whether there must be a NUL in the first bytes too, because a text may begin with these."""
    also: bytes = b""
    """More bytes, eight after the beginning."""


SIGNATURES = (
    Signature(b"%PDF-", "pdf"),
    Signature(b"{\\rtf", "rtf"),
    Signature(b"SQLite format 3\0", "sqlite"),
    Signature(b"PAR1", "parquet", has_nul=True),
    Signature(b"ARROW1\0\0", "arrow"),
    Signature(b"FEA1", "arrow", has_nul=True),
    Signature(b"PK\x03\x04", "zip"),
    Signature(b"PK\x05\x06", "zip"),
    Signature(b"\x1f\x8b", "gz"),
    Signature(b"\x28\xb5\x2f\xfd", "zst"),
    Signature(b"\xfd7zXZ\0", "xz"),
    Signature(b"BZh", "bz2", also=b""),
    Signature(b"ustar", "tar", at=257),
    Signature(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    # Pictures. Those without a reader must be converted.
    Signature(b"\x89PNG\r\n\x1a\n", "image"),
    Signature(b"\xff\xd8\xff", "image"),
    Signature(b"GIF87a", "image"),
    Signature(b"GIF89a", "image"),
    Signature(b"RIFF", "image", also=b"WEBP"),
    Signature(b"BM", "image", has_nul=True),
    Signature(b"II*\0", "TIFF image", _NO_IMAGE),
    Signature(b"MM\0*", "TIFF image", _NO_IMAGE),
    Signature(b"II+\0", "TIFF image", _NO_IMAGE),
    Signature(b"\0\0\1\0", "icon", _NO_IMAGE),
    Signature(b"8BPS\0", "Photoshop image", _NO_IMAGE),
    Signature(b"\0\0\0\x0cjP  ", "JPEG 2000 image", _NO_IMAGE),
    Signature(b"\0\0\0\x0cJXL ", "JPEG XL image", _NO_IMAGE),
    Signature(b"ftypheic", "HEIC image", _NO_IMAGE, 4),
    Signature(b"ftypheix", "HEIC image", _NO_IMAGE, 4),
    Signature(b"ftypmif1", "HEIC image", _NO_IMAGE, 4),
    Signature(b"ftypavif", "AVIF image", _NO_IMAGE, 4),
    # Audio and video.
    Signature(b"ftypM4A", "M4A audio file", _TRANSCRIBE, 4),
    Signature(b"ftypM4B", "M4A audio file", _TRANSCRIBE, 4),
    Signature(b"ftypqt", "QuickTime video", _TRANSCRIBE, 4),
    Signature(b"ftyp", "MP4 video", _TRANSCRIBE, 4),
    Signature(b"RIFF", "WAV audio file", _TRANSCRIBE, also=b"WAVE"),
    Signature(b"RIFF", "AVI video", _TRANSCRIBE, also=b"AVI "),
    Signature(b"ID3", "MP3 audio file", _TRANSCRIBE, has_nul=True),
    Signature(b"\xff\xfb", "MP3 audio file", _TRANSCRIBE, has_nul=True),
    Signature(b"\xff\xf3", "MP3 audio file", _TRANSCRIBE, has_nul=True),
    Signature(b"\xff\xf1", "AAC audio file", _TRANSCRIBE, has_nul=True),
    Signature(b"OggS\0", "Ogg audio file", _TRANSCRIBE),
    Signature(b"fLaC\0", "FLAC audio file", _TRANSCRIBE),
    Signature(b"MThd\0", "MIDI file", "there is no speech in it: export what you need of it as text"),
    Signature(b"FORM", "AIFF audio file", _TRANSCRIBE, also=b"AIF"),
    Signature(b"\x1aE\xdf\xa3", "Matroska or WebM video", _TRANSCRIBE),
    Signature(b"FLV\1", "Flash video", _TRANSCRIBE),
    Signature(b"0&\xb2u\x8ef\xcf\x11", "Windows Media file", _TRANSCRIBE),
    Signature(b"\0\0\1\xba", "MPEG video", _TRANSCRIBE),
    Signature(b"\0\0\1\xb3", "MPEG video", _TRANSCRIBE),
    # Programs.
    Signature(b"\x7fELF", "executable", _STRINGS),
    Signature(b"MZ", "executable", _STRINGS, has_nul=True),
    Signature(b"\xfe\xed\xfa\xce", "executable", _STRINGS),
    Signature(b"\xfe\xed\xfa\xcf", "executable", _STRINGS),
    Signature(b"\xce\xfa\xed\xfe", "executable", _STRINGS),
    Signature(b"\xcf\xfa\xed\xfe", "executable", _STRINGS),
    Signature(b"\xca\xfe\xba\xbe", "compiled Java class or executable", _STRINGS),
    Signature(b"\0asm", "WebAssembly module", "give its source, or its text form: `wasm2wat FILE > module.wat`"),
    Signature(b"!<arch>\n", "library or Debian package", "unpack it first, for example with `ar x FILE`"),
    # Other archives.
    Signature(b"7z\xbc\xaf\x27\x1c", "7z archive", _OTHER_ARCHIVE.format("7z x FILE")),
    Signature(b"Rar!\x1a\x07", "RAR archive", _OTHER_ARCHIVE.format("unar FILE")),
    Signature(b"MSCF\0", "cabinet archive", _OTHER_ARCHIVE.format("cabextract FILE")),
    Signature(b"\x04\x22\x4d\x18", "LZ4 file", "unpack it first, for example with `lz4 -d FILE`"),
    Signature(b"LZIP", "LZIP file", "unpack it first, for example with `lzip -d FILE`", has_nul=True),
    Signature(b"\x1f\x9d", "file of compress", "unpack it first, for example with `gunzip FILE`"),
    Signature(b"CD001", "disk image", _OTHER_ARCHIVE.format("7z x FILE"), 0x8001),
    # Data that other programs turn into text.
    Signature(b"\x89HDF\r\n\x1a\n", "HDF5 file", "export it first: `h5dump FILE > data.txt`"),
    Signature(b"CDF\1", "NetCDF file", "export it first: `ncdump FILE > data.txt`"),
    Signature(b"\x93NUMPY", "NumPy array", "export it first: `numpy.savetxt('data.csv', numpy.load(FILE))`"),
    Signature(b"Obj\1", "Avro file", "export it first: `avro cat FILE > data.jsonl`"),
    Signature(b"ORC\n", "ORC file", "save it as Parquet first", has_nul=True),
    Signature(b"ORC\b", "ORC file", "save it as Parquet first"),
    Signature(b"DUCK", "DuckDB database", "export it first: `duckdb FILE \"COPY t TO 't.csv'\"`", 8),
    Signature(b"\0\1\0\0Standard ", "Access database", "export it first: `mdb-export FILE TABLE > table.csv`"),
    Signature(b"7\x7f\x06\x82", "log of a SQLite database", "give the database beside it"),
    Signature(b"7\x7f\x06\x83", "log of a SQLite database", "give the database beside it"),
    Signature(b"!BDN", "Outlook mailbox", "export it first: `readpst -o mails FILE`, and give the mbox files"),
    Signature(b"bplist00", "binary property list", "convert it first: `plutil -convert json -o data.json FILE`"),
    Signature(b"\0\1\0\0\0", "font", "there is no text in it: give something else"),
    Signature(b"OTTO\0", "font", "there is no text in it: give something else"),
    Signature(b"wOFF\0", "font", "there is no text in it: give something else"),
    Signature(b"wOF2\0", "font", "there is no text in it: give something else"),
    Signature(b"GGUF", "model file", "there is no text in it: give something else", has_nul=True),
)
"""The signatures of formats, in the order in which they are tried."""

SUFFIXES = {
    **dict.fromkeys((".csv",), "csv"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".ldjson"), "jsonl"),
    **dict.fromkeys((".json", ".geojson"), "json"),
    ".ipynb": "ipynb",
    ".eml": "eml",
    **dict.fromkeys((".mbox", ".mbx"), "mbox"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".tar": "tar",
}
"""Formats that are text themselves, and an old form of tar: known by the end of the name."""

_MEMBERS = (
    ("word/document.xml", "docx"),
    ("xl/workbook.xml", "sheets"),
    ("xl/workbook.bin", "sheets"),
    ("ppt/presentation.xml", "pptx"),
)
_MIMETYPES = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "sheets",
}
_OLE_STREAMS = (
    ("EncryptedPackage", "Office document", "encrypted", "save it without a password first"),
    ("__substg1.0", "Outlook message", "", "save it as .eml first, for example with `msgconvert FILE`"),
    (
        "WordDocument",
        "Word document before 2007",
        "",
        "save it as .docx first: `soffice --convert-to docx FILE`",
    ),
    (
        "PowerPoint Document",
        "presentation before 2007",
        "",
        "`soffice --convert-to pptx FILE` makes a .pptx of it",
    ),
)
_TIME, _YEAR, _HEADER = re.compile(rb"\d\d:\d\d"), re.compile(rb"\d{4}"), re.compile(rb"[\w-]+:")
_CHAT_NAME = re.compile(r"chat|whatsapp", re.IGNORECASE)
CHAT_LINE = re.compile(
    "[\u200e\u200f\ufeff]*"
    r"\[?(?P<date>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}),?[ \u00a0](?P<time>\d{1,2}[:.]\d\d(?:[:.]\d\d)?"
    r"(?:[ \u00a0\u202f]?[AaPp]\.?[ \u00a0]?[Mm]\.?)?)(?:\]| -|:) (?P<rest>.*)",
)
"""The first line of a message in a chat that WhatsApp has exported."""


def format_of(file: SourceFile) -> str | None:
    """Return the key of the reader of a file, or None for a text. Raises `Unreadable` for one that has none."""
    head = file.head
    for one in SIGNATURES:
        if head[one.at : one.at + len(one.magic)] == one.magic and _fits(one, head):
            if one.way_out:
                raise Unreadable(one.name, "", one.way_out)
            return _CONTAINERS[one.name](file) if one.name in _CONTAINERS else one.name
    if head.lstrip()[:5] == b"%PDF-":
        return "pdf"
    if _begins_as_mailbox(head):
        return "mbox"
    if _CHAT_NAME.search(file.name) and file.suffix == ".txt" and _begins_as_chat(head):
        return "chat"
    return SUFFIXES.get(file.suffix)


def has_signature(head: bytes) -> bool:
    """Return whether bytes begin like a file that is no text."""
    return head.lstrip()[:5] == b"%PDF-" or any(
        head[one.at : one.at + len(one.magic)] == one.magic and _fits(one, head) for one in SIGNATURES
    )


def _fits(one: Signature, head: bytes) -> bool:
    if one.has_nul and b"\0" not in head:
        return False
    if one.magic == b"BZh":
        return head[3:4].isdigit() and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")
    return not one.also or head[8 : 8 + len(one.also)] == one.also


def _begins_as_mailbox(head: bytes) -> bool:
    """Return whether the first line is `From`, a sender, a time and a year, and the second a header.

    One expression for all of it would take hours for a line that repeats a part of it.
    """
    first, _, second = head.partition(b"\n")
    time = _TIME.search(first, 6) if first.startswith(b"From ") and first[5:6].strip() else None
    return bool(time and _YEAR.search(first, time.end()) and _HEADER.match(second))


def _begins_as_chat(head: bytes) -> bool:
    lines = head.decode("utf-8", "replace").splitlines()[:20]
    return sum(CHAT_LINE.match(line) is not None for line in lines) * 2 > len(lines)


def _kind_of_zip(file: SourceFile) -> str:
    """Return what a ZIP file is, by its members. Raises `Unreadable` for a damaged one."""
    import zipfile

    try:
        with zipfile.ZipFile(file.stream) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                kind = archive.read("mimetype").decode("ascii", "replace").strip()
                if found := _MIMETYPES.get(kind.removesuffix("-template")):
                    return found
            return next((kind for name, kind in _MEMBERS if name in names), "zip")
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        kind = {".docx": "DOCX document", ".xlsx": "XLSX workbook", ".pptx": "PPTX presentation"}.get(
            file.suffix, "ZIP archive"
        )
        raise Unreadable(kind, "damaged", "it is cut or changed: get it again where it came from") from error


def _kind_of_ole(file: SourceFile) -> str:
    """Return `sheets` for an old workbook. Raises `Unreadable` for other files in the same container."""
    for names in _utf16_chunks(file.stream, file.size):
        for stream, kind, fault, way_out in _OLE_STREAMS:
            if stream.encode("utf-16-le") in names:
                raise Unreadable(kind, fault, way_out)
        if any(name.encode("utf-16-le") in names for name in ("Workbook", "Book")):
            return "sheets"
    raise Unreadable("file of an old Windows program", "", "save it in another format first")


def _utf16_chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the parts of a compound file that may be its directory: its first and last megabyte."""
    stream.seek(0)
    yield stream.read(1 << 20)
    if size > 1 << 20:
        stream.seek(max(1 << 20, size - (1 << 20)))
        yield stream.read(1 << 20)


_CONTAINERS = {"zip": _kind_of_zip, "ole": _kind_of_ole}
