"""A LangChain `BaseLoader`: a list of its documents, which are read one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_langchain.context import describe
from rlm_langchain.context.formats.parsed import dumps
from rlm_langchain.context.reference import StoreWriter, json_reference, with_notes
from rlm_langchain.context.sources.documents import to_item
from rlm_langchain.context.sources.folders import MAX_TEXT_BYTES
from rlm_langchain.context.sources.text import encode_text
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langchain_core.document_loaders import BaseLoader


def accepts(value: Any) -> bool:
    """Accept an instance of `BaseLoader`."""
    if not callable(getattr(value, "lazy_load", None)) or isinstance(value, type):
        return False
    from langchain_core.document_loaders import BaseLoader

    return isinstance(value, BaseLoader)


def to_reference(value: BaseLoader, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference to the documents, or None if there are none. Raises `InputError` for a failing loader, and
    for more than a sandbox can hold."""
    name = type(value).__name__
    number = size = characters = replaced = 0
    with store_writer.blobs.writer() as writer:
        documents = iter(_documents(value, name))
        for number, document in enumerate(documents, 1):
            store_writer.seconds_left(name)
            item = to_item(document)
            data, wrong = encode_text(("[" if number == 1 else ",") + dumps(item), strict=store_writer.strict)
            characters, size, replaced = characters + len(item["page_content"]), size + len(data), replaced + wrong
            if size > MAX_TEXT_BYTES:
                raise InputError(
                    f"the documents of {name} have more than {MAX_TEXT_BYTES >> 30} GB: load fewer of them"
                )
            writer.write(data)
        if not number:
            return None
        writer.write(b"]")
        blob = writer.commit()
    line = describe.join_parts(
        f"list of {describe.count(number, 'document')} of {name}, dicts with 'page_content' and 'metadata'",
        f"{characters:,} characters of page_content in all ({describe.tokens(blob.size)} as JSON)",
    )
    note = f"{describe.count(replaced, 'lone surrogate')} replaced by U+FFFD" if replaced else ""
    return with_notes(json_reference(blob, "list", number, line), [note])


def _documents(loader: BaseLoader, name: str) -> Any:
    """Yield the documents. Raises `InputError` for any error of the loader."""
    try:
        yield from loader.lazy_load()
    except RLMError:
        raise
    except Exception as error:
        raise InputError(f"{name} could not load its documents: it raised {type(error).__name__}") from error
