"""What can be pickled of an object that holds a model or documents of the user's own."""

from __future__ import annotations

import pickle
from typing import Any

from rlm_langchain.errors import InputError


def pickled_with(state: dict[str, Any], what: str, instead: str) -> dict[str, Any]:
    """The state of an object, as it is. Raises `InputError` when a part of it cannot be pickled."""
    for name, value in state.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            kind = type(value).__name__
            raise InputError(
                f"{what} cannot be pickled, since its {name} ({kind}) cannot ({type(error).__name__}): {instead}"
            ) from error
    return state
