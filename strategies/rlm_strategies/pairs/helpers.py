# ruff: noqa


def block_pairs(items, key, limit=100000):
    """Pairs of different items that share a key, each once, in order. `key` gives one value or a list of them."""
    blocks = {}
    for number, item in enumerate(items):
        keys = key(item)
        for value in keys if isinstance(keys, list) else [keys]:
            if value is not None:
                blocks.setdefault(value, []).append(number)
    seen = set()
    for numbers in blocks.values():
        for i in range(len(numbers)):
            for j in range(i + 1, len(numbers)):
                seen.add((numbers[i], numbers[j]))
        if len(seen) > limit:
            raise ValueError("more than " + str(limit) + " candidate pairs: choose a narrower key")
    return [(items[i], items[j]) for i, j in sorted(seen)]


def judge_pairs(pairs, question, batch=25):
    """The pairs for which a model says yes."""
    groups = [pairs[i : i + batch] for i in range(0, len(pairs), batch)]
    replies = ask_all([_pair_prompt(group, question) for group in groups])
    kept = []
    for group, reply in zip(groups, replies):
        said = [line.strip().rstrip(".").split(":") for line in reply.split("\n")]
        yes = [parts[0].strip() for parts in said if len(parts) == 2 and parts[1].strip().lower() == "yes"]
        kept += [pair for number, pair in enumerate(group) if str(number + 1) in yes]
    return kept


def _pair_prompt(group, question):
    lines = [str(n + 1) + ": " + as_text(a) + "  <->  " + as_text(b) for n, (a, b) in enumerate(group)]
    return (
        question
        + "\nReply with one line per pair, 'number: yes' or 'number: no', nothing else.\n\n"
        + "\n".join(lines)
    )
