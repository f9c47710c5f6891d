"""The specification of a run (`docs/spec/rlm_run.qnt`), simulated, and its traces replayed on the code.

Quint is installed by `make build/spec/stamp`. Without npm, or where it cannot install, the tests are skipped,
unless `RLM_SPEC` is set; recorded traces are replayed in any case. `RLM_SPEC` is how many samples are tried,
`RLM_SEED` what they are drawn from.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.durable.spec_traces import RECORDED, Replay, story

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec" / "rlm_run.qnt"
SAMPLES = int(os.environ.get("RLM_SPEC", "120"))
SEED = os.environ.get("RLM_SEED", "1")
WITNESSED = re.compile(r"^(\w+) was witnessed in (\d+) trace", re.MULTILINE)


@pytest.fixture(scope="module")
def quint() -> Path:
    """The program, in a folder of its own."""
    if not shutil.which("npm") or not shutil.which("make"):
        pytest.skip("there is no npm on this machine, or no make")
    made = subprocess.run(["make", "build/spec/stamp"], cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode and "RLM_SPEC" not in os.environ:
        pytest.skip(f"quint cannot be installed: {made.stderr.strip()[-300:]}")
    assert not made.returncode, made.stderr
    return ROOT / "build" / "spec" / "node_modules" / ".bin" / "quint"


def simulate(quint: Path, module: str, samples: int, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [quint, "run", SPEC, "--main", module, "--backend", "typescript", "--seed", SEED, "--verbosity", "1"]
    command += ["--max-samples", str(samples), "--max-steps", "45", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def names(module: str) -> list[str]:
    """What a module says that must be seen."""
    _, _, text = SPEC.read_text(encoding="utf-8").partition(f"module {module} {{")
    return re.findall(r"^  val (\w+) =", text.partition("\n}")[0], re.MULTILINE)


def never_seen(quint: Path, module: str, samples: int, *options: str | Path) -> list[str]:
    """Simulate a module; what of its values was true in no sample."""
    done = simulate(quint, module, samples, *options, "--witnesses", *names(module))
    assert not done.returncode, done.stdout + done.stderr
    seen = dict(WITNESSED.findall(done.stdout))
    assert len(seen) == len(names(module)) > 3
    return [name for name, count in seen.items() if count == "0"]


def test_its_types_are_right(quint: Path) -> None:
    done = subprocess.run([quint, "typecheck", SPEC], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


def replayed(stories: Iterable[list[dict[str, Any]]], folder: Path) -> Counter[str]:
    """Replay stories on the code; what was done in them."""
    done = Counter[str]()
    with asyncio.Runner() as runner:
        for number, steps in enumerate(stories):
            (there := folder / str(number)).mkdir()
            replay = Replay(there, runner.get_loop())
            replay.replay(steps)
            done += replay.done
    return done


def test_the_protocol_keeps_its_invariants_and_reaches_what_it_is_about(quint: Path, tmp_path: Path) -> None:
    traces = ("--mbt", "--n-traces", "8", "--out-itf", tmp_path / "{seq}.itf.json")
    assert never_seen(quint, "sound", SAMPLES // 3, "--invariant", "safe", *traces) == []
    done = replayed(map(story, tmp_path.glob("*.itf.json")), tmp_path)
    assert done["init"] == 8
    assert done["receive"]
    assert done["kill"]


def test_the_code_does_what_recorded_traces_say(tmp_path: Path) -> None:
    done = replayed(json.loads(RECORDED.read_text(encoding="utf-8")), tmp_path)
    actions = set(re.findall(r"^  action (\w+)", SPEC.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(done) == actions - {"step", "work", "cut"}, "all but what only chooses, and what is a planted wrong"


def test_every_planted_wrong_is_found(quint: Path) -> None:
    assert len(names("planted")) == 11
    assert never_seen(quint, "planted", SAMPLES) == []
