"""Pictures of contexts: a handle in the REPL, the bytes in the host, and what is sent of them."""

from __future__ import annotations

import io
import os
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from PIL import Image

from rlm_langchain.context import images
from rlm_langchain.context.formats.scaled import MAX_PNG_BYTES, scaled
from rlm_langchain.context.images import MAX_EDGE, kind_and_size
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError
from rlm_langchain.runnable.garbage import Reachable, collect
from tests.kinds import picture, zipped

FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "GIF": "GIF", "WebP": "WEBP", "BMP": "BMP"}


def scan(*colours: str) -> bytes:
    """A PDF whose pages are pictures."""
    saved = io.BytesIO()
    first, *others = (Image.new("RGB", (300, 600), colour) for colour in colours)
    first.save(saved, format="PDF", save_all=True, append_images=others)
    return saved.getvalue()


def opened(data: bytes, page: int | None = None) -> Image.Image:
    return Image.open(io.BytesIO(scaled(data, page).data))


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(tmp_path / "home")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_a_handle_alone_in_a_folder_an_archive_and_a_mail(kind, store, tmp_path):
    data = picture(FORMATS[kind])
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(data)
    (folder / "t.txt").write_text("text")
    mail = EmailMessage()
    mail["Subject"] = "see"
    mail.set_content("attached")
    mail.add_attachment(data, maintype="image", subtype="x", filename="a.png")
    for name, content in (("a.zip", zipped({"a.png": data})), ("a.eml", mail.as_bytes())):
        (tmp_path / name).write_bytes(content)
    expected = {"format": kind, "width": 60, "height": 40, "name": "a.png"}
    ways = {
        folder / "a.png": lambda value: value,
        folder: lambda value: value["a.png"],
        tmp_path / "a.zip": lambda value: value["a.png"],
        tmp_path / "a.eml": lambda value: value["attachments"][0]["content"],
    }
    for path, find in ways.items():
        ref = store.reference(path, strict=True)
        handle = find(store.load(ref))
        assert handle == {"image": handle["image"], **expected}
        assert store.images.read(handle["image"]) == data
        assert ref["images"] == 1
        assert store.reference(dict(ref)) == ref
    assert f"1 text, 1 {kind} image" in store.reference(folder)["about"]
    named = store.reference({"first": folder / "a.png", "files": folder})
    assert (named["images"], named["names"]) == (2, ["first", "files"])
    assert store.load(store.reference(data)) == {"image": handle["image"], **expected, "name": ""}
    (tmp_path / "same.png").write_bytes(data)
    assert store.load(store.reference(tmp_path / "same.png"))["name"] == "same.png"
    assert "60 x 40 pixels" in store.reference(folder / "a.png")["about"]
    assert "images" not in store.reference(folder / "t.txt")


def test_the_size_of_a_jpeg_is_found_after_long_segments(store, tmp_path):
    data = picture("JPEG", exif=b"Exif\0\0" + bytes(60_000), comment=b"x" * 60_000)
    assert kind_and_size(io.BytesIO(data)) == ("JPEG", (60, 40))
    assert kind_and_size(io.BytesIO(b"\xff\xd8" + b"\xff" * 100_000)) == ("JPEG", (0, 0))


def test_a_picture_is_scaled_down_to_the_limit_and_loses_what_the_camera_wrote():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # turned by a quarter
    for data in (picture("JPEG", (3_000, 1_000), exif=exif), picture("PNG", (3_000, 1_000), exif=exif)):
        sent = opened(data)
        assert sent.size == (round(MAX_EDGE / 3), MAX_EDGE)
        assert not sent.getexif()
    assert opened(picture("PNG")).size == (60, 40)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (picture("PNG", mode="RGBA"), (255, 255, 255)),  # transparent
        (picture("PNG", mode="P", transparency=0), (255, 255, 255)),
        (picture("PNG", mode="LA"), (255, 255, 255)),
        (picture("PNG", mode="1"), (0, 0, 0)),
        (picture("GIF", mode="P", save_all=True, append_images=[Image.new("P", (60, 40), 3)]), (0, 0, 0)),
        (picture("JPEG", mode="CMYK"), (255, 255, 255)),
        (picture("JPEG", mode="L"), (0, 0, 0)),
    ],
)
def test_every_mode_is_sent_in_colours_that_any_model_reads(data, colour):
    sent = opened(data)
    assert (sent.mode, sent.getpixel((0, 0))) == ("RGB", colour)


def test_sixteen_bits_are_scaled_to_eight():
    saved = io.BytesIO()
    Image.new("I;16", (4, 4), 0x8000).save(saved, format="PNG")
    assert opened(saved.getvalue()).getpixel((0, 0)) == (128, 128, 128)


def test_a_large_png_is_sent_as_jpeg_and_a_sharp_one_as_png():
    saved = io.BytesIO()
    Image.effect_noise((1_200, 1_200), 100).convert("RGB").save(saved, format="PNG", compress_level=0)
    noise = scaled(saved.getvalue())
    assert (noise.mime_type, len(noise.data) < 2 * MAX_PNG_BYTES) == ("image/jpeg", True)
    assert scaled(picture("BMP")).mime_type == "image/png"


def test_bombs_and_damaged_pictures_are_refused_before_they_are_unpacked(store, tmp_path, monkeypatch):
    bomb = picture("PNG", (9_000, 9_000), mode="1")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(InputError, match=r"has more than 51 million pixels: make it smaller first, .*magick"):
        store.reference(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="more than 51,000,000 pixels"):
        scaled(bomb)
    many = picture("JPEG").replace(b"\xff\xda", b"\xff\xda" * 101)
    with pytest.raises(ValueError, match="a JPEG of more than 100 scans"):
        scaled(many)
    whole = picture("PNG", (40, 30))
    hidden = whole[:16] + b"\0\0\xff\xff\0\0\xff\xff" + whole[24:]
    for data in (whole[:-30], hidden, b"", b"\x89PNG\r\n\x1a\n" + bytes(50)):
        with pytest.raises(ValueError, match=r"it is damaged|more than"):
            scaled(data)
    monkeypatch.setattr(images, "MAX_CONTEXT_BYTES", len(whole) + 10)
    (tmp_path / "many").mkdir()
    for number in range(3):
        (tmp_path / "many" / f"{number}.png").write_bytes(picture("PNG", (40, 30 + number)))
    ref = store.reference(tmp_path / "many")
    assert ref["images"] == 1
    assert (
        'left out: 2 PNG image that is more than a context may hold of pictures ("1.png", "2.png")' in ref["notes"]
    )


def test_an_id_cannot_be_made_up_and_a_damaged_picture_is_stored_again(store, tmp_path):
    data = picture("PNG")
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.png": data}))
    image = store.load(store.reference(path))["a.png"]["image"]
    other = ContextStore(tmp_path / "other home")
    assert other.images.put(data) != image
    for wrong in (other.images.put(data), "0" * 32, "../" * 10 + "ab", image.upper(), image[:-1], ""):
        assert store.images.read(wrong) is None
    kept = store.root / "images" / image[:2] / image
    kept.write_bytes(b"changed")
    assert store.images.read(image) is None
    store.reference(path)
    assert store.images.read(image) == data


def test_pages_without_text_are_offered_as_pictures_that_are_drawn_when_asked_for(store, tmp_path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(scan("red", "blue"))
    ref = store.reference(path)
    pages = store.load(ref)
    assert [page["text"] for page in pages] == ["", ""]
    handle = pages[1]["image"]
    assert {**handle, "image": ""} == {
        "image": "",
        "format": "PDF page",
        "width": MAX_EDGE // 2,
        "height": MAX_EDGE,
        "name": "scan.pdf page 2",
        "page": 2,
    }
    assert ref["images"] == 2
    assert 'the text of 2 pages that may be scanned: 1, 2; each has an "image"' in ref["notes"][0]
    data = store.images.read(handle["image"])
    for page, colour in ((1, (255, 0, 0)), (2, (0, 0, 255))):
        sent = opened(data, page)
        assert sent.size == (MAX_EDGE // 2, MAX_EDGE)
        assert sent.getpixel((9, 9)) == pytest.approx(colour, abs=3)
    for page in (0, 3, -1, 10**30):
        with pytest.raises(ValueError, match=f"the PDF has no page {page}, or it is damaged"):
            scaled(data, page)
    for handle in ((data, None), (picture("PNG"), 1)):
        with pytest.raises(ValueError, match="only the handle of a page of a PDF has a page: pass it unchanged"):
            scaled(*handle)
    with pytest.raises(InputError, match="strict"):
        store.reference(path, strict=True)


def test_a_picture_is_kept_as_long_as_a_context_has_its_handle(store, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture("PNG", (9, ord(name[0]))))
    kept, gone = (store.reference(tmp_path / name) for name in ("a.png", "b.png"))
    ids = [store.load(ref)["image"] for ref in (kept, gone)]
    from_code = store.reference_from_repl(["x" * (1 << 20), {"image": ids[0]}])
    (store.root / "images" / "unfinished-x").write_bytes(b"half")
    for path in store.root.rglob("*"):
        os.utime(path, (time.time() - 1e8,) * 2)
    needed = Reachable(frozenset([from_code["sha256"]]))
    would = collect(store.root, needed, older_than=1, dry_run=True)
    freed = collect(store.root, needed, older_than=1)
    assert (freed.contexts, freed.images) == (would.contexts, would.images) == (2, 1)
    assert [store.images.read(image) is not None for image in ids] == [True, False]
    assert not list((store.root / "images").glob("unfinished-*"))
    assert collect(store.root, Reachable(), older_than=1).images == 0  # it was used just now
