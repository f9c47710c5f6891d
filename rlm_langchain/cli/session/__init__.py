"""One run of the command `rlm`: asks, saves, asks for approval, and handles Ctrl-C."""
