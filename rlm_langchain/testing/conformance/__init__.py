"""What every sandbox must do, as a pytest suite: subclass it, give it your sandbox, run pytest.

    from rlm_langchain.testing.conformance import SandboxConformance

    class TestMySandbox(SandboxConformance):
        @pytest.fixture
        def sandbox(self):
            return MySandbox()

A sandbox that passes can be used by name everywhere: offer it by the entry point group
`rlm_langchain.sandboxes`. Three switches, class attributes, say which parts of Python a sandbox has;
everything else is required:

`lambdas`   calls suspend inside lambdas that Python's own functions call (`map`, `sorted(key=...)`)
`lazy`      a text over `Limits.loaded` is read lazily, in less memory than it has bytes
`cpython`   the whole language: inheritance, `del`, generators, the standard library

The suite needs pytest and nothing else. `HostileConformance` runs programs that attack.
"""

import pytest

for part in (
    "state",
    "calls",
    "names",
    "answers",
    "values",
    "contexts",
    "limits",
    "lifecycle",
    "determinism",
    "hostile",
):
    pytest.register_assert_rewrite(f"{__name__}.{part}")

from rlm_langchain.testing.conformance.answers import AnswerClauses  # noqa: E402
from rlm_langchain.testing.conformance.calls import CallClauses  # noqa: E402
from rlm_langchain.testing.conformance.contexts import ContextClauses  # noqa: E402
from rlm_langchain.testing.conformance.determinism import DeterminismClauses  # noqa: E402
from rlm_langchain.testing.conformance.lifecycle import LifecycleClauses  # noqa: E402
from rlm_langchain.testing.conformance.limits import LimitClauses  # noqa: E402
from rlm_langchain.testing.conformance.names import NameClauses  # noqa: E402
from rlm_langchain.testing.conformance.pools import PoolClauses  # noqa: E402
from rlm_langchain.testing.conformance.state import StateClauses  # noqa: E402
from rlm_langchain.testing.conformance.values import ValueClauses  # noqa: E402
from rlm_langchain.testing.hostile.suite import HostileConformance  # noqa: E402

__all__ = ["HostileConformance", "SandboxConformance"]


class SandboxConformance(
    StateClauses,
    CallClauses,
    NameClauses,
    AnswerClauses,
    ValueClauses,
    ContextClauses,
    LimitClauses,
    LifecycleClauses,
    DeterminismClauses,
    PoolClauses,
):
    """Every clause of the contract. Subclass it with a `sandbox` fixture."""
