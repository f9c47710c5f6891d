"""A custom sandbox: a built-in one that logs every cell it runs."""

# the model writes:
# FINAL(context[:7])

import argparse
from pathlib import Path

from rlm_langchain import create_rlm
from rlm_langchain.sandboxes.monty import MontySandbox


class LoggedSession:
    def __init__(self, inner):
        self.inner = inner
        self.resume, self.close = inner.resume, inner.close

    def run(self, code):
        print("runs:", code.strip())
        return self.inner.run(code)


class LoggedSandbox(MontySandbox):
    name = "logged"

    def open(self, *given):
        return LoggedSession(super().open(*given))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("book", nargs="?", default="book.txt", type=Path)
parser.add_argument("--model", default="openai:gpt-4o")
args = parser.parse_args()

rlm = create_rlm(root_model=args.model, sandbox=LoggedSandbox())
print(rlm.completion("What are the first words?", context=args.book)["answer"])
