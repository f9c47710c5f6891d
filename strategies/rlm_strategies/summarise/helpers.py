# ruff: noqa


def summarise(focus="the main points", source=None, size=50000, target=4000):
    """Summarise everything by summarising parts and then their summaries; "" for an empty context.

    A prompt has at most `size` characters of text; the summary has about `target` characters. All of the text is
    read. A part whose call failed is left out, and the output of the cell says so.
    Raises ValueError when `size` is below 20, `target` below 2, or a name leaves no room for its text.
    """
    _at_least("size", size, 20)
    _at_least("target", target, 2)
    most = min(target // 2, size // 3)
    named = texts(source)
    parts = []
    for name, text in named:
        head = "[" + name + "] " if len(named) > 1 else ""
        parts += [head + text[start:end] for start, end in _cut(text, _room(size, head + "\n\n"))]
    while True:
        groups, held = [], ""
        for part in parts:
            if held and len(held) + len(part) + 2 > size:
                groups.append(held)
                held = ""
            held += part + "\n\n"
        groups = groups + [held] if held else groups
        if len(groups) <= 1:
            break
        prompts = [_summary_prompt(focus, most, group) for group in groups]
        parts = [reply[: size // 3] for reply in ask_all(prompts) if reply]
    return llm_query(_summary_prompt(focus, target, groups[0])) if groups else ""


def _summary_prompt(focus, length, text):
    return (
        "Summarise the text below in at most "
        + str(length)
        + " characters. Keep what matters for: "
        + focus
        + ". Keep names, numbers and dates exact. Reply with the summary only.\n\nText:\n"
        + text
    )
