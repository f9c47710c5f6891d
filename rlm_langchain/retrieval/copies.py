"""Checks that objects that hold a user's model or documents can be pickled."""

from __future__ import annotations

import pickle
from typing import Any

from rlm_langchain.errors import InputError


def picklable_state(state: dict[str, Any], what: str, instead: str) -> dict[str, Any]:
    """Return the state of an object unchanged. Raises `InputError` if a part of it cannot be pickled.

    `what` names the object in the message, `instead` says what to do.
    """
    for name, value in state.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            kind = type(value).__name__
            raise InputError(
                f"{what} cannot be pickled, because its {name} ({kind}) cannot ({type(error).__name__}): {instead}"
            ) from error
    return state
