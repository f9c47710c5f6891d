"""The host's side of the cpython sandbox: whatever a worker does, the host gets a step, and keeps nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import policy, resting, worker_process
from rlm_langchain.sandboxes.cpython import session as cpython_session
from rlm_langchain.sandboxes.cpython.resting import processor_seconds
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.testing.conformance.lifecycle import descriptors
from rlm_langchain.testing.hostile.judge import children
from rlm_langchain.types import (
    Answered,
    Call,
    Completed,
    ContextFile,
    Died,
    Limits,
    Reply,
    Suspended,
)
from tests.processes import alive, descendants, gone, state, stopped

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

SMALL = Limits(seconds=5, memory=256 << 20)


@pytest.fixture
def opened():
    sessions = []

    def open_session(limits=SMALL, context=None, prelude=""):
        sessions.append(CPythonSandbox().open(context, prelude, limits))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


# --- Each defence of the host alone: the worker's own is switched off by the program -----------------


def test_the_host_ends_a_cell_that_has_switched_its_alarm_off(opened):
    session = opened(Limits(seconds=0.5))
    step = session.run(
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nprint('kept', flush=True)\nwhile True: pass"
    )
    assert step == Died(
        "time", "kept\n", "The cell ran for more than 0.5 s of its own time and could not be interrupted."
    )


def test_the_host_ends_a_worker_that_holds_too_much_memory(opened):
    session = opened(Limits(seconds=5, memory=256 << 20))
    session._worker._max_memory = 1 << 20  # as if the address space had no limit
    assert session.run("import time\nwhile True: pass").reason == "memory"


FORGE = """
import json, os
def frame(*message):
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, 'big') + body
"""

ATTACKS = {
    "no frame": ("os.write(4, b'hello there, host')\nwhile True: pass", "protocol"),
    "a frame of two gigabytes": ("os.write(4, b'\\x7f\\xff\\xff\\xff')\nwhile True: pass", "protocol"),
    "a frame that is no JSON": ("os.write(4, b'\\0\\0\\0\\x03abc')\nwhile True: pass", "protocol"),
    "a message that there is not": ("os.write(4, frame('open', 'sesame'))\nwhile True: pass", "protocol"),
    "output that holds nothing": ("while True: os.write(4, frame('out', ''))", "protocol"),
    "being ready twice": ("os.write(4, frame('ready'))\nwhile True: pass", "protocol"),
    "a value that cannot be": ("os.write(4, frame('answer', 1, 2 ** 70, None))\nwhile True: pass", "protocol"),
    "more output than there may be": (
        "piece = frame('out', 'x' * 30000)\nwhile True: os.write(4, piece)",
        "output",
    ),
    "a flood past the protocol": ("while True: os.write(1, b'x' * 65536)", "output"),
    "a frame that never ends": ("os.write(4, b'\\0\\0\\xff\\xff')\nwhile True: pass", "time"),
    "the end of another turn": ("os.write(4, frame('done', 0, None))\nwhile True: pass", "protocol"),
    "closing the pipe": ("os.close(4)\nwhile True: pass", "crash"),
    "closing all": ("os.closerange(0, 64)", "crash"),
    "leaving": ("os._exit(0)", "crash"),
    "a crash": ("import ctypes\nctypes.string_at(0)", "crash"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_worker_that_breaks_the_protocol_is_ended(opened, attack):
    code, reason = ATTACKS[attack]
    session = opened(Limits(seconds=0.7, output=100_000))
    step = session.run(FORGE + code)
    assert isinstance(step, Died), step
    assert step.reason == reason
    assert not alive(session._worker.pid)
    assert session.run("print(1)") == Died(reason, "", step.error)


def test_a_worker_cannot_become_another_program(opened):
    session = opened()
    step = session.run(f"import os\nos.execv({policy.python()!r}, ['python', '-c', 'print(1)'])")
    assert "PermissionError" in step.error
    assert session.run("print(1)") == Completed("1\n")


def test_a_frame_that_announces_much_takes_no_memory(opened):
    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    session = opened(Limits(seconds=0.5, value=1 << 30))
    before = resident()
    assert isinstance(
        session.run("import os\nos.write(4, b'\\x3f\\xff\\xff\\xff' + b'x' * 1000)\nwhile True: pass"), Died
    )
    assert resident() - before < 64 << 20


def test_a_forged_answer_is_worth_as_much_as_one_that_was_given(opened):
    session = opened()
    assert session.run(FORGE + "os.write(4, frame('answer', 1, 'forged', None))") == Answered("forged", "")
    assert session.run("print(1)").reason == "protocol", "the cell's real end came as well"


def test_a_program_that_steals_its_replies_harms_only_itself(opened):
    session = opened(Limits(seconds=1))
    code = (
        "import os, threading\nthere = threading.Semaphore(0)\n"
        "def steal():\n    there.release()\n    os.read(3, 2)\n"
        "for _ in range(16):\n    threading.Thread(target=steal, daemon=True).start()\n"
        "for _ in range(16):\n    there.acquire()\nllm_query('a')"
    )
    assert session.run(code) == Suspended((Call("llm", "a"),))
    while Path(f"/proc/{session._worker.pid}/stat").read_text().split()[2] != "S":
        os.sched_yield()  # until it waits behind the thieves: if it came later, it would find the reply untouched
    step = session.resume([Reply("b" * 1000)])
    assert isinstance(step, Died) or step.error
    assert opened().run("print('next')") == Completed("next\n")


def test_a_worker_that_speaks_between_cells_is_ended(opened):
    session = opened()
    code = "import threading\nthreading.Timer(0, lambda: None)\n"
    code += "def later():\n    gate.acquire()\n    os.write(4, frame('done', 2, None))\n    done.release()\n"
    code += "gate, done = threading.Lock(), threading.Lock()\ngate.acquire(); done.acquire()\n"
    code += "threading.Thread(target=later, daemon=True).start()"
    assert session.run(FORGE + code) == Completed("")
    assert session.run("gate.release()\ndone.acquire()").error is None, "the forged end is taken for the real one"
    assert session.run("print(1)").reason == "protocol"


# --- While no cell runs ---------------------------------------------------------------------------------

BUSY = "n = 0\ndef busy():\n    global n\n    while True: n += 1\n"
START = "import threading\ndef start(work, count=1):\n    for _ in range(count):\n"
START += "        threading.Thread(target=work, daemon=True).start()\n"

DEAF = "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
"""The cell's own alarm does not end it."""

LEFT = {
    "a thread": START + BUSY + "start(busy)",
    "threads": START + BUSY + "start(busy, 4)",
    "a thread in C": START + "import zlib\nstart(lambda: zlib.compress(bytes(200 << 20)))",
    "a thread that begins later": START + BUSY + "threading.Timer(0.3, busy).start()",
    "a thread that works and rests": START
    + "def rests():\n    while True:\n        sum(range(100_000))\n        threading.Event().wait(0.01)\n"
    + "start(rests)",
    "a thread that hears no signal": START
    + BUSY
    + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))\nstart(busy)",
    "threads that tell each other to go on": START
    + "import os, signal\ndef wake():\n    while True:\n        try: signal.raise_signal(signal.SIGCONT)\n"
    + "        except OSError: pass\nstart(wake, 4)",
    "a cell that only says that it has ended": FORGE
    + DEAF
    + "os.write(4, frame('done', 1, None))\nwhile True: pass",
    "a cell that only says that it waits": FORGE
    + DEAF
    + "os.write(4, frame('calls', 1, [['llm', 'a', None]]))\nwhile True: pass",
    "threads of a process without its first": START
    + BUSY
    + FORGE
    + "import ctypes\nstart(busy)\nos.write(4, frame('done', 1, None))\n"
    + f"ctypes.CDLL(None).syscall({60 if os.uname().machine == 'x86_64' else 93}, 0)",
    "threads of a cell that waits": START + BUSY + "start(busy)\nllm_query('a')",
}


@pytest.mark.parametrize("left", LEFT)
def test_what_a_cell_leaves_behind_does_not_compute_until_the_next_turn(opened, left):
    session = opened(Limits(seconds=30))
    step = session.run(LEFT[left])
    assert isinstance(step, Suspended | Completed), step
    assert stopped(session._worker.pid)
    before = processor_seconds(session._worker.pid)
    sum(range(1_000_000))
    assert processor_seconds(session._worker.pid) == before


def test_garbage_that_is_collected_while_workers_are_looked_at_does_no_harm(opened, monkeypatch):
    def collecting(pid):
        if threading.current_thread().name == "rlm-rest":
            gc.collect()
        return processor_seconds(pid)

    gc.disable()
    try:
        forgotten = [CPythonSandbox().open(None, "", SMALL)]
        forgotten[0].run("x = 1")
        forgotten.append(forgotten)
        session = opened(Limits(seconds=30))
        monkeypatch.setattr(resting, "processor_seconds", collecting)
        del forgotten
        session.run(LEFT["threads"])
        assert stopped(session._worker.pid)
    finally:
        gc.enable()


def test_an_error_of_one_look_is_told_and_is_not_the_end_of_the_others(opened, monkeypatch, caplog):
    odd, session = opened(), opened(Limits(seconds=30))

    def failing(pid):
        if pid == odd._worker.pid and threading.current_thread().name == "rlm-rest":
            raise OverflowError("a clock that is none")
        return processor_seconds(pid)

    monkeypatch.setattr(resting, "processor_seconds", failing)
    assert odd.run("x = 1") == Completed("")
    session.run(LEFT["threads"])
    assert stopped(session._worker.pid)
    assert "a clock that is none" in caplog.text
    assert odd.run("print(x)") == Completed("1\n")


def test_what_stood_still_goes_on_with_the_next_turn(opened):
    session = opened(Limits(seconds=30))
    await_more = "m = n\nwhile n == m: pass\nprint('more')"
    assert session.run(START + BUSY + f"start(busy)\nprint(llm_query('a'))\n{await_more}") == Suspended(
        (Call("llm", "a"),)
    )
    assert stopped(session._worker.pid)
    assert session.resume([Reply("b")]) == Completed("b\nmore\n")
    assert stopped(session._worker.pid)
    assert session.run(await_more) == Completed("more\n")


def test_what_is_used_while_a_cell_waits_is_its_own_time(opened, monkeypatch):
    monkeypatch.setattr(cpython_session, "GRACE", 0.1)
    session = opened(Limits(seconds=0.1))
    step = session.run(START + BUSY + DEAF + "start(busy)\nwhile True: llm_query('a')")
    waits = 0
    while isinstance(step, Suspended):
        assert stopped(session._worker.pid)
        waits += 1
        step = session.resume([Reply("b")])
    assert step.reason == "time"
    assert waits <= 0.3 / resting.SLACK + 1


def test_a_cell_cannot_compute_for_ever_a_little_at_a_time(opened, monkeypatch):
    monkeypatch.setattr(cpython_session, "GRACE", 0.1)
    session = opened(Limits(seconds=0.1))
    step = session.run(DEAF + "while True:\n    llm_query('a')\n    sum(range(100_000))")
    while isinstance(step, Suspended):
        step = session.resume([Reply("b")])
    assert step.reason == "time"


def test_a_worker_that_rests_is_left_alone_and_may_be_closed_or_killed_while_it_is_stopped(opened):
    idle, busy, killed = opened(), opened(), opened()
    assert idle.run("x = 1") == Completed("")
    for session in (busy, killed):
        session.run(LEFT["threads"])
        assert stopped(session._worker.pid)
    assert state(idle._worker.pid) == "S"
    os.kill(killed._worker.pid, signal.SIGKILL)
    assert killed.run("print(1)").reason == "crash"
    busy.close()
    assert not alive(busy._worker.pid)
    assert idle.run("print(x)") == Completed("1\n")


def test_what_is_written_past_the_protocol_harms_nothing(opened):
    session = opened()
    assert session.run("import os\nos.write(1, b'raw')\nos.write(2, b'raw')\nprint('fine')") == Completed("fine\n")
    assert session.run("import sys\nsys.stdout.buffer.write(b'bytes\\xff')\nsys.stdout.flush()") == Completed(
        "bytes\ufffd"
    )


def test_a_name_of_a_call_that_is_no_name_breaks_the_protocol(opened):
    assert opened().run("_host_call('../../etc', 'x')").reason == "protocol"


# --- The host keeps nothing ---------------------------------------------------------------------------


def test_sixty_sessions_leave_no_descriptor_and_no_process_and_no_thread():
    sandbox = CPythonSandbox()
    sandbox.open(None, "", Limits()).close()
    before = descriptors(), children(), threading.active_count(), len(os.listdir("/proc/self/task"))
    for n in range(60):
        session = sandbox.open(None, "", Limits())
        if n % 10 == 0:
            session.run("import os\nos._exit(1)")
        session.close()
    after = descriptors(), children(), threading.active_count(), len(os.listdir("/proc/self/task"))
    assert after == before


def test_a_session_that_is_forgotten_is_closed():
    gc.collect()  # what earlier tests have left
    fds = descriptors()
    session = CPythonSandbox().open(None, "", Limits())
    pid = session._worker.pid
    del session
    gc.collect()
    assert not alive(pid)
    assert descriptors() == fds


def test_sixty_four_workers_at_once(opened):
    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(lambda _: opened(Limits(memory=64 << 20)), range(64)))
        suspended = list(pool.map(lambda session: session.run("n = llm_query('n')\nprint(n)"), sessions))
        assert suspended == [Suspended((Call("llm", "n"),))] * 64
        steps = list(pool.map(lambda pair: pair[1].resume([Reply(str(pair[0]))]), enumerate(sessions)))
    assert steps == [Completed(f"{n}\n") for n in range(64)]


HOST = """
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.types import Limits
session = CPythonSandbox().open(None, "", Limits())
print(session._worker.pid, flush=True)
session.run("while True: pass")
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_dies_with_its_host(end):
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True) as host:
        pid = int(host.stdout.readline())
        below = descendants(host.pid)
        assert pid in below
        host.send_signal(end)
        host.wait()
    assert all(map(gone, below))


# --- Errors of the host have a way out ------------------------------------------------------------------


def test_a_context_that_is_not_there(opened, tmp_path):
    with pytest.raises(SandboxError, match="context could not be loaded: FileNotFoundError"):
        opened(context=ContextFile(tmp_path / "none", "text", 1, 1))


def test_a_context_that_is_no_json(opened, tmp_path):
    (tmp_path / "x").write_text("[1,")
    with pytest.raises(SandboxError, match="context could not be loaded: JSONDecodeError"):
        opened(context=ContextFile(tmp_path / "x", "json", 1, 3))


def test_a_context_that_does_not_fit_into_memory(opened, tmp_path):
    (tmp_path / "x").write_text("[" + "[]," * 2_000_000 + "[]]")
    with pytest.raises(SandboxError, match="context could not be loaded: MemoryError"):
        opened(Limits(memory=64 << 20), ContextFile(tmp_path / "x", "json", 2_000_001, 6_000_004))


def test_a_text_that_does_not_fit_into_memory_is_lazy(opened, tmp_path):
    text = "😀" + "x" * 60_000_000
    (tmp_path / "x").write_text(text)
    session = opened(Limits(memory=128 << 20), ContextFile(tmp_path / "x", "text", len(text), len(text) + 3))
    assert session.run("print(type(context).__name__, len(context), context[:2])") == Completed(
        "LazyText 60000001 😀x\n"
    )


def test_a_context_behind_a_link_can_be_read(opened, tmp_path):
    (tmp_path / "real").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    session = opened(context=ContextFile(tmp_path / "link", "text", 4, 4))
    assert session.run("print(context)") == Completed("text\n")


def test_no_descriptors_left(opened, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = descriptors()
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        with pytest.raises(SandboxError, match="ulimit -n"):
            opened()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() <= fds


def test_replies_must_fit_the_calls(opened):
    session = opened()
    session.run("llm_query_batched(['a', 'b'])")
    with pytest.raises(SandboxError, match="waits for 2 replies, not for 1"):
        session.resume([Reply("x")])
    with pytest.raises(SandboxError, match="call resume before run"):
        session.run("print(1)")
    assert session.resume([Reply("x"), Reply("y")]) == Completed("['x', 'y']\n")
    with pytest.raises(SandboxError, match="waits for 0 replies"):
        session.resume([Reply("x")])


def test_a_batch_that_is_more_than_one_frame_comes_in_waves(opened):
    session = opened(Limits(value=100_000))
    step = session.run("print([len(r) for r in llm_query_batched(['x' * 30_000] * 7)])")
    sizes = []
    while isinstance(step, Suspended):
        sizes.append(len(step.calls))
        step = session.resume([Reply("r")] * len(step.calls))
    assert sizes == [3, 3, 1]
    assert step == Completed("[1, 1, 1, 1, 1, 1, 1]\n")


def test_a_batch_of_too_many_is_refused(opened):
    assert "at most 10,000 items" in opened().run("llm_query_batched(['x'] * 10_001)").error


def test_a_session_without_memory_can_make_room_again(opened):
    session = opened(Limits(memory=128 << 20))
    assert "MemoryError" in session.run("x = []\nwhile True: x.append('y' * 100_000)").error
    assert session.run("del x\nprint('room')") == Completed("room\n")
    assert session.run("x = 'y' * 50_000_000\nprint(len(x))") == Completed("50000000\n")


def test_memory_that_ran_out_is_told_with_its_lines_and_loads_nothing(opened):
    session = opened(Limits(memory=128 << 20))
    step = session.run("import sys\nbefore = set(sys.modules)\ndef fill():\n    return 'y' * 10**9\nfill()")
    assert step.error == (
        'Traceback (most recent call last):\n  File "<cell 1>", line 5, in <module>\n    fill()\n'
        "  File \"<cell 1>\", line 4, in fill\n    return 'y' * 10**9\nMemoryError"
    )
    assert session.run("print('traceback' in set(sys.modules) - before)") == Completed("False\n")
    assert session.run("raise MemoryError('said', 1)").error.endswith("\nMemoryError: ('said', 1)")
    assert session.run("1 / 0").error.endswith("ZeroDivisionError: division by zero")
    assert "in fill" in session.run("fill()").error, "with the module that others need, it looks as they do"


# --- Missing pieces are said --------------------------------------------------------------------------


def test_other_systems_are_told_what_to_use(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "sandbox='monty'" in CPythonSandbox().missing()
    with pytest.raises(SandboxError, match="needs Linux"):
        CPythonSandbox().open(None, "", Limits())


def test_without_sandlock_nothing_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "sandlock", None)
    assert "pip install sandlock" in CPythonSandbox().missing()
    with pytest.raises(SandboxError, match="pip install sandlock"):
        CPythonSandbox().open(None, "", Limits())


def test_an_old_kernel_is_refused(monkeypatch):
    import sandlock

    monkeypatch.setattr(sandlock, "landlock_abi_version", lambda: -1)
    assert "Landlock ABI 6" in CPythonSandbox().missing()
    with pytest.raises(SandboxError, match=r"Linux 6\.12"):
        CPythonSandbox().open(None, "", Limits())


def test_a_worker_that_is_not_confined_does_not_start(monkeypatch):
    monkeypatch.setattr(policy, "readable", lambda contexts: ["/"])
    with pytest.raises(SandboxError, match="not confined: it can read the root folder"):
        CPythonSandbox().open(None, "", Limits())


@pytest.mark.parametrize(("kills", "outcome"), [(1, "2\n"), (2, "the sandbox did not start")])
def test_a_worker_that_is_killed_while_it_starts_is_started_once_more(monkeypatch, kills, outcome):
    start, killed = worker_process.start_worker, []

    def started_and_killed(contexts, memory):
        worker = start(contexts, memory)
        if len(killed) < kills:
            killed.append(worker.pid)
            worker.kill()
        return worker

    CPythonSandbox().missing()  # which starts one, the first time
    monkeypatch.setattr(worker_process, "start_worker", started_and_killed)
    try:
        session = CPythonSandbox().open(None, "", Limits())
        shown = session.run("1 + 1").stdout
        session.close()
    except SandboxError as error:
        shown = str(error).partition(":")[0]
    assert shown == outcome
    assert len(killed) == kills


BY_HAND = """
import ctypes, mmap
clone, stack = ctypes.CDLL(None).clone, mmap.mmap(-1, 1 << 20)
clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20) - 8192
pause = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value
def threads(count):
    for n in range(count): clone(pause, top - n % 64 * 8192, 0x10F00, None)
"""

CROWDS = {
    "while it computes": "threads(600)\nwhile True: pass",
    "while it talks": "threads(600)\npiece = frame('out', 'x') * 100\nwhile True: os.write(4, piece)",
    "at its end": "threads(600)",
    "while no cell runs": "import threading\nthreading.Thread(target=threads, args=(600,)).start()\nllm_query('a')",
}


@pytest.mark.parametrize("when", CROWDS)
def test_threads_that_are_made_by_hand_are_counted_at_any_time(opened, when):
    session = opened(Limits(seconds=10, output=64 << 20))
    step = session.run(DEAF + FORGE + BY_HAND + CROWDS[when])
    if isinstance(step, Suspended):
        while len(os.listdir(f"/proc/{session._worker.pid}/task")) <= worker_process.THREADS:
            os.sched_yield()
        step = session.resume([Reply("b")])
    assert step.reason == "threads"


@pytest.mark.parametrize("count", [16, 1000])
def test_a_cell_takes_no_more_threads_of_the_machine_than_it_may(count):
    code = (
        "import threading\nthreading.stack_size(32768)\nend = threading.Event()\n"
        f"for _ in range({count}): threading.Thread(target=end.wait, daemon=True).start()"
    )
    session = CPythonSandbox().open(None, "", Limits(seconds=30))
    try:
        step = session.run(code)
        assert isinstance(step, Completed) if count < 100 else step.reason == "threads"
    finally:
        session.close()
