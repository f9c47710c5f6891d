# ruff: noqa


def peek(source=None, items=3, width=200):
    """Print an overview of a context: its type, its sizes, and a few items and lines.

    Raises ValueError when `items` or `width` is below 1.
    """
    _at_least("items", items, 1)
    _at_least("width", width, 1)
    source = context if source is None else source
    named = texts(source)
    sizes = sorted([len(text) for name, text in named])
    print(type(source).__name__, "of", len(named), "text(s),", sum(sizes), "characters in all")
    if len(named) > 1:
        print("sizes: smallest", sizes[0], "median", sizes[len(sizes) // 2], "largest", sizes[-1])
    shown = named if len(named) <= 2 * items else named[:items] + named[-items:]
    for name, text in shown:
        print("-", name, "(" + str(len(text)) + "):", repr(text[:width]))
    if len(named) == 1 and len(named[0][1]) > width:
        text = named[0][1]
        middle = len(text) // 2
        print("- middle:", repr(text[middle : middle + width]))
        print("- end:", repr(text[len(text) - width :]))
        lines = text[:100000].split("\n")
        print("- lines in the first 100,000 characters:", len(lines))
