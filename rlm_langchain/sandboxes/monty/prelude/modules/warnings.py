"""There are no warnings here."""

# ruff: noqa
# mypy: ignore-errors


def filterwarnings(*args, **kwargs):
    pass


def simplefilter(*args, **kwargs):
    pass


def warn(message, *args, **kwargs):
    print("warning:", message)
