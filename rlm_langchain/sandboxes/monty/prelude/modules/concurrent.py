"""`concurrent.futures` without threads: each call is made when it is submitted. Use `llm_query_batched` for
parallel calls.
"""

# ruff: noqa
# mypy: ignore-errors


class Future:
    """A call that has been made."""

    def __init__(self, value, error):
        self._value, self._error = value, error

    def result(self, timeout=None):
        if self._error is not None:
            raise self._error
        return self._value

    def exception(self, timeout=None):
        return self._error

    def done(self):
        return True

    def cancel(self):
        return False

    def add_done_callback(self, fn):
        fn(self)


class ThreadPoolExecutor:
    """Makes calls one after the other."""

    def __init__(self, max_workers=None, *args, **kwargs):
        pass

    def submit(self, fn, *args, **kwargs):
        try:
            return Future(fn(*args, **kwargs), None)
        except Exception as error:
            return Future(None, error)

    def map(self, fn, *iterables, timeout=None, chunksize=1):
        return iter([fn(*items) for items in zip(*iterables)])

    def shutdown(self, wait=True, cancel_futures=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return False


class _Futures:
    """The module."""


futures = _Futures()
futures.ThreadPoolExecutor = ThreadPoolExecutor
futures.ProcessPoolExecutor = ThreadPoolExecutor
futures.Future = Future
futures.as_completed = lambda fs, timeout=None: iter(list(fs))
futures.wait = lambda fs, timeout=None, return_when=None: (set(fs), set())
