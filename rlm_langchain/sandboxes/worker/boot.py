"""The first lines that run in the confined process: take the bundle from standard input and start it.

Modules come compiled through the pipe, because opening a file costs about 0.2 ms under the supervisor and
importing the modules that every session needs would open a few hundred.
"""

# mypy: ignore-errors

import os
import sys
from marshal import loads  # what it loads comes from the host


def _take(size):
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 16))
        if not part:
            os._exit(3)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Bundled:
    """Imports modules from the bundle. Our own get builtins that no cell can change under them."""

    def __init__(self, modules):
        self._modules = modules
        self._builtins = dict(vars(sys.modules["builtins"]))
        self._spec = sys.modules["_frozen_importlib_external"].spec_from_file_location
        self.after = {}
        """What to do with a module once it has been loaded, by its name."""

    def find_spec(self, name, path=None, target=None):
        """A spec for what the bundle holds."""
        if name not in self._modules:
            return None
        origin, package, _ = self._modules[name]
        return self._spec(name, origin, loader=self, submodule_search_locations=package)

    def create_module(self, spec):
        """An ordinary module."""

    def exec_module(self, module):
        """Run the code of a module."""
        if module.__name__.startswith("rlm_langchain"):
            module.__dict__["__builtins__"] = self._builtins
        exec(loads(self._modules[module.__name__][2]), module.__dict__)  # noqa: S102, S302
        self.after.get(module.__name__, id)(module)


if __name__ == "__main__":
    bundled = Bundled(loads(_take(int.from_bytes(_take(4), "big"))))  # noqa: S302
    sys.meta_path.insert(0, bundled)
    from rlm_langchain.sandboxes.worker.main import main

    main(bundled.after)
