# ruff: noqa


def gather(queries, k=20, width=1200):
    """Passages for any of several queries, best first, each once: dicts with `source`, `start`, `text`."""
    found, seen = [], set()
    for query in queries if isinstance(queries, list) else [queries]:
        for hit in _search(query, k, width):
            start = hit["start"]
            place = (hit["source"], hit["text"] if start is None else start // width)
            if place not in seen:
                seen.add(place)
                found.append(hit)
    return found


def read(question, passages, size=40000):
    """Ask about the passages, several per call and in parallel. The replies, in order."""
    prompts, held = [], ""
    for passage in passages:
        part = "[" + passage["source"] + " @" + str(passage["start"] or 0) + "]\n" + passage["text"] + "\n\n"
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
        for start in range(0, len(text), width):
            piece = text[start : start + width]
            low = piece.lower()
            score = sum([1 for word in words if word in low])
            if score:
                scored.append((-score, name, start, piece))
    best = sorted(scored, key=lambda entry: entry[:3])[:k]
    return [{"source": name, "start": start, "text": piece, "score": -score} for score, name, start, piece in best]
