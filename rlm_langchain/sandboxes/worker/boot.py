# mypy: ignore-errors
"""The first lines that run in the confined process: read our modules from standard input and start them.

Modules come compiled through the pipe, because opening a file costs about 0.2 ms under the supervisor, and the
modules that every session needs would have hundreds opened. Ours come first. Python's own follow after the
first frame, and are read when one of them is imported, or when there is nothing else to do.
"""

import os
import sys
from marshal import dumps, loads


class Bundled:
    """Imports modules from the pipe. Ours get builtins that cells cannot change."""

    def __init__(self, fd=0):
        self.fd = fd
        self.after = {}
        """Functions to call after a module has been loaded, by its name."""
        self._modules, self._coming = self._take()
        self._builtins = dict(vars(sys.modules["builtins"]))
        self._external = sys.modules["_frozen_importlib_external"]

    def complete(self):
        """Read the modules that are still in the pipe."""
        if self._coming:
            self._coming = ()
            self._modules.update(self._take())

    def find_spec(self, name, path=None, target=None):
        """Return a spec for modules from the pipe, and for modules that must be changed after loading."""
        if name in self._coming:
            self.complete()
        if name in self._modules:
            origin, package, _ = self._modules[name]
            make = self._external.spec_from_file_location
            return make(name, origin, loader=self, submodule_search_locations=package)
        if name in self.after:
            return self._from_file(name, path)
        return None

    def create_module(self, spec):
        """Create an ordinary module."""

    def exec_module(self, module):
        """Run the code of a module."""
        name = module.__name__
        if name.startswith("rlm_langchain"):
            module.__dict__["__builtins__"] = self._builtins
        exec(self.get_code(name), module.__dict__)  # noqa: S102 - the module's own code
        self.after.get(name, id)(module)

    def get_code(self, name):
        """Return the code of a module."""
        return loads(self._modules[name][2])  # noqa: S302 - it comes from the host

    def _from_file(self, name, path):
        """Return a spec that makes this the loader of a module in a file."""
        spec = self._external.PathFinder.find_spec(name, path)
        if spec is not None:
            code = dumps(spec.loader.get_code(name))
            self._modules[name] = (spec.origin, spec.submodule_search_locations, code)
            spec.loader = self
        return spec

    def _take(self):
        return loads(self._read(int.from_bytes(self._read(4), "big")))  # noqa: S302

    def _read(self, size):
        parts = []
        while size:
            part = os.read(self.fd, min(size, 1 << 20))
            if not part:
                os._exit(3)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


if __name__ == "__main__":
    bundled = Bundled()
    sys.meta_path.insert(2, bundled)  # behind what is built in, before what is in files
    from rlm_langchain.sandboxes.worker.main import main

    main(bundled)
