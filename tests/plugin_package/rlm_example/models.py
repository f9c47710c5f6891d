"""A provider of models: `example:name` is a model at the compatible server of `EXAMPLE_URL`."""

from __future__ import annotations

import os

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from rlm_langchain.models.providers import Provider


def chat_model(name: str) -> ChatOpenAI:
    """The chat model of this name. Nothing is sent here."""
    return ChatOpenAI(
        model=name, base_url=os.environ["EXAMPLE_URL"], api_key=SecretStr(os.environ["EXAMPLE_API_KEY"])
    )


example = Provider(
    chat_model,
    key="EXAMPLE_API_KEY",
    prices="openai",
    ways_out={"connection": "EXAMPLE_URL says where it is"},
)
