"""What runs inside the confined process: one REPL that computes and asks.

Standard library only, and nothing here is trusted by the host: code in a cell can reach and change all of it.
`boot.py` is started by `python -c`; everything else arrives through its standard input (see `bundle.py`).
"""
