"""A function of the REPL that runs in the host: what a word means, by a dictionary outside of the sandbox."""

from langchain_core.tools import ToolException

from rlm_langchain import HostFunction

SENSES = {"log": ["a piece of wood", "a record of events"], "bank": ["a house for money", "the side of a river"]}
"""Stands for a database or a service of yours."""


async def senses(word: str, most: int = 10) -> list[str]:
    """Look a word up. The arguments come from code that a model wrote: check them."""
    if not isinstance(word, str) or not isinstance(most, int):
        raise ToolException("give a word, and a whole number")
    if word not in SENSES:
        raise ToolException(f"the dictionary has no word {word[:40]!r}")
    return SENSES[word][: max(0, most)]


word_senses = HostFunction(
    name="word_senses",
    signature="word: str, most: int = 10",
    guidance="What a word may mean: a list of texts. Raises LLMError for a word that the dictionary does not have.",
    function=senses,
    usd=0.001,
)
