"""Files that are damaged, too large, hostile or not what they seem are named or refused."""
# ruff: noqa: E501 - a file, what it becomes and what is said of it are on one line

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sqlite3
import sys
import tarfile
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from rlm_langchain.context.decoding import BLOCK_BYTES
from rlm_langchain.context.formats import databases, parsed, table
from rlm_langchain.context.formats.parsed import SourceFile
from rlm_langchain.context.images import Images
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError, MissingDependency
from tests.kinds import MEMBERS, PAGES, TABLE, TEXT, W, database, mail, pdf, tarred, xlsx, zipped


@pytest.fixture
def store(tmp_path):
    return ContextStore(tmp_path / "home")


@pytest.fixture
def read(store, tmp_path):
    """A function that writes a file and returns what it becomes, and how it is described."""

    def read(name, data, **options):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        ref = store.reference(path, **options)
        return store.load(ref), ref["about"]

    return read


def encrypted(data: bytes, user: str) -> bytes:
    import pikepdf

    saved = io.BytesIO()
    with pikepdf.open(io.BytesIO(data)) as opened:
        opened.save(saved, encryption=pikepdf.Encryption(owner="owner", user=user))
    return saved.getvalue()


def nested(levels: int) -> bytes:
    data, name = TEXT.encode(), "a.txt"
    for level in range(levels):
        data, name = zipped({name: data}), f"level{level}.zip"
    return data


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def far_cell(row: str = "1048576", cell: str = 'r="XFD1048576"') -> bytes:
    members = zipfile.ZipFile(io.BytesIO(xlsx({"Orders": TABLE})))
    parts = {name: members.read(name) for name in members.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    last = f'<row r="{row}"><c {cell}><v>1</v></c></row></sheetData>'.encode()
    return zipped({**parts, sheet: parts[sheet].replace(b"</sheetData>", last)})


def shared_text(cells: int) -> bytes:
    members = zipfile.ZipFile(io.BytesIO(xlsx({"Orders": TABLE})))
    parts = {name: members.read(name) for name in members.namelist()}
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, cells))
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return zipped(
        {
            **parts,
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>',
            "xl/sharedStrings.xml": f'<sst xmlns="{space}"><si><t>{"x" * 1_000_000}</t></si></sst>',
        }
    )


def shop(tmp_path: Path) -> bytes:
    database(tmp_path / "shop")
    return (tmp_path / "shop").read_bytes()


COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", lambda: encrypted(pdf(PAGES), "secret"), "is an encrypted PDF: remove its password first"),
        ("a.pdf", lambda: b"%PDF-1.4\nnothing", "is a damaged PDF"),
        ("a.pdf", lambda: pdf(["", ""]), "is a PDF that has only pictures, no text: .*ocrmypdf"),
        ("a.zip", lambda: zipped({"a.txt": bytes(64 << 20)}), "unpacks to more than 200 times its size"),
        ("a.gz", lambda: gzip.compress(bytes(64 << 20)), "unpacks to more than 200 times its size"),
        ("a.docx", lambda: zipped({"word/document.xml": b" " * (32 << 20)}), "unpacks to too much"),
        ("a.zip", lambda: nested(4), "is an archive that is inside 3 others: unpack the outer ones"),
        ("a.zip", lambda: zipped(MEMBERS)[:-30], "is a damaged ZIP archive"),
        ("a.xlsx", lambda: xlsx({"Orders": TABLE})[:-50], "is a damaged XLSX workbook"),
        ("a.xlsx", far_cell, "has a sheet of 1,048,576 rows and 16,384 columns"),
        ("a.xlsx", lambda: far_cell(cell='r="xfd1048576"'), "has a sheet of 1,048,576 rows and 16,384 columns"),
        (
            "a.xlsx",
            lambda: far_cell("000001048576", "r\n = 'XFD1'"),
            "has a sheet of 1,048,576 rows and 16,384 columns",
        ),
        ("a.xlsx", lambda: far_cell("1048576", "r='n1048576'"), "has a sheet of 1,048,576 rows and 14 columns"),
        ("a.xlsx", lambda: shared_text(1_100), "repeats its texts too often"),
        ("a.docx", lambda: COMPOUND + "EncryptedPackage".encode("utf-16-le"), "is an encrypted Office document"),
        ("a.doc", lambda: COMPOUND + "WordDocument".encode("utf-16-le"), "soffice --convert-to docx"),
        ("a.parquet", lambda: b"PAR1" + bytes(50) + b"PAR1", "is a damaged Parquet file"),
        (
            "a.png",
            lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0",
            "is a PNG image that has more than 51 million",
        ),
        (
            "a.tif",
            lambda: b"II*\0",
            "is a TIFF image: convert it first, for example with `magick FILE picture.png`",
        ),
        ("a.mp3", lambda: b"ID3\3\0\0\0\0", "is an MP3 audio file: write down what is said"),
        ("a.7z", lambda: b"7z\xbc\xaf\x27\x1c\0\4", "unpack it first, for example with `7z x FILE`"),
        ("a.bin", lambda: b"\x7fELF\2\1\1\0", "is an executable"),
        ("a.txt", lambda: "ёжик".encode("cp1251") * 3, "is not text in UTF-8: if it is text in another encoding"),
        ("a.gz", lambda: gzip.compress(b"\0\1\2\xff" * 50), "is a gzip file that holds no text"),
        ("a.dat", lambda: b"\0\1\2\3" * 50, "is not text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_it_is_and_a_way_out(read, name, data, message):
    with pytest.raises(InputError, match=message):
        read(name, data())


@pytest.mark.parametrize("cut", [5_000, 2])
def test_a_database_that_is_cut_is_refused_with_a_way_to_save_it(read, tmp_path, cut):
    data = shop(tmp_path)
    with pytest.raises(InputError, match=r"is a damaged SQLite database: .*recover"):
        read("a.db", data[: len(data) // cut] if cut == 2 else data[:cut])


@pytest.mark.parametrize(
    ("name", "data", "value", "note"),
    [
        ("a.csv", "a,b\n1,2\n3\n4,5,6\n", [{"a": "1", "b": "2"}, {"a": "3", "b": None}, {"a": "4", "b": "5", "_extra": ["6"]}], "2 ragged rows, the first is row 2: 1 with missing cells, which are None, 1 with"),
        ("a.csv", "1,2\n3,4\n", [{"column_1": "1", "column_2": "2"}, {"column_1": "3", "column_2": "4"}], "guessed: there is no header"),
        ("a.csv", "a,a,\n1,2,3\n", [{"a": "1", "a_2": "2", "column_3": "3"}], 'own are "a_2", "column_3"'),
        ("a.csv", 'a,b\n"x,1\n2,3\n', [{"a": "x,1\n2,3\n", "b": None}], "damaged: a quotation mark is not closed"),
        ("a.csv", "a,b\n", "a,b\n", "there is no row in it, so it is read as text"),
        ("a.csv", "name,x\nStraße,1\n".encode("latin-1"), [{"name": "Straße", "x": "1"}], "guessed: its encoding is cp1252"),
        ("a.json", '{"a": 1,', '{"a": 1,', "it is no JSON (Expecting"),
        ("a.json", '[NaN, {"a": 1, "a": 2}]', [None, {"a": 2}], "replaced: 1 NaN or Infinity by None; left out: 1 value whose key"),
        ("a.json", "[" * 100_000, "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"a": 1}\nno\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}], "left out: 1 line that is no JSON (line 2)"),
        ("a.txt", "hello there".encode("utf-16-le"), "hello there", "guessed: its encoding is UTF-16-LE"),
        ("a.txt", "Привет, старый мир".encode("utf-16-be"), "Привет, старый мир", "guessed: its encoding is UTF-16-BE"),
        ("a.txt", b"x" * 9_000 + "Straße".encode("latin-1"), "x" * 9_000 + "Straße", "guessed: its encoding is cp1252"),
        ("a.xlsx", xlsx({"Empty": []}), {"Empty": []}, '"Empty": an empty list, because it has no cells'),
        ("a.zip", changed(zipped({"a.txt": TEXT, "b.txt": "fine"}), 40), {"b.txt": "fine"}, 'left out: 1 damaged file ("a.txt")'),
        ("a.zip", zipped({"a.txt": "x", "b.pdf": b"%PDF-1.4", "c.png": b"\x89PNG\r\n\x1a\n"}), {"a.txt": "x"}, 'left out: 1 PDF (damaged: "b.pdf"), 1 PNG image (damaged: "c.png")'),
        ("a.zip", nested(3), {"level1.zip": {"level0.zip": {"a.txt": TEXT}}}, "ZIP archive"),
        ("a.eml", mail(1, b"\x7fELF\0", "tool").as_bytes(), None, 'left out: 1 executable in attachments ("tool")'),
    ],
)  # fmt: skip
def test_what_was_guessed_left_out_or_replaced_is_said_and_refused_under_strict(read, name, data, value, note):
    found, about = read(name, data)
    assert note in about
    assert value is None or found == value
    if "no cells" in note or note == "ZIP archive":
        read(name, data, strict=True)
    else:
        with pytest.raises(InputError):
            read(name, data, strict=True)


def word(body: str) -> bytes:
    return zipped({"word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>"})


def open_document(body: str) -> bytes:
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
    )
    kind = "application/vnd.oasis.opendocument.text"
    text = f"<a {names}><office:text>{body}</office:text></a>"
    return zipped({"mimetype": kind, "content.xml": text}, stored="mimetype")


def slides(shapes: str) -> bytes:
    a, p = (f"http://schemas.openxmlformats.org/{kind}ml/2006/main" for kind in ("drawing", "presentation"))
    r = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    slide = f'<p:sld xmlns:a="{a}" xmlns:p="{p}" xmlns:r="{r}">{{}}</p:sld>'
    return zipped(
        {
            "ppt/presentation.xml": slide.format('<p:sldId r:id="r1"/>'),
            "ppt/_rels/presentation.xml.rels": '<a><b Id="r1" Type="a/slide" Target="s.xml"/></a>',
            "ppt/s.xml": slide.format(shapes),
        }
    )


def within(levels: int, *tags: str) -> str:
    """Elements inside each other, with a `{}` in the innermost one."""
    opening, closing = "".join(f"<{tag}>" for tag in tags), "".join(f"</{tag.split()[0]}>" for tag in tags[::-1])
    return opening * levels + "{}" + closing * levels


RUN = "<w:p><w:r><w:t>once</w:t></w:r></w:p>"
CELL = "table:table-cell"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", word(within(60, "w:tbl", "w:tr", "w:tc").format(RUN))),
        ("a.docx", word(within(40, "w:p", "w:r", "w:pict", "w:txbxContent").format(RUN))),
        (
            "a.odt",
            open_document(within(60, "table:table", "table:table-row", CELL).format("<text:p>once</text:p>")),
        ),
        ("a.pptx", slides(within(200, "p:sp").format("<a:p><a:t>once</a:t></a:p>"))),
        ("a.pptx", slides(within(60, "a:tbl", "a:tr", "a:tc").format("<a:p><a:t>once</a:t></a:p>"))),
        ("a.html", within(60, "table", "tr", "td").format("once")),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 9 else "",
)
def test_what_is_nested_is_read_once(read, name, data):
    assert str(read(name, data)[0]).count("once") in (1, 2)  # a slide's title is also in its text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", lambda: word('<w:p><w:pPr><w:outlineLvl w:val="x"/></w:pPr></w:p>')),
        ("a.odt", lambda: open_document(f'<text:p>a<text:s text:c="{"9" * 5_000}"/></text:p>')),
        ("a.odt", lambda: open_document('<text:h text:outline-level="x">a</text:h>')),
        ("a.pptx", lambda: zipped({"ppt/presentation.xml": "<a/>", "ppt/_rels/presentation.xml.rels": "<a><b/><!-- --></a>"})),
        ("a.rtf", lambda: "{\\rtf1 \\u99999999999999999999 x}"),
    ],
)  # fmt: skip
def test_whatever_a_reader_fails_on_is_a_damaged_file(read, name, data):
    with pytest.raises(InputError, match="is a damaged"):
        read(name, data())


def test_a_text_that_its_reader_fails_on_stays_a_text(read):
    nested = "From: a\nContent-Type: message/rfc822\n\n" * 2_000
    text, about = read("a.eml", nested)
    assert text == nested
    assert "it cannot be read as eml (RecursionError), so it is read as text" in about


@pytest.mark.parametrize("levels", [3, 4])
def test_what_is_only_asked_to_be_repeated_is_bounded(read, levels):
    cell = f'{CELL} table:number-columns-repeated="1000"'
    tables = within(levels, "table:table", "table:table-row", cell).format("<text:p>x</text:p>")
    with pytest.raises(InputError, match="more than 128 MB as a value"):
        read("a.odt", open_document(tables))


@pytest.mark.parametrize("kind", ["html", "docx"])
def test_a_table_with_one_long_row_is_not_filled_up(read, kind):
    row = {
        "html": lambda number: f"<tr>{'<td>x' * number}",
        "docx": lambda number: f"<w:tr>{'<w:tc><w:p><w:r><w:t>x</w:t></w:r></w:p></w:tc>' * number}</w:tr>",
    }[kind]
    rows = row(3_000) + row(1) * 3_000
    text, _ = read(f"a.{kind}", f"<table>{rows}</table>" if kind == "html" else word(f"<w:tbl>{rows}</w:tbl>"))
    assert text.count("x") == 6_000
    assert len(text) < 100_000


def test_a_header_that_is_made_long_is_left_as_it_is_written(read):
    many, mail = "a@b.c," * 50_000, "Subject: x\nContent-Type: text/plain; {}\n\nfine"
    for header in ("To", "Cc", "From", "Subject"):
        found, about = read("a.eml", f"Date: Mon, 1 Jan 2024 10:00:00 +0000\n{header}: {many}\n\nfine")
        assert (found[header.lower()], found["text"]) == (many, "fine")
        assert "1 header too long to be decoded, left as written" in about
    for parameters in ("a*0*=x;" * 20_000, "c=" + '"' * 60_000):
        assert read("a.eml", mail.format(parameters))[0]["text"] == "fine"


@pytest.mark.parametrize("name", ["punycode", "idna", "unicode_escape", "hex", "undefined"])
def test_a_codec_that_is_no_encoding_of_a_text_is_not_used(read, name):
    text = "a" * 200_000 + "-" + "b" * 200_000 + "\\ud800"
    assert text in read("a.html", f'<meta charset="{name}"><p>{text}')[0]
    assert read("a.eml", f"Subject: x\nContent-Type: text/plain; charset={name}\n\n{text}")[0]["text"] == text


def test_attachments_of_a_mail_have_one_allowance(read, monkeypatch):
    monkeypatch.setattr(parsed, "FREE_BYTES", 1 << 20)
    message = mail(1, b"text", "a.txt")
    for number in range(8):
        data = gzip.compress(bytes(1 << 19).replace(b"\0", b"x"))
        message.add_attachment(data, maintype="application", subtype="gzip", filename=f"{number}.txt.gz")
    found, about = read("a.eml", message.as_bytes())
    assert sum(one["content"] is not None for one in found["attachments"]) < 6
    assert "left out:" in about


def test_the_first_line_of_a_text_is_looked_at_once(read):
    line = "From a" + "00:00" * 1_600
    assert read("a.txt", line)[0] == line
    assert read("b.txt", "From a@b Mon Jan  1 10:00:00 2024\nSubject: x\n\nfine")[0][0]["subject"] == "x"


def test_many_columns_of_one_name_are_named_at_once(read):
    value, _ = read("a.csv", ",".join("c" for _ in range(20_000)) + "\n1\n")
    assert list(value[0])[::19_999] == ["c", "c_20000"]


def test_nothing_that_a_database_says_is_computed(read, tmp_path):
    path = tmp_path / "made.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE a (x, y GENERATED ALWAYS AS (hex(zeroblob(x))), z AS (x + 1) STORED)")
        connection.execute("INSERT INTO a (x) VALUES (400000000)")
        connection.execute("CREATE VIRTUAL TABLE b USING fts5(t)")
        connection.execute("PRAGMA writable_schema = ON")
        hidden = "CREATE /* */ VIRTUAL TABLE b USING fts5(t)"
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'b'", (hidden,))
    connection.close()
    value, about = read("a.db", path.read_bytes())
    assert value["a"] == [{"x": 400000000, "z": 400000001}]
    assert "b" not in value
    assert 'left out: 1 computed column of "a" ("y")' in about


def endless_pdf() -> bytes:
    """A page that draws a form, which draws another one ten times, and so on: ten to the twelfth words."""
    form = b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F1 3 0 R>>/XObject<</F %d 0 R>>>>"
    drawn = b"BT /F1 12 Tf (x) Tj ET " + b"/F Do " * 10
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<</XObject<</F 6 0 R>>>>/Contents 5 0 R>>",
        b"<</Length 60>>stream\n" + b"/F Do " * 10 + b"\nendstream",
        *(form % (n + 1) + b"/Length %d>>stream\n%s\nendstream" % (len(drawn), drawn) for n in range(6, 18)),
    ]
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
    return b"%PDF-1.4\n" + body + b"trailer<</Size 18/Root 1 0 R>>\n%%EOF\n"


def test_a_page_without_an_end_ends_with_the_time_of_the_run(store, tmp_path):
    (tmp_path / "a.pdf").write_bytes(endless_pdf())
    with pytest.raises(InputError, match="not read to its end in the time of the run"):
        store.reference(tmp_path / "a.pdf", seconds=1.0)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_parts_that_are_empty_take_their_time_too(pack, store):
    kind = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    looks, data = list[int](), pack(b"") * 20_000 + pack(b"text")
    file = SourceFile.of_bytes(
        data, f"a.{kind}", parsed.Reading(Images(store.images), check=lambda: looks.append(1))
    )
    assert table.parsed_of(file).whole() == "text"
    assert len(looks) > file.size // BLOCK_BYTES + 10


@pytest.mark.parametrize("held", ["zip", "tar.gz", "eml"])
def test_values_in_an_archive_are_together_no_larger_than_one_may_be(read, monkeypatch, held):
    monkeypatch.setattr(parsed, "MAX_VALUE_BYTES", 1 << 20)
    rows = b"a,b\n" + b"1,2\n" * 9_000
    several = {f"{n}.csv": rows for n in range(9)}
    message = mail(1, rows, "0.csv")
    for name, data in several.items():
        message.add_attachment(data, maintype="text", subtype="csv", filename=name)
    data = {"zip": lambda: zipped(several), "tar.gz": lambda: tarred(several, "w:gz"), "eml": message.as_bytes}[
        held
    ]()
    if held == "eml":
        assert "so it is read as text" in read("a.eml", data)[1]
    else:
        with pytest.raises(InputError, match="MB as a value"):
            read(f"a.{held}", data)
    with pytest.raises(InputError, match="MB as a value"):
        read("b.zip", zipped({"a.csv": b"a,b\n" + b"1,2\n" * 99_000}))


def test_members_of_one_name_are_numbered_at_once(read):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for _ in range(9_000):
            archive.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(InputError):
        read("a.zip", b"PK\3\4")
    value, _ = read("a.tar", data.getvalue())
    assert [*value][::8_999] == ["a.txt", "a.txt (9000)"]


def test_a_pdf_that_is_cut_is_repaired_and_that_is_said(read):
    data = pdf(PAGES)
    pages, about = read("a.pdf", data[: len(data) * 2 // 3])
    assert [page["text"] for page in pages[:2]] == PAGES[:2]
    assert "repaired: the PDF is damaged, and pages may be missing" in about
    assert read("b.pdf", encrypted(data, ""))[0][4] == {"page": 5, "text": PAGES[4]}  # to be opened by anyone


def test_an_archive_that_is_cut_gives_what_came_before(read):
    data = tarred({f"{n}.txt": os.urandom(5_000).hex().encode() for n in range(9)})
    for name, cut in (("a.tar", data[:45_000]), ("a.tar.gz", gzip.compress(data)[:25_000])):
        files, about = read(name, cut)
        assert next(iter(files)) == "0.txt"
        assert 1 <= len(files) < 9
        assert "is cut, and nothing is read after" in about


def test_a_workbook_that_claims_a_billion_rows_is_read_as_it_is(read):
    assert len(read("a.xlsx", xlsx({"Orders": TABLE}, "A1:XFD1048576"))[0]["Orders"]) == len(TABLE) - 1


def test_changes_that_are_only_in_the_log_of_a_database_are_told(store, tmp_path):
    path = tmp_path / "live.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("CREATE TABLE a (x)")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.execute("INSERT INTO a VALUES (1)")
    before = sorted(tmp_path.glob("live.db*"))
    ref = store.reference(path)
    assert store.load(ref) == {"a": []}
    assert 'bytes of changes in "live.db-wal"' in ref["about"]
    assert sorted(tmp_path.glob("live.db*")) == before
    writer.close()


def test_values_that_json_cannot_hold_are_replaced_and_counted(tmp_path, store):
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE a (x)")
        connection.executemany("INSERT INTO a VALUES (?)", [(b"\xff\x00",), (float("inf"),), ("text",)])
    connection.close()
    ref = store.reference(path)
    assert [row["x"] for row in store.load(ref)["a"]] == ["ff00", None, "text"]
    assert "1 binary value by hexadecimal text; replaced: 1 NaN or Infinity by None" in ref["about"]


def test_a_table_that_is_too_long_stays_a_text_in_place_and_takes_no_memory(store, tmp_path, monkeypatch):
    monkeypatch.setattr(parsed, "MAX_VALUE_BYTES", 1 << 20)
    path = tmp_path / "long.csv"
    path.write_text("id,name\n" + "".join(f"{n},name of {n}\n" for n in range(200_000)))
    tracemalloc.start()
    ref = store.reference(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ref["path"] == str(path)
    assert "as a value, so it is read as text" in ref["about"]
    assert peak < 16 << 20
    monkeypatch.setattr(databases, "MAX_VALUE_BYTES", 10)
    with pytest.raises(InputError, match=r"rows: select what you need of it: `sqlite3"):
        store.reference(_database(tmp_path))


def _database(tmp_path: Path) -> Path:
    database(tmp_path / "shop.db")
    return tmp_path / "shop.db"


def test_without_the_extra_the_error_says_what_to_install(read, store, tmp_path, monkeypatch):
    for module in ("pypdfium2", "pyarrow", "pyarrow.parquet", "pyarrow.ipc", "pyarrow.feather"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(MissingDependency, match=r'pypdfium2, .* pip install "rlm-langchain\[documents\]"'):
        read("a.pdf", pdf(PAGES))
    with pytest.raises(MissingDependency, match=r'pyarrow, .* pip install "rlm-langchain\[tables\]"'):
        read("a.parquet", b"PAR1\0")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.pdf").write_bytes(pdf(PAGES))
    (tmp_path / "folder" / "b.txt").write_text("text")
    assert '"a.pdf" (needs "rlm-langchain[documents]")' in store.reference(tmp_path / "folder")["about"]


def test_a_folder_with_files_of_all_sorts_names_what_it_leaves_out(store, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "lease.pdf").write_bytes(pdf(PAGES))
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4")
    (folder / "orders.csv").write_text("a,b\n1,2\n3\n")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    ref = store.reference(folder)
    value = store.load(ref)
    assert [value["a.txt"], value["lease.pdf"][1]["page"], value["orders.csv"][0]] == [
        "text",
        2,
        {"a": "1", "b": "2"},
    ]
    assert "1 text, 1 PDF, 1 CSV table" in ref["about"]
    assert '"orders.csv": 1 ragged row' in ref["about"]
    for said in ('"bad.pdf" (damaged PDF)', '"loop" (link)', '"pipe" (special)', "1 damaged PDF"):
        assert said in ref["about"]
    for odd in ("loop", "pipe"):
        with pytest.raises(InputError, match=r'"(loop|pipe)" would be left out'):
            store.reference(folder, strict=True)
        (folder / odd).unlink()
    with pytest.raises(InputError, match=r"bad\.pdf is a damaged PDF"):
        store.reference(folder, strict=True)


def test_names_that_are_not_utf8_are_keys_all_the_same(store, tmp_path):
    data = tarred({"caf\udce9.txt": b"x", "../up.txt": b"y", "/root.txt": b"z"})
    (tmp_path / "a.tar").write_bytes(data)
    value = store.load(store.reference(tmp_path / "a.tar"))
    assert {len(key) for key in value} == {8} or list(value.values()) == ["x", "z"]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pdf"))
    odd.write_bytes(pdf(PAGES))
    assert store.load(store.reference(odd))[0]["page"] == 1


def test_every_reader_of_the_table_is_there():
    for one in table.FORMATS.values():
        module = __import__(f"rlm_langchain.context.formats.{one.module}", fromlist=["x"])
        assert callable(getattr(module, one.function))


def test_paths_in_a_list_or_a_dict_are_read_and_keep_their_names(store, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.txt").write_text("more")
    a, b, folder = tmp_path / "a.txt", tmp_path / "b.csv", tmp_path / "folder"
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": None}]
    ref = store.reference([a, b, folder, a])
    assert store.load(ref) == {str(a): "text", str(b): rows, f"{folder}/c.txt": "more"}
    assert "names" not in ref
    assert ref["notes"][0].startswith(f'"{b}": 1 ragged row'[:60])
    ref = store.reference({"first": a, "my table": b, "folder": folder})
    assert store.load(ref) == {"first": "text", "my table": rows, "folder": {"c.txt": "more"}}
    assert ref["names"] == ["first", "folder"]
    assert store.reference(dict(ref)) == ref
    for wrong, message in (
        ({"print": a}, "cannot be called print"),
        ([a, "text"], "a list of paths with a str in it"),
        ({1: a}, "has the key 1: make its keys str"),
    ):
        with pytest.raises(InputError, match=message):
            store.reference(wrong)
    with pytest.raises(InputError, match="ragged"):
        store.reference({"b": b}, strict=True)


def test_data_frames_are_lists_of_rows(store):
    import polars

    rows = [{"id": 1, "when": "2026-06-01", "size": 1.5}, {"id": 2, "when": "2026-06-02", "size": None}]
    frame = polars.DataFrame(rows).with_columns(polars.col("when").str.to_date())
    ref = store.reference(frame)
    assert store.load(ref) == rows
    assert ref["about"].startswith("list of 2 rows of a DataFrame")
    assert 'dicts with the keys "id", "when", "size"' in ref["about"]


def test_a_loader_is_read_document_by_document_and_its_error_is_told(store):
    from langchain_core.document_loaders import BaseLoader
    from langchain_core.documents import Document

    class Loader(BaseLoader):
        def __init__(self, number):
            self.number = number

        def lazy_load(self):
            for page in range(self.number):
                yield Document(f"text {page}", metadata={"page": page})
            if self.number > 5:
                raise OSError("the disk is gone")

    ref = store.reference(Loader(3))
    assert store.load(ref)[2] == {"page_content": "text 2", "metadata": {"page": 2}}
    assert ref["about"].startswith("list of 3 documents of Loader")
    assert store.reference(Loader(0)) is None
    with pytest.raises(InputError, match="Loader could not load its documents: it raised OSError"):
        store.reference(Loader(9))


def test_one_endless_line_stays_a_text(store, tmp_path, monkeypatch):
    monkeypatch.setattr(parsed, "MAX_VALUE_BYTES", 1 << 20)
    path = tmp_path / "line.csv"
    path.write_text("a,b\n" + "x" * (3 << 20))
    ref = store.reference(path)
    assert ref["path"] == str(path)
    assert "so it is read as text" in ref["about"]


def test_files_of_the_command_that_have_a_name_are_variables(tmp_path):
    from rlm_langchain.cli.commands import inputs

    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "x=1.txt").write_text("text")
    names = [f"rows={tmp_path / 'a.csv'}", str(tmp_path / "x=1.txt")]
    inputs.check("How many?", names)
    ref = inputs.context(names, strict=False)
    assert ref["names"] == ["rows"]
    assert ContextStore().load(ref) == {"rows": [{"a": "1", "b": "2"}], names[1]: "text"}
