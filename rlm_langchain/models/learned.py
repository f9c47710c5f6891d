"""Learns which parameters models do not accept, how many tokens they can read, and how far they exceed estimates.

This is known for as long as the run is in this process. Nothing is stored, because a server may be replaced.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rlm_langchain.models.provider_errors import ProviderError, window_in
from rlm_langchain.types import Usage

CAP_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")
"""Names of the output limit in requests."""
OTHER_CAP_NAME: Mapping[str, str] = MappingProxyType(
    {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
)
"""The other name under which a server may know the limit."""
PARAMETERS = (
    *CAP_NAMES,
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop_sequences",
    "stop",
    "stream_options",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "verbosity",
    "seed",
    "parallel_tool_calls",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "top_logprobs",
    "logprobs",
    "logit_bias",
    "user",
    "response_format",
    "store",
    "metadata",
    "service_tier",
    "prompt_cache_key",
    "usage",
    "cache_control",
    "tool_choice",
    "tools",
)
"""Parameters that servers are known to refuse."""
NEVER_DROPPED = frozenset({"tools", "tool_choice", "response_format", "cache_control"})
"""Parameters that change the reply, or do not belong to the request itself. They are never left out."""
_REFUSAL = re.compile(
    r"unsupported|not (supported|recogni[sz]ed)|n[o']t support|no support|unrecogni[sz]ed|unknown|unexpected"
    r"|not (allowed"
    r"|permitted|available|accepted)"
    r"|extra (inputs|fields|forbidden)|extra_forbidden|deprecated|cannot (be used|find field)|can ?not be (set"
    r"|specified)"
    r"|n[o']t (accept|take)|only (the )?(default|allowed)|invalid (parameter|argument|field)|no longer|removed"
    r"|additional propert|must not be",
    re.IGNORECASE,
)
_VALUE_OUT_OF_RANGE = re.compile(
    r"too (large|big|high|small|low)|at (most|least)|between|greater than|less than", re.IGNORECASE
)
RETRY_SHARE = 0.8
"""After a prompt was too long: the share of its tokens, by our count, that the next prompt may have."""
MIN_CAP = 256
"""Smallest useful cap on a reply, in tokens. If there is less room, the prompt has to be shorter."""
MIN_OUTPUT = 1_024
"""Tokens of output that are requested even if the window seems to have no room for them, because our count of the
prompt may be too high."""
_MENTIONS_CAP = re.compile(
    r"max(imum)?[_ ]?((completion|output|new)[_ ]?)?tokens|num_predict|completion|in the output"
    r"|output (tokens|length)",
    re.IGNORECASE,
)
_OUT_OF_RANGE = re.compile(
    r"too (large|big|high)|at most|between|greater|less than|lower than|exceed|range|[<>]|maximum (value|allowed)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Overrun:
    """The excess of a model over the reservations of its calls. Its next calls reserve that much more."""

    input: int = 0
    """Input tokens beyond our upper bound. Some providers add text of their own."""
    output: int = 0
    """Most output tokens of a reply."""
    price: float = 1.0
    """Highest ratio between what it billed and what its tokens cost at the known price."""
    cost: float = 0.0
    """Highest cost, in dollars, of a call that should have been free."""

    def tokens(self, wanted: Usage) -> Usage:
        """Return a reservation with as many tokens as this model has used before."""
        return wanted._replace(input=wanted.input + self.input, output=max(wanted.output, self.output))

    def dollars(self, cost: float | None) -> float | None:
        """Return the cost that this model may bill for a call with this price."""
        return None if cost is None else max(cost * self.price, self.cost)

    def after(self, used: Usage, prompt: int, wanted: Usage, expected: float | None) -> Overrun:
        """Return the overrun after a call that had reserved `wanted`, for a prompt of at most `prompt` tokens, and
        should have cost `expected` dollars."""
        billed = used.cost if used.cost is not None and expected is not None else 0.0
        return Overrun(
            max(self.input, used.input - prompt),
            max(self.output, used.output if used.output > wanted.output else 0),
            max(self.price, billed / expected if expected else 1.0),
            max(self.cost, billed if expected == 0 else 0.0),
        )


@dataclass(slots=True)
class ModelFacts:
    """Facts about one model, learned from its provider's replies and errors."""

    renamed: dict[str, str | None] = field(default_factory=dict)
    """Parameters that are sent under another name, or not at all (None)."""
    window: int | None = None
    """Tokens that the model can read, by our count, if its provider has refused a prompt as too long."""
    context: int | None = None
    """Tokens that the model can read and write in one call, if its provider has refused their sum as too large."""
    cap: int | None = None
    """Highest accepted cap on the output, if the provider has refused a higher one."""
    overrun: Overrun = Overrun()
    """How far its calls have exceeded their reservations."""

    def most_output(self, most: int, window: int | None, prompt: int = 0) -> int:
        """Return the cap on the output after a prompt of `prompt` tokens: at most `most`, and what the window
        leaves."""
        caps = [most] if self.cap is None else [most, self.cap]
        window = self.context or window
        return min(caps if window is None else [*caps, max(MIN_OUTPUT, window - prompt)])


@dataclass(slots=True)
class Learned:
    """Facts that a run has learned about its models, and notes about them that are still to be reported."""

    _facts: dict[str, ModelFacts] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)
    _reported: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, model: str) -> ModelFacts:
        """Return the facts about the model with this name."""
        with self._lock:
            return self._facts.setdefault(model, ModelFacts())

    def add_usage(self, model: str, used: Usage, prompt: int, wanted: Usage, expected: float | None) -> None:
        """Record whether a call exceeded its reservation. The values are those of `Overrun.after`."""
        facts = self.of(model)
        with self._lock:
            facts.overrun = facts.overrun.after(used, prompt, wanted, expected)

    def add_note(self, note: str) -> None:
        """Add a note for the reader of the trajectory. Each note is reported once."""
        with self._lock:
            if note not in self._reported:
                self._reported.add(note)
                self._notes.append(note)

    def take_notes(self) -> list[str]:
        """Return the notes that are still to be reported, and remove them."""
        with self._lock:
            notes, self._notes = self._notes, []
            return notes

    def too_long(self, model: str, tokens: int, words: str) -> int:
        """Record that a prompt of `tokens`, by our count, was too long. Return how many the model can read.

        The provider may count differently: if the window that it states is not below our count, it is ignored.
        """
        facts, said = self.of(model), window_in(words)
        with self._lock:
            reads = said if said is not None and said < tokens else int(tokens * RETRY_SHARE)
            facts.window = reads if facts.window is None else min(facts.window, reads)
        stated = f" Its provider says that it reads {said:,}." if said is not None else ""
        self.add_note(
            f"a prompt of about {tokens:,} tokens was too long for {model}.{stated} Its prompts are cut to fit."
        )
        return facts.window

    def cap_refused(self, model: str, fault: ProviderError, cap: int, prompt: int) -> int | None:
        """Record that this cap on the output was refused after a prompt of `prompt` tokens, by our count. Return a
        lower cap, or None if the error has another cause."""
        facts, lower = self.of(model), lower_cap(fault, cap, prompt)
        if lower is None:
            return None
        with self._lock:
            if fault.code != "too_long":
                facts.cap = lower if facts.cap is None else min(facts.cap, lower)
            elif (said := window_in(fault.words)) is not None:
                facts.context = said
        self.add_note(
            f"{model} has no room for {cap:,} tokens of output: its replies are capped at what it accepts"
        )
        return lower

    def window(self, model: str, listed: int | None) -> int | None:
        """Return how many tokens a model can read: as learned from its provider, or else `listed`."""
        return self.of(model).window or listed


def lower_cap(fault: ProviderError, cap: int, prompt: int) -> int | None:
    """Return a cap on the output that the provider would accept, if its error is about `cap`.

    `prompt` is our count of the prompt's tokens. None: the error has another cause, or there is no room for a
    useful reply.
    """
    words = fault.words
    numbers = [int(re.sub(r"\D", "", number)) for number in re.findall(r"\d[\d,_]{0,11}", words)]
    if fault.code == "too_long":
        lower = _room_for_output(words, numbers, cap, prompt)
    elif fault.code == "bad_request" and _MENTIONS_CAP.search(words) and _OUT_OF_RANGE.search(words):
        lower = max((number for number in numbers if number < cap), default=0)
    else:
        return None
    return lower if MIN_CAP <= lower < cap else None


def _room_for_output(words: str, numbers: list[int], cap: int, prompt: int) -> int:
    """Return how many tokens of the window are left for the output, from the numbers in a provider's error: the
    window, and the prompt or the sum of prompt and cap."""
    window, names_cap = window_in(words), cap in numbers
    if window is None:
        return cap // 2 if _MENTIONS_CAP.search(words) else 0
    if names_cap:
        numbers.remove(cap)
    more = [number for number in numbers if number > window]
    both = [number for number in more if names_cap or abs(number - cap - prompt) < abs(number - prompt)]
    fitting = [number for number in numbers if number < window < number + cap]
    if both:
        return window - (max(both) - cap)
    if more:
        return 0  # the prompt alone is too long
    if not names_cap or not fitting:
        return window - prompt
    return window - max(fitting, key=lambda number: (number != cap, number))  # the cap may be named twice


def refused_parameter(fault: ProviderError) -> str | None:
    """Return the parameter that a provider refuses, from its error; None if the error has another cause."""
    if fault.code != "bad_request" or not _REFUSAL.search(fault.words) or _is_about_its_value(fault.words):
        return None
    found = [(match.start(), name) for name in PARAMETERS if (match := _mention_pattern(name).search(fault.words))]
    return min(found)[1] if found else None


def _is_about_its_value(words: str) -> bool:
    """Return whether only the value was refused, because it is out of range."""
    return bool(_VALUE_OUT_OF_RANGE.search(words)) and not re.search(
        r"unsupported|not (supported|recogni[sz]ed)|only the default", words, re.I
    )


def _mention_pattern(name: str) -> re.Pattern[str]:
    """Return a pattern that matches where a text names a parameter. An English word must be marked as a name."""
    if "_" in name:
        return re.compile(rf"(?<![\w-]){name}(?![\w-])")
    return re.compile(
        rf"['\"`]{name}(?:\.\w+)?['\"`]|(?<![\w-]){name}\s*:\s|(?:parameters?|arguments?|fields?|option|key"
        rf"|property|supplied|"
        rf"inputs?)\s*:?\s*{name}(?![\w-])|(?<![\w-]){name}(?![\w-]) (?:parameter|argument|field)\b"
        rf"|:\s*{name}\.?\s*$|\.{name}\b"
    )
