# ruff: noqa


def transform(items, instruction, batch=20):
    """Let a model rewrite every item, in order. Items that fail twice are kept unchanged, and a line lists them.

    Every item is in a prompt, whole, with at most `batch` items per prompt. Raises ValueError when `batch` is below
    1 or `items` is not a list.
    """
    _listed("items", items)
    _at_least("batch", batch, 1)
    results = [None for item in items]
    for size in (batch, 1):
        missing = [number for number in range(len(items)) if results[number] is None]
        groups = in_batches(missing, items, size)
        replies = ask_all([_transform_prompt(items, group, instruction) for group in groups])
        for group, reply in zip(groups, replies):
            for line in reply.split("\n"):
                number, bar, text = line.strip().partition("|")
                if bar and number.strip().isdigit() and int(number.strip()) in group and text.strip():
                    results[int(number.strip())] = text.strip()
    kept = [n for n in range(len(items)) if results[n] is None]
    if kept:
        print(len(kept), "of", len(items), "items are as they were, no line came back for them:", kept[:10])
    return [as_text(items[n]) if results[n] is None else results[n] for n in range(len(items))]


def _transform_prompt(items, group, instruction):
    lines = [str(number) + "|" + as_text(items[number]).replace("\n", " ") for number in group]
    return (
        instruction
        + "\nReply with one line per item: its number, '|', and the result. Nothing else, no item left out."
        + "\n\nItems:\n"
        + "\n".join(lines)
    )


def write_sections(outline, instruction, material=""):
    """Write a long text from an outline (a list of headings), with its sections in parallel."""
    _listed("outline", outline)
    whole = "\n".join(["- " + heading for heading in outline])
    prompts = [
        instruction
        + "\nThe whole text has these sections:\n"
        + whole
        + "\n\nWrite only the section '"
        + heading
        + "', without its heading, and repeat nothing that belongs to the others.\n\nMaterial:\n"
        + as_text(material)
        for heading in outline
    ]
    written = ask_all(prompts)
    return "\n\n".join(["## " + heading + "\n\n" + text.strip() for heading, text in zip(outline, written)])
