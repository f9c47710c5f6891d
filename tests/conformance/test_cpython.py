"""The cpython sandbox keeps the contract."""

import pytest

from rlm_langchain.sandboxes.cpython import CPythonSandbox
from rlm_langchain.testing.conformance import SandboxConformance


class TestCPython(SandboxConformance):
    @pytest.fixture
    def sandbox(self):
        return CPythonSandbox()
