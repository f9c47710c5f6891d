# ruff: noqa


def grep(pattern, source=None, window=200, limit=50, ignore_case=True):
    """Return the first `limit` matches of a regular expression, in order, with `window` characters around each.

    Raises ValueError when `window` is negative or `limit` below 1.
    """
    _at_least("window", window, 0)
    _at_least("limit", limit, 1)
    compiled = re.compile(pattern, re.IGNORECASE) if ignore_case else re.compile(pattern)
    hits = []
    for name, text in texts(source):
        if len(hits) >= limit:
            break
        for found in compiled.finditer(text):
            start, end = found.start(), found.end()
            around = text[max(0, start - window) : end + window]
            hits.append({"source": name, "start": start, "match": found.group(0), "text": around})
            if len(hits) >= limit:
                break
    return hits


def count(pattern, source=None, ignore_case=True):
    """Return the exact number of matches of a regular expression in all texts."""
    compiled = re.compile(pattern, re.IGNORECASE) if ignore_case else re.compile(pattern)
    total = 0
    for name, text in texts(source):
        for found in compiled.finditer(text):
            total += 1
    return total
