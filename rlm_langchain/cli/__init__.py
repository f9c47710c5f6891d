"""The command `rlm`: a person's way in. The only place that imports typer and rich."""

from __future__ import annotations

import gc
import sys
import warnings


def main() -> None:
    """Run the command line. A mistake of the user is a sentence and an exit code, never a traceback."""
    from rlm_langchain.cli.app import app
    from rlm_langchain.errors import ConfigurationError, InputError, RLMError

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries tell programmers is noise to who asks a question
    try:
        app()
    except RLMError as error:
        from rlm_langchain.context import visible

        print(f"rlm: {visible(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigurationError | InputError) else 1)
    finally:
        gc.freeze()  # a last collection at exit would free what is gone anyway, and take half a second
