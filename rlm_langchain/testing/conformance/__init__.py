"""The contract of sandboxes as a pytest suite: subclass it, return your sandbox from a fixture, run pytest.

    from rlm_langchain.testing.conformance import SandboxConformance

    class TestMySandbox(SandboxConformance):
        @pytest.fixture
        def sandbox(self):
            return MySandbox()

A sandbox that passes can be published under the entry point group `rlm_langchain.sandboxes`, and then be used
by name everywhere. Three class attributes say which parts of Python a sandbox supports; all other tests are
required:

`lambdas`   calls can suspend inside lambdas that Python's own functions call (`map`, `sorted(key=...)`)
`lazy`      a text above `Limits.loaded` is read lazily, in less memory than its size
`cpython`   the whole language: inheritance, `del`, generators, the standard library

The suite needs pytest and nothing else. `HostileConformance` runs programs that attack the sandbox.
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
