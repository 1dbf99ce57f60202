"""How a process that crashes, hangs or misbehaves is reported; no library is needed."""

from __future__ import annotations

import platform
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deployconv.results import StageResult
from deployconv.runtimes import worker_process
from deployconv.runtimes.worker_events import Done, Event, Stage, Unavailable, decode, encode
from deployconv.runtimes.worker_process import (
    Limits,
    RequirementMissing,
    RestartingWorker,
    Worker,
    WorkerFailed,
)
from tests.runtimes.scripted_worker import DONE, PARSED, program

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="the worker's memory is watched through /proc"
)


def ask(code: str, **limits: Any) -> dict[str, Any]:
    with Worker("test", program(code), Limits(**{"seconds": 10.0, **limits})) as worker:
        return worker.ask({"action": "anything"})


def test_an_answer_is_its_stages_and_then_the_value() -> None:
    stages: list[StageResult] = []
    with Worker(
        "test", program(f"say({PARSED!r}); say({DONE!r}); time.sleep(60)"), Limits(10)
    ) as worker:
        value = worker.ask({"action": "anything"}, stages.append)
    assert stages == [StageResult("parse", "ok", 0.5)]
    assert value == {"engine_bytes": 7}


def test_what_the_machine_lacks_is_an_error() -> None:
    missing = encode(Unavailable("no CUDA driver"))
    with pytest.raises(RequirementMissing, match=r"^no CUDA driver$"):
        ask(f"say({missing!r}); time.sleep(60)")


def test_an_answer_may_come_in_pieces() -> None:
    code = f"for byte in {DONE!r}: say(bytes([byte])); time.sleep(0.001)"
    assert ask(code) == {"engine_bytes": 7}


def test_one_worker_answers_several_requests() -> None:
    with Worker(
        "test", program(f"say({DONE!r}); sys.stdin.readline(); say({DONE!r})"), Limits(10)
    ) as one:
        assert [one.ask({}) for _ in range(2)] == [{"engine_bytes": 7}] * 2


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, "killed by SIGKILL, as .* memory runs out"),
        ("os.abort()", {}, "killed by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", {}, "killed by SIGSEGV"),
        ("sys.exit(3)", {}, "ended with status 3 before it answered"),
        ("raise RuntimeError('lost')", {}, "status 1 .* it last said: RuntimeError: lost$"),
        ("time.sleep(60)", {"seconds": 0.3}, r"gave no answer within 0\.3 s and was stopped"),
        ("os.close(1); time.sleep(60)", {}, "closed its answers and was stopped"),
        ("hold = bytearray(os.urandom(1 << 20) * 400); time.sleep(60)", {"memory": 200 << 20},
         r"used \d+ MiB of memory where 200 MiB are allowed"),
        ("say(b'[TRT] building...\\n'); time.sleep(60)", {}, "answered what is no answer"),
        ("say(os.urandom(4096) + b'\\n'); time.sleep(60)", {}, "answered what is no answer"),
        ("say(b'{\"Stage\": {\"result\": {\"name\": \"parse\"}}}\\n')", {}, "no answer"),
        ("say(b'null\\n')", {}, "no answer"),
        ("say(b'[' * 100_000 + b'\\n')", {}, "no answer"),
    ],
)  # fmt: skip
def test_whatever_happens_to_the_worker_is_one_error_with_a_reason(
    code: str, limits: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_GRACE_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(WorkerFailed, match=reason) as caught:
        ask(code, **limits)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 9


def test_an_endless_line_is_stopped() -> None:
    with pytest.raises(WorkerFailed, match="answered without end"):
        ask("while True: say(b'x' * 65536)")


def test_a_flood_on_standard_error_neither_blocks_nor_fills_memory() -> None:
    code = f"sys.stderr.write('noise ' * 4_000_000 + '\\nlast'); sys.stderr.flush(); say({DONE!r})"
    assert ask(code) == {"engine_bytes": 7}
    with pytest.raises(WorkerFailed) as caught:
        ask("sys.stderr.write('noise ' * 4_000_000); sys.exit(1)")
    assert len(str(caught.value)) < 500


def test_closing_ends_the_worker_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "child = os.fork()\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        f"if child: time.sleep(0.2); say({DONE!r})\n"
        "time.sleep(60)\n"
    )
    ask(code)
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == 2
    deadline = time.monotonic() + 5
    while any(map(_runs, numbers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_runs, numbers))


ECHO = (
    "import os\n"
    "from deployconv.runtimes.worker_main import Answers, NotAvailable, Refused, serve\n"
    "class Echo(Answers):\n"
    "    def actions(self):\n"
    "        return {'echo': self.echo, 'fail': self.fail, 'lack': self.lack}\n"
    "    def echo(self, request):\n"
    "        print('printed'); os.write(1, b'written')\n"
    "        self.not_run('build', 'nobody asked')\n"
    "        with self.stage('run'): return {'said': request['words']}\n"
    "    def fail(self, request):\n"
    "        with self.stage('parse'): raise Refused('two\\nlines', 'up', 'ConvTranspose')\n"
    "    def lack(self, request):\n"
    "        with self.stage('parse'): raise NotAvailable('no\\nGPU')\n"
    "serve(Echo)\n"
)


def echo() -> Worker:
    return Worker("test", (sys.executable, "-c", ECHO), Limits(10))


def test_a_program_serves_its_actions_and_reports_its_stages() -> None:
    stages: list[StageResult] = []
    with echo() as worker:
        assert worker.ask({"action": "echo", "words": "hello"}, stages.append) == {"said": "hello"}
        assert worker.ask({"action": "fail"}, stages.append) == {}
        with pytest.raises(RequirementMissing, match=r"^no GPU$"):
            worker.ask({"action": "lack"})
    assert [(one.name, one.status, one.reason, one.node, one.operator) for one in stages] == [
        ("build", "not-run", "nobody asked", None, None),
        ("run", "ok", None, None, None),
        ("parse", "failed", "two lines", "up", "ConvTranspose"),
    ]


def test_a_worker_ends_when_nobody_listens_any_more() -> None:
    worker = echo()
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(10) == 0
    worker.close()


def test_a_worker_is_started_when_it_is_asked_and_again_after_a_failure() -> None:
    answer = f"""
while line:
    'crash' in line and os.abort()
    say({DONE!r})
    line = sys.stdin.readline()
"""
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker("test", program(answer), Limits(10)))
        return started[-1]

    counts = []
    with RestartingWorker(start) as worker:
        assert not started
        for action in ("first", "second", "crash", "third", "fourth"):
            with pytest.raises(WorkerFailed) if action == "crash" else nullcontext():
                worker.ask({"action": action})
            counts.append((len(started), worker.failures))
    assert counts == [(1, 0), (1, 0), (1, 1), (2, 1), (2, 1)]
    assert not any(_runs(one._process.pid) for one in started)


def test_messages_call_the_worker_by_its_name() -> None:
    with pytest.raises(WorkerFailed, match=r"^the test worker ended with status 3"):
        ask("sys.exit(3)")


def test_a_command_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(WorkerFailed, match=r"^the lost worker cannot be started: .*no-such-file"):
        Worker("lost", ("/no-such-file",))


def test_an_endless_flood_of_messages_is_stopped() -> None:
    with pytest.raises(WorkerFailed, match=r"wrote more than 1 MiB of messages and was stopped"):
        ask("while True: sys.stderr.write('noise ' * 1000)", output=1 << 20)


def test_the_memory_of_what_a_worker_starts_counts() -> None:
    child = "hold = bytearray(os.urandom(1 << 20) * 400); time.sleep(60)"
    code = f"import subprocess; subprocess.run([sys.executable, '-c', 'import os, time; {child}'])"
    with pytest.raises(WorkerFailed, match=r"used \d+ MiB of memory where 200 MiB are allowed"):
        ask(code, memory=200 << 20)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


FAILED = StageResult("build", "failed", 0.25, "no\nsuch luck", node="up", operator="ConvTranspose")


@pytest.mark.parametrize(
    "event",
    [Stage(FAILED), Done({"engine_bytes": 3, "kernels": None}), Unavailable("no CUDA driver")],
)
def test_an_event_is_one_line_and_comes_back(event: Event) -> None:
    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[TRT] [I] building",
        b"\xff\xfe",
        b"7",
        b"[]",
        b"{}",
        b'{"Stage": {}}',
        b'{"Stage": {"result": {"name": "parse"}}}',
        b'{"Stage": {"result": {"name": "guess", "status": "ok"}}}',
        b'{"Stage": {"result": {"name": "parse", "status": "fine"}}}',
        b'{"Done": {"value": 7}}',
        b'{"Done": {"value": {}}, "Stage": {}}',
        b'{"Other": {}}',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event|not a stage|Expecting|to unpack"):
        decode(line)
