"""`SimpleNamespace` of `types`."""

# ruff: noqa
# mypy: ignore-errors


class SimpleNamespace:
    """Attributes by keyword."""

    def __init__(self, **names):
        self._names = list(names)
        for name, value in names.items():
            setattr(self, name, value)

    def __repr__(self):
        return "namespace(" + ", ".join([f"{name}={getattr(self, name)!r}" for name in self._names]) + ")"
