"""How a worker process that crashes, hangs or misbehaves is reported; TensorRT is not needed."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deployconv.errors import BackendUnavailable
from deployconv.results import StageResult
from deployconv.runtimes.tensorrt import compile as compiling
from deployconv.runtimes.tensorrt import installation, process
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.tensorrt.process import (
    Done,
    Event,
    Limits,
    RequirementMissing,
    Stage,
    Unavailable,
    Worker,
    WorkerFailed,
    decode,
    encode,
)

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="the worker's memory is watched through /proc"
)

PARSED = encode(Stage(StageResult("parse", "ok", 0.5)))
DONE = encode(Done({"engine_bytes": 7}))

PRELUDE = """
import os, signal, sys, time
line = sys.stdin.readline()
def say(data):
    os.write(1, data)
"""


def program(code: str) -> tuple[str, ...]:
    """A worker that reads its request and then does ``code``."""
    return sys.executable, "-c", PRELUDE + code


def ask(code: str, **limits: Any) -> dict[str, Any]:
    with Worker(Limits(**{"seconds": 10.0, **limits}), program(code)) as worker:
        return worker.ask({"action": "anything"})


def test_an_answer_is_its_stages_and_then_the_value() -> None:
    stages: list[StageResult] = []
    with Worker(Limits(10), program(f"say({PARSED!r}); say({DONE!r}); time.sleep(60)")) as worker:
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
    with Worker(Limits(10), program(f"say({DONE!r}); sys.stdin.readline(); say({DONE!r})")) as one:
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
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.5)
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


def test_the_real_worker_ends_when_nobody_listens_any_more() -> None:
    worker = Worker(Limits(10))
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(10) == 0
    worker.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def compile_with(code: str, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Any:
    monkeypatch.setattr(compiling, "Worker", lambda limits: Worker(limits, program(code)))
    return compiling.compile_model(
        Path("model.onnx"),
        "tensorrt-rtx",
        BuildSettings("sm89"),
        limits=Limits(**{"seconds": 10.0, **limits}),
    )


def test_a_crash_is_the_failure_of_the_stage_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    built = compile_with(f"say({PARSED!r}); os.abort()", monkeypatch)
    assert [(stage.name, stage.status) for stage in built.stages] == [
        ("check", "ok"),
        ("parse", "ok"),
        ("build", "failed"),
        ("deserialize", "not-run"),
        ("run", "not-run"),
        ("profile", "not-run"),
    ]
    assert not built.builds
    assert built.failure is not None
    assert "SIGABRT" in built.failure.reason
    assert built.stage("run").reason == "build failed"
    assert built.engine_bytes is None


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, "killed by SIGKILL"),
        ("time.sleep(60)", {"seconds": 0.3}, "gave no answer within"),
        ("sys.stderr.write('noise ' * 4_000_000); sys.exit(1)", {}, "ended with status 1"),
        ("hold = bytearray(os.urandom(1 << 20) * 400); time.sleep(60)", {"memory": 200 << 20},
         "MiB of memory where 200 MiB are allowed"),
        ("say(b'garbage\\n')", {}, "answered what is no answer"),
    ],
    ids=["killed", "hangs", "floods standard error", "exhausts memory", "garbage"],
)  # fmt: skip
def test_whatever_happens_while_building_is_a_failed_stage(
    monkeypatch: pytest.MonkeyPatch, code: str, limits: dict[str, Any], reason: str
) -> None:
    built = compile_with(f"say({PARSED!r}); {code}", monkeypatch, **limits)
    assert [stage.status for stage in built.stages] == ["ok", "ok", "failed"] + ["not-run"] * 3
    assert built.failure.name == "build"
    assert reason in built.failure.reason
    assert len(built.failure.reason) < 500


def test_models_share_a_worker_until_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = f"""
while line:
    'sm80' in line and os.abort()
    say({DONE!r})
    line = sys.stdin.readline()
"""
    started: list[Worker] = []

    def start(limits: Limits) -> Worker:
        started.append(Worker(limits, program(answer)))
        return started[-1]

    monkeypatch.setattr(compiling, "Worker", start)
    counts, built = [], []
    with compiling.Workers(Limits(10)) as workers:
        for target in ("sm75", "sm80", "sm86", "sm89"):
            settings = BuildSettings(target)
            done = compiling.compile_model(
                Path("model.onnx"), "tensorrt-rtx", settings, workers=workers
            )
            counts.append(len(started))
            built.append(done.engine_bytes)
    assert counts == [1, 1, 2, 2]
    assert built == [7, None, 7, 7]
    assert not any(_runs(worker._process.pid) for worker in started)


def test_a_crash_while_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    built = compile_with("os.kill(os.getpid(), signal.SIGSEGV)", monkeypatch)
    assert built.failure is not None
    assert built.failure.name == "parse"


def test_a_worker_that_cannot_even_start_makes_the_backend_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "Worker", lambda: Worker(Limits(10), program("os.abort()")))
    monkeypatch.syspath_prepend("a path that nothing was looked for on")
    with pytest.raises(BackendUnavailable, match=r"backend 'tensorrt-rtx': .* SIGABRT.*"):
        installation.find_installation("tensorrt-rtx")


def test_what_the_worker_prints_is_no_answer() -> None:
    """A library's own output goes to standard error, so it cannot break the protocol."""
    code = (
        "import os, sys\n"
        "from deployconv.runtimes.tensorrt import worker\n"
        "class Loud(worker.Answers):\n"
        "    def answer(self, request):\n"
        "        print('printed'); os.write(1, b'written')\n"
        "        self._send(worker.Done({}))\n"
        "worker.Answers = Loud\n"
        "worker.main()\n"
    )
    with Worker(Limits(10), (sys.executable, "-c", code)) as worker:
        assert worker.ask({}) == {}


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
