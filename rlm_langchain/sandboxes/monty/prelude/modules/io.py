"""Text in memory, as `io.StringIO`."""

# ruff: noqa
# mypy: ignore-errors


class StringIO:
    """A file of text in memory."""

    def __init__(self, initial_value="", newline=None):
        self._text = initial_value or ""
        self._at = 0
        self.closed = False

    def write(self, text):
        self._text = self._text[: self._at] + text + self._text[self._at + len(text) :]
        self._at += len(text)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def getvalue(self):
        return self._text

    def read(self, size=-1):
        end = len(self._text) if size is None or size < 0 else min(len(self._text), self._at + size)
        text = self._text[self._at : end]
        self._at = end
        return text

    def readline(self, size=-1):
        found = self._text.find("\n", self._at)
        end = len(self._text) if found < 0 else found + 1
        text = self._text[self._at : end]
        self._at = end
        return text

    def readlines(self, hint=-1):
        return self.read().splitlines(True)

    def seek(self, offset, whence=0):
        self._at = offset + (0, self._at, len(self._text))[whence]
        return self._at

    def tell(self):
        return self._at

    def truncate(self, size=None):
        self._text = self._text[: self._at if size is None else size]
        return len(self._text)

    def flush(self):
        pass

    def close(self):
        self.closed = True

    def __iter__(self):
        return iter(self.readlines())

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
