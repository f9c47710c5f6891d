"""Formats of files: what a file is, and what it becomes in the REPL. A text stays a text; for everything else there
is a reader, or a sentence that says what to do.

The same rule holds for a file alone, in a folder, in an archive and in a mail: `detect.py` says what it is, by its
first bytes, and by its name only where a format is text itself. `table.py` lists the formats and their readers.
"""
