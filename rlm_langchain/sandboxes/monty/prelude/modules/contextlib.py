"""`suppress` and `nullcontext` of `contextlib`."""

# ruff: noqa
# mypy: ignore-errors


class suppress:
    """Ends quietly at the exceptions named."""

    def __init__(self, *exceptions):
        self._exceptions = exceptions

    def __enter__(self):
        return None

    def __exit__(self, kind, error, trace):
        return error is not None and isinstance(error, self._exceptions)


class nullcontext:
    """Does nothing."""

    def __init__(self, enter_result=None):
        self._result = enter_result

    def __enter__(self):
        return self._result

    def __exit__(self, kind, error, trace):
        return False


class closing:
    """Closes at the end."""

    def __init__(self, thing):
        self._thing = thing

    def __enter__(self):
        return self._thing

    def __exit__(self, kind, error, trace):
        self._thing.close()
