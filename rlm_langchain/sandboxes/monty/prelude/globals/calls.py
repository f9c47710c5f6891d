"""The functions of the REPL that call the host, in Monty's Python. Runs in the sandbox; the host reads it as
text.

The body becomes one function, whose parameters are the built-in names: a cell that says `list = [1]` or `print
= None` changes nothing here. Only text from a cell reaches the host: a message is JSON that is made here and
printed between `__rlm_frame__()` and `__rlm_sent__()`, so that the host can count it as it arrives.
"""

# ruff: noqa
# mypy: ignore-errors

import collections
import datetime
import decimal
import json
import pathlib

LLMError = RuntimeError  # exceptions cannot be subclassed here; the host shows the right name
_DEPTH = 32
_NODES = 100_000  # in one value; a list counts twice
_CROWD = 110_000  # in one message: less than the host reads
_INT64 = 2**63
_BATCH = 10_000
_TOLD = 5


def _rlm_sendable(value, what):
    """Return the value with nothing but what JSON has, and how many values it holds.

    Raises unless all are JSON or have one form in it: 64-bit integers, finite floats, no cycle, not too large.
    """
    size, nodes, waiting, is_plain = 0, 0, [(value, 0)], True
    while waiting:
        item, depth = waiting.pop()
        nodes += 1
        if isinstance(item, str):
            size += len(item)
        elif item is None or item is True or item is False:
            pass
        elif isinstance(item, int):
            if not -_INT64 <= item < _INT64:
                raise ValueError(f"{what} holds an integer of more than 64 bits; make it a str")
        elif isinstance(item, float):
            if item - item != 0.0:
                raise ValueError(f"{what} holds {item}, which is no number in JSON; use None or text")
        elif isinstance(item, (list, tuple, dict)):
            nodes += 1  # the host counts brackets
            if depth >= _DEPTH:
                raise ValueError(f"{what} is nested more than {_DEPTH} levels deep, or contains itself")
            is_plain = is_plain and not isinstance(item, tuple)
            if isinstance(item, dict):
                is_plain = is_plain and all([isinstance(key, str) for key in item])
            waiting.extend([(part, depth + 1) for part in _parts(item, what)])
        else:
            is_plain = False
            waiting.append((_form(item, what), depth))
        if size > __rlm_most__:
            raise ValueError(f"{what} is too large: at most {__rlm_most__:,} bytes can leave the REPL at once")
        if nodes > _NODES:
            raise ValueError(f"{what} holds more than {_NODES:,} items, or holds the same ones many times")
    return (value if is_plain else _plain(value, what, 0)), nodes


def _plain(value, what, depth):
    """Return the value with nothing but what JSON has."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if depth > _DEPTH:
        raise ValueError(f"{what} is nested more than {_DEPTH} levels deep, or contains itself")
    if isinstance(value, dict):
        return _plain_dict(value, what, depth)
    if isinstance(value, (list, tuple)):
        return [_plain(item, what, depth + 1) for item in value]
    return _plain(_form(value, what), what, depth)


def _plain_dict(value, what, depth):
    made = {}
    for key, item in value.items():
        name = key if isinstance(key, (int, float)) or key is None else _key(key, what)
        if name in made:
            raise ValueError(f"{what} holds a dict with two keys that are the same as text")
        made[name] = _plain(item, what, depth + 1)
    return made


def _form(value, what):
    """Return the form that a value has in JSON, whose parts may need the same: see the other sandbox's
    `plain_form`."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, (set, frozenset)):
        return _in_order(value)
    if isinstance(value, (range, collections.deque)) or type(value).__name__ in _VIEWS:
        return list(value)
    if isinstance(value, pathlib.Path):
        return str(value)
    if hasattr(value, "__rlm_fields__") and type(value).__name__ != "type":
        return {name: getattr(value, name) for name in value.__rlm_fields__}
    if isinstance(value, bytes):
        try:
            return value.decode()
        except ValueError:
            pass
    kind = type(value).__name__
    raise TypeError(
        f"{what} holds a value of type {kind}; only text, numbers, booleans, None, lists and dicts of them can "
        f"leave the REPL. {_HINTS.get(kind, 'Use str(...), or a dict of what matters in it.')}"
    )


_VIEWS = ("dict_keys", "dict_values", "dict_items")
_HINTS = {
    "bytes": "It is no UTF-8 text: use .hex(), or decode it as what it is.",
    "list_iterator": "Use list(...).",
    "generator": "Use list(...).",
    "function": "Call it first.",
    "builtin_function_or_method": "Call it first.",
    "type": "Make an instance, or use its __name__.",
    "Match": "Use .group(), or .groupdict().",
}


def _number(value):
    """Return a number, or the text of one that a float would change."""
    if not value.is_finite():
        return float(str(value))
    number = float(value)
    return number if value == decimal.Decimal(repr(number)) else str(value)


def _in_order(items):
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)


def _parts(item, what):
    if not isinstance(item, dict):
        return item
    return [_key(key, what) for key in item] + list(item.values())


def _key(key, what):
    """Return a key as text, if it has the form of one, as dates have."""
    if isinstance(key, str):
        return key
    try:
        form = _form(key, what)
    except TypeError:
        form = None
    if isinstance(form, str):
        return form
    raise TypeError(f"{what} has a key that is a {type(key).__name__}; make all keys str")


_given = [False]


def _rlm_given(is_given):
    """Remember whether the cell has its answer."""
    _given[0] = is_given


def _rlm_check():
    """End a cell that has its answer. `except Exception` does not catch this, and the host adds handlers for
    the rest."""
    if _given[0]:
        raise KeyboardInterrupt("the cell has its answer")


def _rlm_send(text):
    """Send a message and return the host's reply."""
    _rlm_check()
    if len(text.encode()) > __rlm_most__ + 100:
        raise ValueError(f"this is too large: at most {__rlm_most__:,} bytes can leave the REPL at once")
    __rlm_frame__()
    print(text, end="")
    return __rlm_sent__()


def _ask(name, kinds, prompts, contexts):
    """Make calls together and return pairs of value and error."""
    calls = [
        _call(name, kinds[n], prompts[n], contexts[n], n if len(prompts) > 1 else None) for n in range(len(prompts))
    ]
    replies, wave, size, nodes = [], [], 0, 0
    for call, more in calls:
        text = json.dumps(call, ensure_ascii=False)
        length = len(text.encode()) + 1
        if wave and (size + length > __rlm_most__ or nodes + more > _CROWD):
            replies.extend(_rlm_send(f'{{"calls":[{",".join(wave)}]}}'))
            wave, size, nodes = [], 0, 0
        wave.append(text)
        size, nodes = size + length, nodes + more
    if wave:
        replies.extend(_rlm_send(f'{{"calls":[{",".join(wave)}]}}'))
    return replies


def _call(name, kind, prompt, context, number):
    what = f"the prompt of {name}" if number is None else f"item {number} of {name}"
    if type(prompt) is not str:
        hint = " (None is a call that failed before)" if prompt is None else ": str(...) makes one"
        raise TypeError(f"{what} must be text (str), not {type(prompt).__name__}{hint}")
    if context is not None and not isinstance(context, (str, list, tuple, dict)):
        raise TypeError(f"the context of {name} must be text, a list or a dict, not {type(context).__name__}")
    return _rlm_sendable([kind, prompt, context], f"a call of {name}")


def _one(name, kind, prompt, context):
    value, error = _ask(name, [kind], [prompt], [context])[0]
    if error is not None:
        raise LLMError(error)
    return value


def _many(name, kinds, prompts, contexts):
    if len(prompts) > _BATCH:
        raise ValueError(f"{name} takes at most {_BATCH:,} items at once, not {len(prompts):,}")
    replies = _ask(name, kinds, prompts, contexts)
    failed = [number for number, reply in enumerate(replies) if reply[1] is not None]
    for number in failed[:_TOLD]:
        print(f"[{name}] item {number} failed: {replies[number][1]}")
    if len(failed) > _TOLD:
        print(f"[{name}] {len(failed) - _TOLD} more items failed")
    return [value if error is None else None for value, error in replies]


def _listed(items, name):
    if isinstance(items, (str, dict)):
        raise TypeError(f"{name} takes a list, not a {type(items).__name__}")
    return list(items)


def _host_call(kind, prompt, context=None):
    """Make a call of any kind, for the helpers of plug-ins. Raises LLMError if it fails. A prompt that is a list
    is sent as JSON."""
    if type(kind) is not str:
        raise TypeError("the kind of a call must be a str")
    if type(prompt) is list:
        prompt = json.dumps(_plain(prompt, f"an argument of a call of {kind}", 0))
    return _one(kind, kind, prompt, context)


def llm_query(prompt, context=None, images=None):
    """Call a model, perhaps about pictures (one handle, or a list), and return its reply as text. Raises LLMError
    if it failed after retries."""
    if images is None:
        return _one("llm_query", "llm", prompt, context)
    return _one("llm_query", "vision", prompt, _pictured(context, images, "llm_query"))


def llm_query_batched(prompts, images=None):
    """Call a model with many prompts at once. Returns the replies in the same order, None for those that failed.
    `images` has the handles for each prompt, or is one handle for all."""
    name = "llm_query_batched"
    prompts = _listed(prompts, name)
    if images is None or isinstance(images, dict):
        images = [images] * len(prompts)
    images = list(images)
    if len(images) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many images, or lists of them, not {len(images)}")
    kinds = ["llm" if some is None else "vision" for some in images]
    contexts = [None if some is None else _pictured(None, some, name) for some in images]
    return _many(name, kinds, prompts, contexts)


def _pictured(context, images, name):
    """Return the context of a question about pictures, which is a call of another kind."""
    images = [images] if isinstance(images, dict) else images
    if not isinstance(images, (list, tuple)):
        raise TypeError(f"images of {name} must be a list of handles, not {type(images).__name__}")
    if context is not None and not isinstance(context, (str, list, tuple, dict)):
        raise TypeError(f"the context of {name} must be text, a list or a dict, not {type(context).__name__}")
    return {"images": list(images), "context": context}


def rlm_query(query, context=None):
    """Ask a child run, which has a REPL of its own over `context`."""
    return _one("rlm_query", "rlm", query, context)


def rlm_query_batched(queries, contexts=None):
    """Ask many child runs at once. Queries may also be (query, context) pairs, or dicts of the two."""
    queries = _listed(queries, "rlm_query_batched")
    if contexts is None:
        pairs = [_pair(query) for query in queries]
        queries, contexts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    elif isinstance(contexts, (str, dict)):
        contexts = [contexts] * len(queries)
    if len(contexts) != len(queries):
        raise ValueError(f"rlm_query_batched got {len(queries)} queries and {len(contexts)} contexts")
    return _many("rlm_query_batched", ["rlm"] * len(queries), queries, contexts)


def _pair(query):
    if isinstance(query, (list, tuple)) and len(query) == 2:
        return query
    if isinstance(query, dict) and "query" in query:
        return (query["query"], query.get("context"))
    return (query, None)


def recursive_lm(query, context=None):
    """Do what `rlm_query` does."""
    return _one("recursive_lm", "rlm", query, context)


def budget():
    """Return what is left of the run's budget, as a dict."""
    return _one("budget", "budget", "", None)
