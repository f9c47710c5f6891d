# ruff: noqa


def partition(source=None, size=50000, overlap=0, tokens=None, separators=("\n\n", "\n", ". ", " ")):
    """Split into pieces of at most `size` characters (or about `tokens` tokens), at the best separator near the end.

    The pieces cover all the text, in order. Each begins with the last `overlap` characters of the previous piece of
    its text. Several small texts share a piece, each whole, after a line `### name`; a longer text is split, and
    each of its pieces has the name. An empty context has no pieces.
    Raises ValueError when `size` or `tokens` is below 1, `overlap` negative or not below `size`, or when a name
    leaves no room for its text.
    """
    if tokens is not None:
        _at_least("tokens", tokens, 1)
        size = tokens * 4
    _cut("", size, overlap)  # only to check the arguments
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
            continue
        if held:
            pieces.append(held)
            held = ""
        spans = _cut(text, _room(size, head, overlap), overlap, separators)
        pieces += [head + text[start:end] for start, end in spans]
    return pieces + [held] if held else pieces


def partition_map(question, source=None, size=50000, overlap=0, tokens=None):
    """Ask the same about every piece, in parallel. Return the replies, in order; "" for a failed call."""
    pieces = partition(source, size, overlap, tokens)
    return ask_all([question + "\n\nText:\n" + piece for piece in pieces])
