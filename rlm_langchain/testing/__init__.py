"""What our own tests stand on, for authors of plug-ins too."""

from rlm_langchain.testing.models import FunctionModel, script

__all__ = ["FunctionModel", "script"]
