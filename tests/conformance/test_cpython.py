"""The cpython sandbox keeps the contract."""

import sys

import pytest

from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.testing.conformance import SandboxConformance
from rlm_langchain.testing.hostile.suite import HostileConformance

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)


class TestCPython(SandboxConformance):
    @pytest.fixture
    def sandbox(self):
        return CPythonSandbox()


class TestCPythonAgainstHostilePrograms(HostileConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls):
        return CPythonSandbox()
