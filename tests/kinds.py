"""Small files of all kinds, made by libraries or by hand, each with a question that code answers."""
# ruff: noqa: E501 - the files are written as they are

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

ROWS = [
    {
        "id": n,
        "name": f"Ünal {n}" if n % 3 else f'O"Hara, {n}',
        "status": "refund" if n % 4 == 0 else "paid",
        "amount": n * 1.5,
    }
    for n in range(1, 41)
]
"""What all tables hold."""
REFUNDS = sum(row["status"] == "refund" for row in ROWS)
TOTAL = sum(float(str(row["amount"])) for row in ROWS)
PAGES = [f"Page {n} of the lease.\nThe rent is {n * 100} euros." for n in range(1, 6)]
PARAGRAPHS = ["The tenant pays the rent.", "The landlord repairs the roof.", "Either may give notice."]
WHERE = "sum(row['status'] == 'refund' for row in {})"


class Kind(NamedTuple):
    """A kind of context: a file, and a question with its answer."""

    name: str
    """What the table in the manual calls it."""
    file: str
    make: Callable[[Path], object]
    """Writes the file."""
    code: str
    """An expression of `it`, what the file became."""
    answer: Any
    note: str = ""
    """Words that the description must have."""


def delimited(delimiter: str, end: str = "\r\n") -> str:
    """The rows as a table, quoted where it must be."""

    def cell(value: object) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if delimiter in text or '"' in text else text

    return "".join(
        delimiter.join(map(cell, row)) + end for row in (ROWS[0].keys(), *(row.values() for row in ROWS))
    )


def zipped(members: dict[str, str | bytes], *, stored: str = "") -> bytes:
    """A ZIP file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == stored else None)
    return data.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            found = tarfile.TarInfo(name)
            found.size = len(content)
            archive.addfile(found, io.BytesIO(content))
    return data.getvalue()


def pdf(pages: list[str]) -> bytes:
    """A PDF with a page for each text."""
    numbers = [4 + 2 * n for n in range(len(pages))]
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{n} 0 R' for n in numbers)}]>>".encode(),
        3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    }
    for number, text in zip(numbers, pages, strict=True):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n"))
        stream = zlib.compress(f"BT /F1 12 Tf 72 700 Td {lines}ET".encode())
        objects[number] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents {number + 1} 0 R>>"
        ).encode()
        objects[number + 1] = b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(stream), stream)
    data, places = b"%PDF-1.4\n", {}
    for number in sorted(objects):
        places[number] = len(data)
        data += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    table = b"".join(b"%010d 00000 n \n" % places[number] for number in sorted(objects))
    last = b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
    return data + last % (len(objects) + 1, table, len(objects) + 1, len(data))


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx() -> bytes:
    """A Word document: a heading in a translated Word, paragraphs, a table and a footnote."""
    cells = "".join(
        f"<w:tr>{''.join(f'<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>' for cell in row)}</w:tr>"
        for row in [("Item", "Price"), ("Rent", "900"), ("Heating", "120")]
    )
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in PARAGRAPHS)
    heading = '<w:p><w:pPr><w:pStyle w:val="berschrift1"/></w:pPr><w:r><w:t>Lease</w:t></w:r></w:p>'
    noted = '<w:p><w:r><w:t>Paid monthly</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<w:document {W}><w:body>{heading}{body}{noted}<w:tbl>{cells}</w:tbl></w:body></w:document>",
            "word/styles.xml": f'<w:styles {W}><w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style></w:styles>',
            "word/footnotes.xml": f'<w:footnotes {W}><w:footnote w:id="0" w:type="separator"/><w:footnote w:id="2">'
            "<w:p><w:r><w:t>On the first day.</w:t></w:r></w:p></w:footnote></w:footnotes>",
        }
    )


def pptx() -> bytes:
    """A presentation of two slides, whose files are in another order; the second has a table and notes."""
    a, p = (
        "http://schemas.openxmlformats.org/drawingml/2006/main",
        "http://schemas.openxmlformats.org/presentationml/2006/main",
    )
    r = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    names = f'xmlns:a="{a}" xmlns:p="{p}" xmlns:r="{r}"'
    rels = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    rel = '<Relationship Id="{}" Type="' + r + '/{}" Target="{}"/>'

    def text(words: str, kind: str = "body") -> str:
        holder = f'<p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
        return f"<p:sp>{holder}<p:txBody><a:p><a:r><a:t>{words}</a:t></a:r></a:p></p:txBody></p:sp>"

    def slide(shapes: str, kind: str = "sld") -> str:
        return f"<p:{kind} {names}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:{kind}>"

    cells = "".join(f"<a:tc><a:txBody><a:p><a:r><a:t>{n}</a:t></a:r></a:p></a:txBody></a:tc>" for n in ("Q1", "42"))
    table = f"<p:graphicFrame><a:graphic><a:graphicData><a:tbl><a:tr>{cells}</a:tr></a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "ppt/presentation.xml": f'<p:presentation {names}><p:sldIdLst><p:sldId r:id="b"/><p:sldId r:id="a"/></p:sldIdLst></p:presentation>',
            "ppt/_rels/presentation.xml.rels": rels.format(
                rel.format("a", "slide", "slides/slide1.xml") + rel.format("b", "slide", "slides/slide2.xml")
            ),
            "ppt/slides/slide1.xml": slide(text("Figures", "title") + table),
            "ppt/slides/_rels/slide1.xml.rels": rels.format(
                rel.format("n", "notesSlide", "../notesSlides/notes1.xml")
            ),
            "ppt/notesSlides/notes1.xml": slide(text("Say it slowly"), "notes"),
            "ppt/slides/slide2.xml": slide(text("Welcome", "ctrTitle") + text("All of you")),
        }
    )


def xlsx(sheets: dict[str, list[list[Any]]], dimension: str = "") -> bytes:
    """A workbook with the cells as they are written by hand."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    r = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kind = "http://schemas.openxmlformats.org/package/2006/relationships"

    def cell(value: Any, at: str) -> str:
        if isinstance(value, str):
            words = value.replace("&", "&amp;").replace("<", "&lt;")
            return f'<c r="{at}" t="inlineStr"><is><t>{words}</t></is></c>'
        if isinstance(value, bool):
            return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'
        return "" if value is None else f'<c r="{at}"><v>{value}</v></c>'

    members: dict[str, str | bytes] = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{kind}"><Relationship Id="r" Type="{r}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{r}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, name in enumerate(sheets, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{kind}">'
        + "".join(
            f'<Relationship Id="s{n}" Type="{r}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for number, rows in enumerate(sheets.values(), 1):
        lines = "".join(
            f'<row r="{n}">{"".join(cell(value, f"{chr(65 + at)}{n}") for at, value in enumerate(row))}</row>'
            for n, row in enumerate(rows, 1)
        )
        claimed = f'<dimension ref="{dimension}"/>' if dimension else ""
        members[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{main}">{claimed}<sheetData>{lines}</sheetData></worksheet>'
        )
    return zipped(members)


TABLE = [[*ROWS[0]], *([*row.values()] for row in ROWS)]
ODF = " ".join(
    f'xmlns:{key}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for key, name in {
        "office": "office",
        "text": "text",
        "table": "table",
        "draw": "drawing",
        "presentation": "presentation",
    }.items()
)


def odf(kind: str, body: str) -> bytes:
    """An OpenDocument file."""
    root = {"text": "text", "spreadsheet": "spreadsheet", "presentation": "presentation"}[kind]
    content = f"<office:document-content {ODF}><office:body><office:{root}>{body}</office:{root}></office:body></office:document-content>"
    mimetype = f"application/vnd.oasis.opendocument.{kind}"
    manifest = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    return zipped(
        {"mimetype": mimetype, "content.xml": content, "META-INF/manifest.xml": manifest}, stored="mimetype"
    )


def ods() -> bytes:
    """A spreadsheet of LibreOffice."""

    def cell(value: object) -> str:
        if isinstance(value, str):
            return f'<table:table-cell office:value-type="string"><text:p>{value}</text:p></table:table-cell>'
        return f'<table:table-cell office:value-type="float" office:value="{value}"/>'

    rows = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in TABLE)
    return odf("spreadsheet", f'<table:table table:name="Orders">{rows}</table:table>')


def odt() -> bytes:
    """A text of LibreOffice."""
    body = "".join(f"<text:p>{text}</text:p>" for text in PARAGRAPHS)
    note = "<text:p>Paid<text:note><text:note-body><text:p>monthly</text:p></text:note-body></text:note></text:p>"
    return odf("text", f'<text:h text:outline-level="2">Lease</text:h>{body}{note}')


def odp() -> bytes:
    """A presentation of LibreOffice."""
    pages = "".join(
        f'<draw:page><draw:frame presentation:class="title"><draw:text-box><text:p>{title}</text:p></draw:text-box></draw:frame></draw:page>'
        for title in ("One", "Two", "Three")
    )
    return odf("presentation", pages)


def xls(path: Path) -> None:
    """A workbook of Excel 97."""
    import xlwt

    book = xlwt.Workbook()
    sheet = book.add_sheet("Orders")
    for at, row in enumerate(TABLE):
        for column, value in enumerate(row):
            sheet.write(at, column, value)
    book.save(str(path))


HTML = (
    "<html><head><title>Lease</title><script>var no = 1;</script></head><body><h1>Rent</h1><p>All <b>three</b> rooms.</p>"
    "<ul><li>one</li><li>two</li></ul><table><tr><th>Room</th><th>Size</th></tr><tr><td>Bath</td><td>6</td></tr></table></body></html>"
)


def epub() -> bytes:
    """A book of three chapters."""
    chapters = {
        f"OEBPS/c{n}.xhtml": f"<html><body><h1>Chapter {n}</h1><p>{'word ' * n}</p></body></html>"
        for n in (1, 2, 3)
    }
    items = "".join(f'<item id="c{n}" href="c{n}.xhtml"/>' for n in (3, 2, 1))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in (1, 2, 3))
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    members: dict[str, str | bytes] = {"mimetype": "application/epub+zip", "META-INF/container.xml": container}
    return zipped({**members, "OEBPS/book.opf": package, **chapters}, stored="mimetype")


def mail(number: int, attachment: bytes = b"", name: str = "lease.pdf") -> EmailMessage:
    """A mail with an encoded subject, and an attachment if there is one."""
    message = EmailMessage()
    message["From"] = "Jürgen <j@example.org>"
    message["To"] = "ann@example.org"
    message["Date"] = f"Mon, {number:02} Jun 2026 10:00:00 +0200"
    message["Subject"] = f"Grüße aus Köln, die {number}."
    message.set_content(f"Dear Ann,\nthis is mail {number}. Schöne Grüße\n")
    if attachment:
        message.add_attachment(attachment, maintype="application", subtype="octet-stream", filename=name)
    return message


def mbox(numbers: range) -> bytes:
    """A mailbox."""
    mails = [b"From j@example.org Mon Jun  1 10:00:00 2026\n" + mail(n).as_bytes() + b"\n" for n in numbers]
    return b"".join(mails)


def notebook() -> str:
    """A notebook with an output and a picture."""
    outputs = [
        {"output_type": "stream", "text": ["42\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "<Figure>"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "print(42)", "outputs": outputs},
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "metadata": {}})


def database(path: Path) -> None:
    """A database of two tables and a view."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER, name TEXT, status TEXT, amount REAL)")
    connection.executemany("INSERT INTO orders VALUES (:id, :name, :status, :amount)", ROWS)
    connection.execute("CREATE TABLE empty (x)")
    connection.execute("CREATE VIEW paid AS SELECT * FROM orders")
    connection.commit()
    connection.close()


def arrow(writer: Callable[[Any, Path], object]) -> Callable[[Path], object]:
    """A function that writes the rows as an Arrow table."""

    def write(path: Path) -> None:
        import pyarrow

        writer(pyarrow.Table.from_pylist(ROWS), path)

    return write


def _parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path)


def _feather(table: Any, path: Path) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(table, path)


def _arrow(table: Any, path: Path) -> None:
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def zst(data: bytes) -> bytes:
    """The bytes, compressed by Zstandard."""
    import zstandard

    found: bytes = zstandard.ZstdCompressor().compress(data)
    return found


CHAT = (
    "".join(
        f"[{day:02}.06.26, 21:15:{day:02}] {sender}: message {day}\n"
        for day, sender in [(13, "Ann"), (14, "Ben"), (15, "Ann"), (16, "Ann")]
    )
    + "and a second line\n"
)


def picture(form: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: Any) -> bytes:
    """A black picture in a format of Pillow; `PDF` is a scanned page."""
    from PIL import Image

    saved = io.BytesIO()
    Image.new(mode, size).save(saved, format=form, **options)
    return saved.getvalue()


def data(content: str | bytes, encoding: str = "utf-8") -> Callable[[Path], object]:
    """A function that writes these bytes."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))


def made(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """A function that writes the bytes that another makes."""
    return lambda path: path.write_bytes(content())


TEXT = "\n".join(PARAGRAPHS)
MEMBERS: dict[str, str | bytes] = {"docs/a.txt": TEXT, "orders.csv": delimited(","), "lease.pdf": pdf(PAGES)}
IN_ARCHIVE = (
    "[len(it['docs/a.txt']), sum(row['status'] == 'refund' for row in it['orders.csv']), len(it['lease.pdf'])]"
)
HELD = [len(TEXT), REFUNDS, len(PAGES)]

KINDS = (
    Kind("text", "notes.txt", data(TEXT), "it.count('The ')", TEXT.count("The ")),
    Kind("Markdown or source", "notes.md", data("# A\n\nb\n"), "it.splitlines()[0]", "# A"),
    Kind("UTF-16 text with a mark", "wide.txt", data("Grüße", "utf-16"), "it", "Grüße"),
    Kind("CSV", "orders.csv", data(delimited(",")), WHERE.format("it"), REFUNDS, 'keys: "id", "name"'),
    Kind("CSV with semicolons", "semi.csv", data(delimited(";")), WHERE.format("it"), REFUNDS, 'separated by ";"'),
    Kind("TSV", "orders.tsv", data(delimited("\t", "\n")), "it[2]['name']", ROWS[2]["name"]),
    Kind("JSON", "orders.json", data(json.dumps(ROWS)), WHERE.format("it"), REFUNDS, "keys of the first"),
    Kind(
        "JSON Lines",
        "orders.jsonl",
        data("\n".join(map(json.dumps, ROWS))),
        "sum(row['amount'] for row in it)",
        TOTAL,
    ),
    Kind(
        "notebook", "work.ipynb", data(notebook()), "it[1]['output'].splitlines()[0]", "42", "left out: 1 image/png"
    ),
    Kind("Parquet", "orders.parquet", arrow(_parquet), "sum(row['amount'] for row in it)", TOTAL, "double"),
    Kind("Feather", "orders.feather", arrow(_feather), WHERE.format("it"), REFUNDS),
    Kind("Arrow", "orders.arrow", arrow(_arrow), WHERE.format("it"), REFUNDS),
    Kind("SQLite", "shop.db", database, WHERE.format("it['orders']"), REFUNDS, "left out: 1 view"),
    Kind("PDF", "lease.pdf", data(pdf(PAGES)), "[page['page'] for page in it if '300 euros' in page['text']]", [3]),
    Kind(
        "scanned PDF", "scan.pdf", made(lambda: picture("PDF")), "it[0]['image']['page']", 1, 'each has an "image"'
    ),
    Kind(
        "picture",
        "photo.png",
        made(lambda: picture("PNG")),
        "[it['format'], it['width'], it['name']]",
        ["PNG", 60, "photo.png"],
        "60 x 40 pixels",
    ),
    Kind(
        "DOCX",
        "lease.docx",
        made(docx),
        "[it.count('\\n# Lease') + it.count('# Lease\\n'), '| Heating | 120 |' in it, 'On the first day' in it]",
        [1, True, True],
        "1 heading",
    ),
    Kind(
        "PPTX",
        "talk.pptx",
        made(pptx),
        "[(slide['title'], slide['notes']) for slide in it]",
        [["Welcome", ""], ["Figures", "Say it slowly"]],
    ),
    Kind(
        "XLSX",
        "orders.xlsx",
        data(xlsx({"Orders": TABLE, "Empty": []})),
        "sum(row['amount'] for row in it['Orders'])",
        TOTAL,
        "because it has no cells",
    ),
    Kind("XLS", "orders.xls", xls, "sum(row['amount'] for row in it['Orders'])", TOTAL),
    Kind("ODS", "orders.ods", made(ods), "sum(row['amount'] for row in it['Orders'])", TOTAL),
    Kind("ODT", "lease.odt", made(odt), "['## Lease' in it, 'monthly' in it]", [True, True]),
    Kind("ODP", "talk.odp", made(odp), "[slide['title'] for slide in it]", ["One", "Two", "Three"]),
    Kind(
        "HTML",
        "page.html",
        data(HTML),
        "['# Rent' in it, '| Bath | 6 |' in it, 'var no' in it, '- two' in it]",
        [True, True, False, True],
    ),
    Kind("EPUB", "book.epub", made(epub), "[chapter['text'].count('word') for chapter in it]", [1, 2, 3]),
    Kind(
        "RTF",
        "letter.rtf",
        data(r"{\rtf1\ansi Dear {\b Ann},\par the rent is due.\par}"),
        "'Ann' in it and 'due' in it",
        True,
    ),
    Kind(
        "e-mail",
        "grüße.eml",
        lambda path: path.write_bytes(mail(3, pdf(PAGES)).as_bytes()),
        "[it['subject'], it['date'][:10], it['attachments'][0]['content'][1]['page']]",
        ["Grüße aus Köln, die 3.", "2026-06-03", 2],
    ),
    Kind(
        "mbox",
        "mails.mbox",
        data(mbox(range(1, 6))),
        "[len(it), it[4]['subject'][-2:]]",
        [5, "5."],
        "from 2026-06-01 to 2026-06-05",
    ),
    Kind(
        "chat of WhatsApp",
        "WhatsApp Chat with Ann.txt",
        data(CHAT),
        "[sum(one['sender'] == 'Ann' for one in it), it[0]['time'], len(it[3]['text'].splitlines())]",
        [3, "2026-06-13T21:15:13", 2],
    ),
    Kind("ZIP", "all.zip", data(zipped(MEMBERS)), IN_ARCHIVE, HELD, "1 PDF"),
    Kind(
        "tar",
        "all.tar",
        data(tarred({k: v if isinstance(v, bytes) else v.encode() for k, v in MEMBERS.items()})),
        IN_ARCHIVE,
        HELD,
    ),
    Kind(
        "tar.gz",
        "all.tar.gz",
        data(gzip.compress(tarred({k: v if isinstance(v, bytes) else v.encode() for k, v in MEMBERS.items()}))),
        IN_ARCHIVE,
        HELD,
    ),
    Kind(
        "gzip of a text", "notes.txt.gz", data(gzip.compress(TEXT.encode())), "it.count('The ')", TEXT.count("The ")
    ),
    Kind(
        "gzip of a CSV", "orders.csv.gz", data(gzip.compress(delimited(",").encode())), WHERE.format("it"), REFUNDS
    ),
    Kind("bzip2", "orders.json.bz2", data(bz2.compress(json.dumps(ROWS).encode())), WHERE.format("it"), REFUNDS),
    Kind(
        "xz",
        "orders.jsonl.xz",
        data(lzma.compress("\n".join(map(json.dumps, ROWS)).encode())),
        WHERE.format("it"),
        REFUNDS,
    ),
    Kind(
        "Zstandard",
        "orders.csv.zst",
        lambda path: path.write_bytes(zst(delimited(",").encode())),
        WHERE.format("it"),
        REFUNDS,
    ),
)
"""All kinds of files, as the table in the manual has them."""
