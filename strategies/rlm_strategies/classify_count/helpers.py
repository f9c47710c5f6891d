# ruff: noqa


def classify(items, labels, question="Which label fits?", batch=40):
    """Return one of `labels` per item, in order; None if two attempts gave no valid label.

    Every item is in a prompt, whole, with at most `batch` items per prompt. Raises ValueError when `batch` is below
    1, `items` or `labels` is not a list, or two labels differ only in case and punctuation at their ends.
    """
    _listed("items", items)
    _listed("labels", labels)
    known = {_plain(label): label for label in labels}
    if not labels or len(known) < len(labels):
        raise ValueError("labels=" + repr(labels) + ": give at least one, and no two that differ in case only")
    found = [None for item in items]
    for attempt in range(2):
        missing = [number for number in range(len(items)) if found[number] is None]
        groups = in_batches(missing, items, batch)
        replies = ask_all([_label_prompt(items, group, labels, question) for group in groups])
        for group, reply in zip(groups, replies):
            for number, label in _labels_in(reply, known):
                if number in group:
                    found[number] = label
    return found


def tally_of(labels):
    """Count the labels, most frequent first."""
    counts = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _label_prompt(items, group, labels, question):
    lines = [str(number) + ": " + as_text(items[number]).replace("\n", " ") for number in group]
    return (
        question
        + "\nLabels: "
        + ", ".join(labels)
        + "\n\nReply with one line per item, 'number: label', and nothing"
        + " else. Every item gets exactly one of the labels.\n\nItems:\n"
        + "\n".join(lines)
    )


def _plain(label):
    return label.strip().strip(".'\"*").lower()


def _labels_in(reply, known):
    found = []
    for line in reply.split("\n"):
        number, colon, label = line.strip().lstrip("-* ").partition(":")
        if colon and number.strip().isdigit() and _plain(label) in known:
            found.append((int(number.strip()), known[_plain(label)]))
    return found
