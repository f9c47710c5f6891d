"""Monty against the contract of every sandbox, and against programs that attack."""

from __future__ import annotations

import pytest

from rlm_langchain.protocols import Sandbox
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.testing.conformance import SandboxConformance
from rlm_langchain.testing.hostile.suite import HostileConformance


class TestMonty(SandboxConformance):
    """All clauses but those of all of Python, and of texts longer than memory."""

    lazy = False
    cpython = False

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return MontySandbox()


class TestMontyAgainstHostilePrograms(HostileConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls) -> Sandbox:
        return MontySandbox()
