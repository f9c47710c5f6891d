# ruff: noqa


def gather(queries, k=20, width=1200):
    """Return distinct passages for one or several queries, best first: dicts with `source`, `start`, `text`.

    At most `k` per query; without `search`, each of `width` characters. Raises ValueError when one is below 1.
    """
    _at_least("k", k, 1)
    _at_least("width", width, 1)
    found, seen = [], set()
    for query in queries if isinstance(queries, list) else [queries]:
        for hit in _search(query, k, width):
            place = (hit["source"], hit["start"], hit["text"])
            if place not in seen:
                seen.add(place)
                found.append(hit)
    return found


def read(question, passages, size=40000):
    """Ask about the passages, several per call, in parallel. Return the replies, in order; "" for a failed call.

    The prompts contain every passage in full, in order, with at most `size` characters each: longer passages are
    split. Raises ValueError when `size` leaves no room for the name of a source.
    """
    _at_least("size", size, 1)
    prompts, held = [], ""
    for passage in passages:
        first, text = passage["start"] or 0, passage["text"]
        room = _room(size, "[" + passage["source"] + " @" + str(first + len(text)) + "]\n\n\n")
        for start, end in _cut(text, room):
            part = "[" + passage["source"] + " @" + str(first + start) + "]\n" + text[start:end] + "\n\n"
            if held and len(held) + len(part) > size:
                prompts.append(held)
                held = ""
            held += part
    prompts = prompts + [held] if held else prompts
    return ask_all([question + "\n\nPassages:\n" + prompt for prompt in prompts])


def _search(query, k, width):
    try:
        return search(query, k)
    except NameError:
        return _by_words(query, k, width)


def _by_words(query, k, width):
    words = [word.lower() for word in re.findall(r"\w+", query) if len(word) > 3] or [query.lower()]
    scored = []
    for name, text in texts():
        for start, end in _cut(text, width):
            piece = text[start:end]
            low = piece.lower()
            score = sum([1 for word in words if word in low])
            if score:
                scored.append((-score, name, start, piece))
    best = sorted(scored, key=lambda entry: entry[:3])[:k]
    return [{"source": name, "start": start, "text": piece, "score": -score} for score, name, start, piece in best]
