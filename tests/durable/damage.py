"""Harm to what a run keeps on disk."""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

from tests.durable.program import Program

LATEST = "checkpoint_id in (select max(checkpoint_id) from checkpoints group by checkpoint_ns)"
PLACES = (
    ("checkpoints", "checkpoint", LATEST),
    ("checkpoints", "checkpoint", "true"),
    ("checkpoints", "metadata", LATEST),
    ("writes", "value", "channel = 'trajectory'"),
    ("writes", "value", "channel = 'trajectory'"),
    ("writes", "value", "channel = '__pregel_tasks'"),
    ("writes", "value", "length(value) > 0"),
)
"""Table, column, rows: those that are read again oftener than others."""


def copied(program: Program, folder: Path) -> Program:
    """The same program over a copy of all that it has kept."""
    shutil.copytree(program.folder, folder)
    return replace(program, folder=str(folder))


def harm_a_row(program: Program, chance: random.Random) -> str:
    """Change a byte of a random value in the database, or cut it off. Says what was done."""
    connection = sqlite3.connect(program.database)
    table, column, which = chance.choice(PLACES)
    rows = connection.execute(f"select rowid, {column} from {table} where {which}").fetchall()
    row, value = chance.choice(rows)
    harmed = harm(value if isinstance(value, bytes) else value.encode(), chance)
    connection.execute(f"update {table} set {column} = ? where rowid = ?", (harmed, row))
    connection.commit()
    connection.close()
    return f"{table}.{column}[{row}]: {value!r} -> {harmed!r}"


def harm(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with one of them changed, or without their end."""
    at = chance.randrange(len(data))
    if chance.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]
