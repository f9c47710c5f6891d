"""The specification of a run (`docs/spec/rlm_run.qnt`), simulated.

Quint is installed by `make build/spec/stamp`. Without npm the tests are skipped; where it cannot install, too, but
not where `CI` is set. `RLM_SPEC` is how many samples are tried, `RLM_SEED` what they are drawn from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec" / "rlm_run.qnt"
SAMPLES = int(os.environ.get("RLM_SPEC", "150"))
SEED = os.environ.get("RLM_SEED", "1")
WITNESSED = re.compile(r"^(\w+) was witnessed in (\d+) trace", re.MULTILINE)


@pytest.fixture(scope="module")
def quint() -> Path:
    """The program, in a folder of its own."""
    if not shutil.which("npm") or not shutil.which("make"):
        pytest.skip("there is no npm on this machine, or no make")
    made = subprocess.run(["make", "build/spec/stamp"], cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode and not os.environ.get("CI"):
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


def test_the_protocol_keeps_its_invariants_and_reaches_what_it_is_about(quint: Path) -> None:
    assert never_seen(quint, "sound", SAMPLES // 3, "--invariant", "safe") == []


def test_every_planted_wrong_is_found(quint: Path) -> None:
    assert len(names("planted")) == 10
    assert never_seen(quint, "planted", SAMPLES) == []
