# ruff: noqa


def block_pairs(items, key, limit=100000):
    """Return the pairs of items that share a key, each once, in order. `key` returns one value or a list.

    Raises ValueError when there would be more than `limit` pairs, or `items` is not a list.
    """
    _listed("items", items)
    _at_least("limit", limit, 1)
    blocks = {}
    for number, item in enumerate(items):
        keys = key(item)
        for value in keys if isinstance(keys, list) else [keys]:
            if value is not None and blocks.setdefault(value, [])[-1:] != [number]:
                blocks[value].append(number)
    seen = set()
    for value, numbers in blocks.items():
        if len(numbers) * (len(numbers) - 1) // 2 > limit:
            shared = f"{len(numbers)} items share the key {repr(value)[:100]}"
            raise ValueError(f"{shared}: more than {limit} candidate pairs: choose a narrower key")
        for i in range(len(numbers)):
            for j in range(i + 1, len(numbers)):
                seen.add((numbers[i], numbers[j]))
        if len(seen) > limit:
            raise ValueError("more than " + str(limit) + " candidate pairs: choose a narrower key")
    return [(items[i], items[j]) for i, j in sorted(seen)]


def judge_pairs(pairs, question, batch=25):
    """Return the pairs for which a model says yes, in order. A line says how many got neither yes nor no.

    Every pair is in a prompt, whole, with at most `batch` pairs per prompt. Raises ValueError when `batch` is below 1.
    """
    groups = [[pairs[n] for n in group] for group in in_batches(range(len(pairs)), pairs, batch)]
    replies = ask_all([_pair_prompt(group, question) for group in groups])
    kept, unsaid = [], 0
    for group, reply in zip(groups, replies):
        said = {}
        for line in reply.split("\n"):
            number, colon, word = line.strip().rstrip(".").partition(":")
            said[number.strip()] = word.strip().lower()
        verdicts = [said.get(str(number + 1)) for number in range(len(group))]
        kept += [pair for pair, verdict in zip(group, verdicts) if verdict == "yes"]
        unsaid += len([verdict for verdict in verdicts if verdict not in ("yes", "no")])
    if unsaid:
        print(unsaid, "of", len(pairs), "pairs got neither yes nor no, and are left out: ask about them again")
    return kept


def _pair_prompt(group, question):
    lines = [str(n + 1) + ": " + as_text(a) + "  <->  " + as_text(b) for n, (a, b) in enumerate(group)]
    return (
        question
        + "\nReply with one line per pair, 'number: yes' or 'number: no', nothing else.\n\n"
        + "\n".join(lines)
    )
