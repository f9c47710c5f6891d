# ruff: noqa


def partition(source=None, size=50000, overlap=0, tokens=None, separators=("\n\n", "\n", ". ", " ")):
    """Pieces of at most `size` characters (or about `tokens` tokens), cut at the best separator near the end.

    Several small texts share a piece, each under its name. `overlap` characters are repeated.
    """
    size = tokens * 4 if tokens else size
    named = texts(source)
    several = len(named) > 1
    pieces, held = [], ""
    for name, text in named:
        head = "### " + name + "\n" if several else ""
        if several and len(head) + len(text) <= size:
            if held and len(held) + len(head) + len(text) + 2 > size:
                pieces.append(held)
                held = ""
            held += ("\n\n" if held else "") + head + text
        else:
            for part in _cut(text, size - len(head), overlap, separators):
                pieces.append(head + part)
    return pieces + [held] if held else pieces


def _cut(text, size, overlap, separators):
    parts, start = [], 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            for separator in separators:
                at = text[start:end].rfind(separator)
                if at > size // 2:
                    end = start + at + len(separator)
                    break
        parts.append(text[start:end])
        start = end if end == len(text) else max(end - overlap, start + 1)
    return parts


def partition_map(question, source=None, size=50000, overlap=0, tokens=None):
    """Ask the same about every piece, in parallel. The replies, in the order of the pieces."""
    pieces = partition(source, size, overlap, tokens)
    return ask_all([question + "\n\nText:\n" + piece for piece in pieces])
