"""The `cpython` sandbox: all of Python, confined by the kernel."""
