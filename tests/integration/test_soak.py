"""Many runs of all kinds leave nothing in their process, and nothing on disk."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("what a process holds is counted through /proc", allow_module_level=True)

from tests.measure.soak import SANDBOXES, Left

ROUNDS = 4
GROWTH = 24 << 20
"""Bytes by which a process may grow in two rounds, 44 runs, once each sandbox was used. A run that is not let go of
holds a context of 0.9 MB, and marks and messages beside it."""


def test_memory_descriptors_threads_processes_and_files_stay_what_they_are():
    command = [sys.executable, "-m", "tests.measure.soak", str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rounds = [Left(**json.loads(line)) for line in done.stdout.splitlines()]
    first, last = rounds[len(SANDBOXES) - 1], rounds[-1]
    assert len(rounds) == ROUNDS
    assert last.descriptors <= first.descriptors
    assert last.threads <= first.threads + 1  # a pool that is not full yet
    assert last.processes <= first.processes
    assert last.files <= first.files
    assert last.memory - first.memory < GROWTH, rounds
