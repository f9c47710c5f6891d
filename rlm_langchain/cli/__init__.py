"""The command `rlm`: a person's way in. The only place that imports typer and rich."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path


def main() -> None:
    """Be the command: run what this process was given, and end it."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries tell programmers is noise to who asks a question
    if sys.stderr is None:  # closed by whoever began this process, as the others may be
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        print("rlm: standard output is closed: an answer has to go somewhere", file=sys.stderr)
        sys.exit(2)
    code = run(sys.argv[1:])
    gc.freeze()  # a last collection at exit would free what is gone anyway, and take half a second
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    from rlm_langchain.cli.app import app

    return sentences(lambda: app(list(arguments), prog_name="rlm"))


def sentences(command: Callable[[], int | None]) -> int:
    """Run a program; its exit code. A mistake of the user is a sentence, never a traceback."""
    from rlm_langchain.cli import streams
    from rlm_langchain.context.sanitize import visible
    from rlm_langchain.errors import ConfigurationError, InputError, RLMError

    streams.prepare()
    try:
        code = _code(command)
        if told := streams.escaped():
            print(f"rlm: {told}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return 130
    except RLMError as error:
        # LangGraph notes in which of its tasks it was: that is nothing to a user.
        notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith("During task ")]
        print("\n".join([f"rlm: {visible(str(error))}", *notes]), file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError | InputError) else 1
    except OSError as error:
        if _is_of_output(error):
            return _output_gone(error)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        where = f" {visible(str(error.filename))}" if error.filename else ""
        print(
            f"rlm: a file{where} cannot be written ({error.strerror}): make room, or set RLM_HOME", file=sys.stderr
        )
        return 1


def _is_of_output(error: OSError) -> bool:
    """Whether it was raised where something is printed: by this command, or by what it prints with."""
    where = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return error.filename is None and bool({"cli", "typer", "rich"} & set(Path(where[-1]).parts[-4:]))


def _output_gone(error: OSError) -> int:
    from rlm_langchain.cli.rendering.summary import silence

    silence()
    if error.errno == errno.EPIPE:  # whoever reads no further needs no sentence
        return 1
    print(f"rlm: standard output cannot be written ({error.strerror}): write elsewhere", file=sys.stderr)
    return 2


def _code(command: Callable[[], int | None]) -> int:
    """What a program ends with, when all that it printed has been written."""
    try:
        code: object = command()
    except SystemExit as end:
        code = end.code
    if not sys.stdout.closed:  # as an MCP server closes it when its client is gone
        sys.stdout.flush()
    return code if isinstance(code, int) else 0
