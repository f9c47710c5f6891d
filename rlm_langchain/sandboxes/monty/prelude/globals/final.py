"""How a cell answers, and how it can look at its own variables."""

# ruff: noqa
# mypy: ignore-errors

import json

_SHOWN = 20_000

answer = {"ready": False}


def FINAL(value):
    """Answer, and end the cell."""
    _rlm_check()
    _answer(value)
    _rlm_given(True)
    _rlm_check()


def _answer(value):
    if isinstance(value, dict) and "ready" in value and _is_answer(value):
        value = _filled_in(value)
    plain, _ = _rlm_sendable(value, "FINAL")
    _rlm_send(f'{{"final": {json.dumps(plain, ensure_ascii=False)}}}')


def _is_answer(__rlm_value):
    """Return whether this is the dict in which a cell may leave its answer, and not another dict of that name."""
    try:
        return __rlm_value is eval("answer") and all(key in ("content", "ready") for key in __rlm_value)
    except NameError:
        return False


def _filled_in(form):
    if "content" not in form:
        raise ValueError("`answer` has no content yet: call FINAL with the value that you found.")
    form["ready"] = False
    return form["content"]


def FINAL_VAR(name):
    """Answer with a variable, given as a value or by name."""
    FINAL(_named(name.strip()) if isinstance(name, str) and name.strip().isidentifier() else name)


def _named(__rlm_name):
    try:
        return eval(__rlm_name)
    except NameError:
        there = ", ".join(_rlm_send('{"names": "cells"}')) or "none"
        raise NameError(
            f"FINAL_VAR: no variable is called {__rlm_name!r}; there are: {there}. "
            "To answer with a text as it is, use FINAL."
        )


def _values(__rlm_which):
    __rlm_found = {}
    for __rlm_name in _rlm_send(f'{{"names": "{__rlm_which}"}}'):
        try:
            __rlm_found[__rlm_name] = eval(__rlm_name)
        except NameError:
            pass
    return __rlm_found


_listing = [""]


def SHOW_VARS():
    """Return the variables that the cells have defined, one per line."""
    lines = [f"{name}: {_about(value)}" for name, value in _values("cells").items()]
    _listing[0] = "\n".join(lines) or "no variables yet"
    return _listing[0]


def _about(value):
    kind = type(value).__name__
    if isinstance(value, (str, list, tuple, dict, set)):
        return f"{kind}, length {len(value)}"
    return f"{kind} {value!r}" if isinstance(value, (int, float)) or value is None else kind


def globals():
    """Return a copy of the global names. Changing it has no effect."""
    return _values("all")


def _rlm_echo(value):
    """Show the last value of a cell, as a REPL does: the beginning of a long value, the size of a huge one."""
    if value is None:
        return
    if value is _listing[0]:
        print(value)
    elif isinstance(value, str) and len(value) > _SHOWN:
        print(f"{value[:_SHOWN]!r}... ({len(value)} characters)")
    elif not _is_small(value):
        print(f"a {_about(value)}, too large to be shown whole: look at a part")
    else:
        shown = repr(value)
        print(shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}... ({len(shown)} characters)")


def _is_small(value):
    """Return whether its `repr` is fast. That of a value that contains itself many times can be endless."""
    waiting, seen, size = [value], 0, 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
        if seen + len(waiting) > _SHOWN or size > 50 * _SHOWN:
            return False
    return True


def _rlm_end(answered):
    """End a cell. A ready `answer` is the answer once, and never later if FINAL has already answered."""
    _rlm_given(False)
    try:
        found = eval("answer")
    except NameError:
        return
    if isinstance(found, dict) and "content" in found and found.get("ready"):
        found["ready"] = False
        if not answered:
            _answer(found["content"])
