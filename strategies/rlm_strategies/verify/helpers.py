# ruff: noqa


def verify(claim, evidence, size=60000):
    """Whether pieces of evidence support a claim: a dict with `verdict` and `why`."""
    pieces = evidence if isinstance(evidence, list) else [evidence]
    text, left_out = "", 0
    for number, piece in enumerate(pieces):
        part = "[" + str(number + 1) + "] " + as_text(piece) + "\n\n"
        if len(text) + len(part) > size and text:
            left_out += 1
        else:
            text += part[:size]
    reply = llm_query(
        "Check a claim against the evidence below, and against nothing else. The first word of your reply is SUPPORTED,"
        + " CONTRADICTED or UNCLEAR; then one sentence that says why, with the number of the piece that decides it.\n\n"
        + "Claim: "
        + claim
        + "\n\nEvidence:\n"
        + text
    )
    first = reply.strip().split(" ")[0].strip(".:,*\n").lower() if reply.strip() else ""
    verdict = first if first in ("supported", "contradicted", "unclear") else "unclear"
    return {"verdict": verdict, "why": reply.strip(), "left_out": left_out}
