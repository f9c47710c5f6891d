# ruff: noqa


def verify(claim, evidence, size=60000):
    """Check whether evidence supports a claim. Return a dict with `verdict`, `why` and `left_out`.

    The prompt has at most `size` characters of evidence. `left_out` counts the pieces that are missing or cut. Raises ValueError when `size` is below 20.
    """
    _at_least("size", size, 20)
    pieces = evidence if isinstance(evidence, (list, tuple)) else [evidence]
    text, left_out = "", 0
    for number, piece in enumerate(pieces):
        part = "[" + str(number + 1) + "] " + as_text(piece) + "\n\n"
        if len(text) + len(part) > size:
            left_out += 1
            part = "" if text else part[:size]
        text += part
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
