# ruff: noqa


def classify(items, labels, question="Which label fits?", batch=40):
    """One of `labels` for each item, in order; None where no valid one came back. Missing ones are asked twice."""
    found = [None for item in items]
    for attempt in range(2):
        missing = [number for number in range(len(items)) if found[number] is None]
        groups = in_batches(missing, items, batch)
        replies = ask_all([_label_prompt(items, group, labels, question) for group in groups])
        for group, reply in zip(groups, replies):
            for number, label in _labels_in(reply, labels):
                if number in group:
                    found[number] = label
    return found


def tally_of(labels):
    """How often each label occurs, most frequent first."""
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


def _labels_in(reply, labels):
    known = {label.lower(): label for label in labels}
    found = []
    for line in reply.split("\n"):
        number, colon, label = line.strip().lstrip("-* ").partition(":")
        label = label.strip().strip(".'\"*").lower()
        if colon and number.strip().isdigit() and label in known:
            found.append((int(number.strip()), known[label]))
    return found
