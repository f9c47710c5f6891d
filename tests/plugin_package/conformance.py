"""What `pytest conformance.py` proves of the sandbox in this package, once it is installed.

Not called `test_...`: the tests of rlm_langchain install the package and run this in a process of its own.
"""

import pytest
from rlm_example.screened import ScreenedSandbox

from rlm_langchain.testing.conformance import SandboxConformance
from rlm_langchain.testing.hostile.suite import HostileConformance


class TestScreened(SandboxConformance):
    lazy = False
    cpython = False

    @pytest.fixture
    def sandbox(self):
        return ScreenedSandbox()


class TestScreenedAgainstHostilePrograms(HostileConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls):
        return ScreenedSandbox()
