"""One handler for each kind of call that code in the REPL makes of the host. The table: `table.py`."""
