"""How a worker of TensorRT that crashes, hangs or misbehaves is reported; it is not needed here."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.tensorrt import compile as compiling
from deployconv.runtimes.tensorrt import installation, process
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.worker_process import Limits
from tests.runtimes.scripted_worker import DONE, PARSED, program

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="the worker's memory is watched through /proc"
)


def compile_with(code: str, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Any:
    monkeypatch.setattr(process, "python_module", lambda module: program(code))
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
    monkeypatch.setattr(process, "python_module", lambda module: program(answer))
    failures, built = [], []
    with process.tensorrt_worker(Limits(10)) as worker:
        for target in ("sm75", "sm80", "sm86", "sm89"):
            settings = BuildSettings(target)
            done = compiling.compile_model(
                Path("model.onnx"), "tensorrt-rtx", settings, worker=worker
            )
            failures.append(worker.failures)
            built.append(done.engine_bytes)
    assert failures == [0, 1, 1, 1]
    assert built == [7, None, 7, 7]


def test_a_crash_while_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    built = compile_with("os.kill(os.getpid(), signal.SIGSEGV)", monkeypatch)
    assert built.failure is not None
    assert built.failure.name == "parse"


def test_a_worker_that_cannot_even_start_makes_the_backend_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "python_module", lambda module: program("os.abort()"))
    monkeypatch.syspath_prepend("a path that nothing was looked for on")
    with pytest.raises(BackendUnavailable, match=r"backend 'tensorrt-rtx': .* SIGABRT.*"):
        installation.find_installation("tensorrt-rtx")
