"""Generated support chats. The text states in words how each chat ended, never by a label.

Each outcome has several wordings, and the openings mention the same topics, so counting keywords gives
wrong results.
"""

from __future__ import annotations

import random
from itertools import combinations
from typing import NamedTuple

from rlm_langchain.bench.items import Family, Question
from rlm_langchain.bench.tasks.texts import GENERATED

ENDINGS = {
    "the customer gets the money back": (
        "The amount is on its way to your card.",
        "I have sent the full sum back to the account you paid from.",
        "You will see what you paid again on your next statement.",
    ),
    "a replacement is sent": (
        "A new one leaves our warehouse tonight.",
        "We are shipping you another unit, free of charge.",
        "I have put a fresh one in the post for you.",
    ),
    "the contract is cancelled": (
        "Your plan ends on Friday and will not renew.",
        "I have closed the subscription as you wished.",
        "Nothing further will be charged: the contract is over.",
    ),
    "nothing is decided yet": (
        "I have to ask a colleague and will write to you tomorrow.",
        "Our engineers are still looking into it.",
        "Please send me the serial number, then I can go on.",
    ),
}
OPENINGS = (
    "I would like a refund for my {product}.",
    "My {product} stopped working and I want a replacement.",
    "Please cancel my order of the {product}.",
    "I was charged twice for the {product}.",
    "The {product} arrived damaged, what can you do?",
    "How do I set up the {product}?",
)
PRODUCTS = ("lamp", "router", "blender", "headset", "kettle", "printer", "scale", "charger")
REPLIES = ("Let me look that up for you.", "I am sorry to hear that.", "Thank you for your patience.")
AGENTS = ("Ines", "Marko", "Priya", "Tom", "Yara")
CHARS_PER_CUSTOMER = 1_500
MOST_CUSTOMERS = 70


class Chat(NamedTuple):
    """A chat between a customer and an agent."""

    number: int
    customer: int
    ending: str
    text: str


def generate(rng: random.Random, chars: int, customers: int) -> list[Chat]:
    """Return chats with about this many characters in total."""
    found, size = list[Chat](), 0
    while True:
        number, customer = len(found) + 1, rng.randint(1, customers)
        ending, agent = rng.choice(list(ENDINGS)), rng.choice(AGENTS)
        opening = rng.choice(OPENINGS).format(product=rng.choice(PRODUCTS))
        text = (
            f"Chat {number}, customer {customer}\nCustomer: {opening}\n{agent}: {rng.choice(REPLIES)}\n"
            f"{agent}: {rng.choice(ENDINGS[ending])}\n"
        )
        size += len(text) + 1
        if size > chars:
            return found
        found.append(Chat(number, customer, ending, text))


def _as_text(chats: list[Chat]) -> str:
    return "\n".join(chat.text for chat in chats)


def _customers(chars: int) -> int:
    return max(4, min(MOST_CUSTOMERS, chars // CHARS_PER_CUSTOMER))


def count_endings(rng: random.Random, chars: int) -> Question:
    """Ask how many chats had a certain outcome."""
    chats, ending = generate(rng, chars, _customers(chars)), rng.choice(list(ENDINGS))
    count = sum(chat.ending == ending for chat in chats)
    text = (
        f"The text holds support chats. In how many of them is this the outcome: {ending}? What the customer asks "
        "for does not count, only what the agent says in the end. Give your final answer in the form "
        "'Answer: number'."
    )
    return Question(text, _as_text(chats), (f"[{count}]",), "oolong_numeric")


def pairs_of_customers(rng: random.Random, chars: int) -> Question:
    """Ask for all pairs of customers with a certain number of chats that had an outcome, as in OOLONG-Pairs."""
    chats = generate(rng, chars, _customers(chars))
    times = {
        ending: {
            customer: sum(chat.customer == customer and chat.ending == ending for chat in chats)
            for customer in sorted({chat.customer for chat in chats})
        }
        for ending in ENDINGS
    }
    asked = [(ending, count) for ending, of in times.items() for count in {n for n in of.values() if n > 0}]
    several = {one: [c for c, n in times[one[0]].items() if n == one[1]] for one in asked}
    fitting = sorted(one for one, customers in several.items() if len(customers) > 1) or asked[:1]
    ending, count = rng.choice(fitting)
    pairs = combinations(several[ending, count], 2)
    text = (
        f"The text holds support chats. List all pairs of customer numbers (no duplicate pairs, the lower number "
        f"first) such that both customers have exactly {count} chat(s) with this outcome: {ending}. What the "
        "customer asks for does not count, only what the agent says in the end. Answer with one pair per line, as "
        "(number, number)."
    )
    return Question(text, _as_text(chats), tuple(f"({a}, {b})" for a, b in pairs) or ("",), "pairs_f1")


FAMILIES = (
    Family("chats_count", "how many support chats ended in a certain way", GENERATED, count_endings),
    Family("chats_pairs", "all pairs of customers with equally many such chats", GENERATED, pairs_of_customers),
)
