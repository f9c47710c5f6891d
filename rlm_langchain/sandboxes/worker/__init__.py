"""The code inside the confined process: one REPL that computes and makes calls.

Standard library only. The host trusts nothing here: code in a cell can reach and change all of it. `boot.py` is
started by `python -c`; everything else arrives through standard input (see `bundle.py`).
"""
