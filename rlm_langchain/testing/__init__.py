"""Scripted models and test suites for sandboxes, for this project and for authors of plug-ins. The suites need
pytest.
"""

from typing import TYPE_CHECKING, Any

from rlm_langchain.testing.models import FunctionModel, script

if TYPE_CHECKING:
    from rlm_langchain.testing.conformance import SandboxConformance
    from rlm_langchain.testing.hostile.suite import HostileConformance

__all__ = ["FunctionModel", "HostileConformance", "SandboxConformance", "script"]


def __getattr__(name: str) -> Any:
    if name in ("HostileConformance", "SandboxConformance"):
        from rlm_langchain.testing import conformance

        return getattr(conformance, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
