"""The command `rlm`. Only this folder imports typer and rich."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

READER_GONE = 141
"""The exit code when standard output is closed before all is written: 128 and the number of SIGPIPE, which is what
shells report of `git log | head`."""


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn programmers, and this is a command for users
    if sys.stderr is None:  # whoever started this process may have closed each of its streams
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open for as long as the process lives
    if sys.stdout is None:
        print("rlm: standard output is closed, so an answer cannot be written", file=sys.stderr)
        sys.exit(2)
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were imported
        code = 130
    gc.freeze()  # a last collection at exit would take half a second for memory that is freed anyway
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run `rlm` with these arguments, and return its exit code."""
    from rlm_langchain.cli.app import app

    return run_safely(lambda: app(list(arguments), prog_name="rlm"))


def run_safely(command: Callable[[], int | None]) -> int:
    """Run a program and return its exit code. Our own errors are printed as sentences, without a traceback."""
    from rlm_langchain.cli import streams

    with streams.lenient():
        try:
            code = _exit_code(command)
            if note := streams.escape_note():
                streams.say(f"rlm: {note}")
            return code
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            reported = _report(error)
            if reported is None:
                raise
            return reported


def _report(error: Exception) -> int | None:
    """Print an error, and return the exit code. None: it is none of ours, and nothing was printed."""
    from rlm_langchain.cli import streams
    from rlm_langchain.context.sanitize import visible
    from rlm_langchain.errors import ConfigurationError, InputError, RLMError

    if isinstance(error, RLMError):
        # LangGraph adds a note that names its task, which means nothing to a user.
        notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith("During task ")]
        streams.say(f"rlm: {visible(str(error))}")
        for note in notes:  # it may hold an answer
            print(note, file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError | InputError) else 1
    if isinstance(error, OSError):
        return _report_os_error(error)
    return None


def _report_os_error(error: OSError) -> int | None:
    from rlm_langchain.cli import streams
    from rlm_langchain.context.sanitize import visible

    if _is_of_output(error):
        streams.discard(sys.stdout)
        if error.errno == errno.EPIPE:  # a reader who has seen enough needs no message
            return READER_GONE
        streams.say(f"rlm: standard output cannot be written ({error.strerror}): write elsewhere")
        return 2
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        return None
    where = f" {visible(str(error.filename))}" if error.filename else ""
    streams.say(f"rlm: a file{where} cannot be written ({error.strerror}): make room, or set RLM_HOME")
    return 1


def _is_of_output(error: OSError) -> bool:
    """Return whether printing raised this: in a module of this folder, or in one that it prints with."""
    where = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return error.filename is None and bool({"cli", "typer", "rich"} & set(Path(where[-1]).parts[-4:]))


def _exit_code(command: Callable[[], int | None]) -> int:
    """Run a program, write all that it printed, and return its exit code."""
    try:
        code: object = command()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer turns it into exit code 1
            raise end.__context__ from None
        code = end.code
    if not sys.stdout.closed:  # as an MCP server leaves it when its client is gone
        sys.stdout.flush()
    return code if isinstance(code, int) else 0
