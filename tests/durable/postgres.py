"""A Postgres server of the tests' own: made, started, and gone again. It listens on a socket in its folder only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLACES = "/usr/lib/postgresql/*/bin"
"""Where Debian and Ubuntu put it, outside of the PATH."""
SETTINGS = "-c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def tool(name: str) -> str | None:
    """The path of one of Postgres' programs."""
    versions = sorted(Path("/").glob(f"{PLACES[1:]}/{name}"), key=lambda path: float(path.parts[-3]))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


@contextmanager
def postgres() -> Iterator[str]:
    """A server; gives its connection string. Nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="rlm-pg-") as folder:
        data, someone = Path(folder, "data"), _someone()
        if someone:
            os.chown(folder, someone["user"], someone["group"])
        _run("initdb", "-D", data, "-U", "rlm", "-A", "trust", "--no-sync", "-E", "UTF8", **someone)
        _run("pg_ctl", "-D", data, "-l", data / "log", "-o", f"{SETTINGS} -k {folder}", "-w", "start", **someone)
        try:
            yield f"postgresql://rlm@/postgres?host={folder}"
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", **someone)


def _run(name: str, *arguments: str | Path, **someone: Any) -> None:
    command = [str(tool(name)), *map(str, arguments)]
    # Output goes to no pipe: the server inherits it, and would keep it open.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/", **someone)


def _someone() -> dict[str, Any]:
    """Postgres refuses to be root: who it is then."""
    if os.geteuid():
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
