# ruff: noqa


def follow(question, start, hops=5, window=300, hits=12):
    """Return the facts found on the way to an answer, one string per hop, until the model has the answer.

    Each hop shows at most `hits` matches with `window` characters on both sides. Raises ValueError when `hops` or
    `hits` is below 1, `window` negative, or `start` empty.
    """
    _at_least("hops", hops, 1)
    _at_least("hits", hits, 1)
    _at_least("window", window, 0)
    if not start:
        raise ValueError("start is empty: give the first name or word to search for")
    facts, term, tried = [], start, []
    for hop in range(hops):
        places = _places(term, window, hits)
        tried.append(term)
        reply = llm_query(
            f"Question: {question}\nKnown so far: "
            + ("; ".join(facts) or "nothing")
            + "\nSearched already: "
            + ", ".join(tried)
            + "\n\nWhat the search for '"
            + term
            + "' found:\n"
            + ("\n---\n".join(places) or "nothing")
            + "\n\nReply with two lines.\nFACT: what this adds, with its exact"
            + " words, or NONE\nNEXT: the exact name or word to search for next, or DONE when the question can be answered"
        )
        fact, next_term = "", "DONE"
        for line in reply.split("\n"):
            word, colon, rest = line.strip().partition(":")
            if word.strip().upper() == "FACT":
                fact = rest.strip()
            if word.strip().upper() == "NEXT":
                next_term = rest.strip().strip(".'\"")
        if fact and fact.upper() != "NONE":
            facts.append(fact)
        if next_term.upper() == "DONE" or next_term in tried or not next_term:
            break
        term = next_term
    return facts


def _places(term, window, hits):
    compiled = re.compile(re.escape(term), re.IGNORECASE)
    found = []
    for name, text in texts():
        for match in compiled.finditer(text):
            found.append(name + ": " + text[max(0, match.start() - window) : match.end() + window])
            if len(found) >= hits:
                return found
    if not found:
        try:
            found = [hit["source"] + ": " + hit["text"] for hit in search(term, hits)]
        except NameError:
            found = []
    return found
