"""Mail: a dict of headers, text and attachments; a mailbox is a list of them. Chats: a list of messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesFeedParser
from email.policy import EmailPolicy
from email.utils import parsedate_to_datetime
from typing import Any

from rlm_langchain.context.decoding import BLOCK_BYTES, charset
from rlm_langchain.context.describe import count, list_counts, list_keys, quoted
from rlm_langchain.context.formats.detect import CHAT_LINE
from rlm_langchain.context.formats.parsed import (
    AsText,
    Parsed,
    Reading,
    SourceFile,
    Text,
    Total,
    Unreadable,
    dumps,
)
from rlm_langchain.errors import RLMError

_KEYS = ("from", "to", "cc", "date", "subject", "text", "attachments")
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From .*\r?\n")
_MEDIA = re.compile(r"<([^<>]*)>")
_LEFT_OUT = re.compile("omitted|attached|ausgeschlossen|omitid|weggelaten")
_MAX_NAMED = 6
_MAX_HEADER, _MAX_CONTENT_HEADER = 20_000, 2_000
"""Most characters of a header that is decoded, for example of 500 addresses, and of one about the content. The time
that Python takes for a header grows with the square of its length."""


class _Headers(EmailPolicy):
    """Python's rules for mails, but for long headers: they are left as written, or cut if they are for programs."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Return the value of a header."""
        if name.lower().startswith("content-"):
            return super().header_fetch_parse(name, value[:_MAX_CONTENT_HEADER])
        return value if len(value) > _MAX_HEADER else super().header_fetch_parse(name, value)


_POLICY = _Headers()


def read_eml(file: SourceFile) -> Parsed | AsText:
    """Read one mail. What has no headers of a mail stays a text."""
    reader = _MailReader(file)
    value = reader.mail(file.read(kind="mail"))
    if not (value["from"] or value["subject"] or value["date"]):
        return AsText("it has no headers of a mail, so it is read as text")
    return Parsed("mail", "dict", value, "field", f"keys: {list_keys(value)}, attachments", reader.notes())


def read_mbox(file: SourceFile) -> Parsed | AsText:
    """Read a mailbox: a list of mails."""
    data = file.read(kind="mailbox")
    starts = [*_FROM_LINE.finditer(data)]
    if not starts:
        return AsText("it holds no mails, so it is read as text")
    reader = _MailReader(file)
    ends = [*(one.start() for one in starts[1:]), len(data)]
    mails = [
        reader.mail(re.sub(rb"(?m)^>(>*From )", rb"\1", data[start.end() : end]))
        for start, end in zip(starts, ends, strict=True)
    ]
    dates = sorted(mail["date"][:10] for mail in mails if mail["date"])
    span = f"; from {dates[0]} to {dates[-1]}" if dates else ""
    keys = ", ".join(f'"{key}"' for key in _KEYS)
    return Parsed("mailbox", "list", mails, "mail", f"dicts with the keys {keys}{span}", reader.notes())


class _MailReader:
    """Reads mails, and remembers what it left out."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._left: Counter[str] = Counter()
        self._named: list[str] = []
        self._dates = self._long = 0
        self._total = Total()
        self._inside: Reading | None = None
        """How attachments are read, with one allowance for all of them."""

    def mail(self, data: bytes) -> dict[str, Any]:
        """Return a mail as a dict: headers decoded, plain text, attachments as values where they can be read."""
        parser = BytesFeedParser(policy=_POLICY)
        for at in range(0, len(data) + 1, BLOCK_BYTES):
            self._file.reading.check()
            parser.feed(data[at : at + BLOCK_BYTES])
        message = parser.close()
        assert isinstance(message, EmailMessage)  # noqa: S101 - that is what this policy makes
        self._long += sum(
            key.lower() in _KEYS and len(str(value)) > _MAX_HEADER for key, value in message.raw_items()
        )
        body = _body(message)
        return {
            **{key: _header(message, key) for key in ("from", "to", "cc")},
            "date": self._date(message),
            "subject": _header(message, "subject"),
            "text": "" if body is None else self._text(body),
            "attachments": [self._attachment(part) for part in _attachments(message, body)],
        }

    def notes(self) -> list[str]:
        """Return what was left out or replaced."""
        more = ", ..." if sum(self._left.values()) > len(self._named) else ""
        left = (
            f"left out: {list_counts(self._left)} in attachments ({', '.join(map(quoted, self._named))}{more})"
            if self._left
            else ""
        )
        dates = f"{count(self._dates, 'date')} that cannot be read, left as written" if self._dates else ""
        long = f"{count(self._long, 'header')} too long to be decoded, left as written" if self._long else ""
        return [*filter(None, (left, dates, long))]

    def _date(self, message: EmailMessage) -> str:
        """Return the date in ISO format, or as it is written."""
        written = _header(message, "date")
        if not written:
            return ""
        try:
            return parsedate_to_datetime(written).isoformat()
        except (ValueError, TypeError, IndexError, OverflowError):
            self._dates += 1
            return written

    def _text(self, part: EmailMessage) -> str:
        text = _content(part)
        if part.get_content_subtype() != "html":
            return text.replace("\r\n", "\n")
        from rlm_langchain.context.formats.markup import html_text

        try:
            return html_text(text)[0]
        except RLMError:  # without the extra
            return text

    def _attachment(self, part: EmailMessage) -> dict[str, Any]:
        from rlm_langchain.context.formats.table import value_of

        name = part.get_filename() or ""
        data = _bytes(part)
        made: dict[str, Any] = {"name": name, "type": part.get_content_type(), "size": len(data)}
        try:
            self._file.reading.check()
            self._inside = self._inside or self._file.reading.inside(self._file.size)
            file = SourceFile.of_bytes(data, name, self._inside)
            made["content"], _ = value_of(file)
            self._total.add(len(dumps(made["content"])))
        except RLMError as error:
            if self._file.reading.strict:
                raise
            kind = error.kind if isinstance(error, Unreadable) else "file that needs more packages"
            made["content"] = None
            self._left[kind] += 1
            if len(self._named) < _MAX_NAMED:
                self._named.append(name or "unnamed")
        return made


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (MessageError, ValueError, IndexError, AttributeError, TypeError, LookupError, RecursionError):
        raw = [value for key, value in message.raw_items() if key.lower() == name]
        return " ".join(str(raw[0]).split()) if raw else ""


def _body(message: Any) -> Any:
    try:
        return message.get_body(("plain", "html"))
    except (KeyError, ValueError, AttributeError):
        return None


def _attachments(message: EmailMessage, body: EmailMessage | None) -> Iterator[EmailMessage]:
    """Yield what is attached, however it is nested; not the body, nor the same text in another format."""
    for part in _parts(message):
        if part is body or (part.is_multipart() and part.get_content_type() != "message/rfc822"):
            continue
        if part.get_filename() or part.get_content_maintype() != "text":
            yield part


def _parts(message: Any) -> Iterator[EmailMessage]:
    yield message
    if message.get_content_type() != "message/rfc822" and message.is_multipart():
        for part in message.iter_parts():
            yield from _parts(part)


def _content(part: EmailMessage) -> str:
    try:
        charset(part.get_content_charset("utf-8"))
        return str(part.get_content())
    except (LookupError, ValueError, AttributeError):
        return _bytes(part).decode("utf-8", "replace")


def _bytes(part: EmailMessage) -> bytes:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload(0)
        return inner.as_bytes() if hasattr(inner, "as_bytes") else b""
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def read_chat(file: SourceFile) -> Parsed | AsText:
    """Read a chat that WhatsApp has exported: a list of messages."""
    text = Text(file)
    messages = list[dict[str, str]]()
    for line in text.lines():
        found = CHAT_LINE.match(line.rstrip("\r\n"))
        if found:
            sender, colon, said = found["rest"].partition(": ")
            date = f"{found['date']} {found['time']}".replace("\u202f", " ").replace("\xa0", " ")
            messages.append(
                {"time": date, "sender": sender if colon else "", "text": said if colon else found["rest"]}
            )
        elif messages:
            messages[-1]["text"] += "\n" + line.rstrip("\r\n")
    notes = text.notes() + _dated(messages)
    senders = Counter(message["sender"] for message in messages if message["sender"])
    media = sum(any(map(_LEFT_OUT.search, _MEDIA.findall(one["text"]))) for one in messages)
    notes += [f"left out by the export: {count(media, 'picture or other file')}"] if media else []
    shown = ", ".join(f"{name} {number:,}" for name, number in senders.most_common(8))
    return Parsed(
        "chat",
        "list",
        messages,
        "message",
        f'dicts with the keys "time", "sender", "text"; senders: {shown}',
        notes,
    )


def _dated(messages: list[dict[str, str]]) -> list[str]:
    """Turn times into ISO format, if the whole chat shows which number is the day. Return a note."""
    parts = [[int(one) for one in re.split(r"[./-]", message["time"].split()[0])] for message in messages]
    first, second = (max((part[at] for part in parts), default=0) for at in (0, 1))
    if first > 31:
        order = (0, 1, 2)
    elif first > 12 >= second:
        order = (2, 1, 0)
    elif second > 12 >= first:
        order = (2, 0, 1)
    elif messages and "." in messages[0]["time"].split()[0]:
        order = (2, 1, 0)
    else:
        return ["times are left as written, because days and months cannot be told apart"]
    try:
        times = [_iso(message["time"], part, order) for message, part in zip(messages, parts, strict=True)]
    except ValueError:
        return ["times are left as written, because some are no dates"]
    for message, time in zip(messages, times, strict=True):
        message["time"] = time
    return [] if max(first, second) > 12 else ["guessed: in dates with dots, the day comes before the month"]


def _iso(written: str, part: list[int], order: tuple[int, int, int]) -> str:
    year, month, day = (part[at] for at in order)
    clock = re.findall(r"\d+", written.split(maxsplit=1)[1])
    hour, minute, second = map(int, [*clock, "0"][:3])
    half = re.search(r"([ap])\.?\s*m", written, re.IGNORECASE)
    if half:
        hour = hour % 12 + (12 if half[1].lower() == "p" else 0)
    return datetime(year + 2000 if year < 100 else year, month, day, hour, minute, second).isoformat()
