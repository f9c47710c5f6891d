"""`make demo`: a small local model answers a question about the whole Python standard library.

The library has about three million tokens; the model can read sixteen thousand at once. The right answer is counted
without a model and shown beside that of the model. The exit code is 0 only if they are equal.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from rlm_langchain.cli import run_safely
from rlm_langchain.records import RLMOutput

WORD = "lambda"
QUESTION = f"Which file contains the string '{WORD}' most often?"
LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")
"""Folders with other packages, or with tests of the library."""


def main() -> int:
    """Ask the model, compare its answer, and return the exit code."""
    from rlm_langchain.cli.commands import inputs
    from rlm_langchain.cli.rendering.summary import finish
    from rlm_langchain.cli.session.run import watch

    with tempfile.TemporaryDirectory(prefix="rlm-demo-") as folder, inputs.preparing():
        library = copied(Path(sysconfig.get_path("stdlib")), Path(folder) / "library")
        print(
            f"The standard library of Python {sysconfig.get_python_version()}, and a model of 1.5 billion", end=""
        )
        print(" parameters on this machine. The first time, the model is downloaded (1.1 GB).", flush=True)
        rlm = inputs.build(root_model="local")
        ended = watch(rlm, {"query": QUESTION, "context": inputs.context([str(library)], strict=False)})
        truth = most_often(WORD, library)
    finish(ended, json=False, quiet=False)
    return compare(ended.output, truth)


def copied(source: Path, target: Path) -> Path:
    """Copy the Python files of a library to a folder, and return the folder."""
    for path in sorted(source.rglob("*.py")):
        place = path.relative_to(source)
        if not set(place.parts) & set(LEFT_OUT):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)
    return target


def most_often(word: str, folder: Path) -> list[str]:
    """Return the file that contains a word most often, or several with equal counts, counted without a model."""
    files = (path for path in folder.rglob("*") if path.is_file())
    counts = {str(path.relative_to(folder)): path.read_text("utf-8", "replace").count(word) for path in files}
    most = max(counts.values())
    return sorted(name for name, count in counts.items() if count == most)


def compare(output: RLMOutput, truth: list[str]) -> int:
    """Print whether the answer is right. Return 0 if it is, else 1."""
    right = str(output["answer"]).strip(" .'\"") in truth
    print(f"\ncounted without a model: {' or '.join(truth)}")
    print(
        "The answer is right."
        if right
        else "The answer is wrong, which happens with a small model. Try `--model openai/gpt-4o`."
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(run_safely(main))
