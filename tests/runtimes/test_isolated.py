"""Runtimes in a worker process, on a stand-in for their library that misbehaves when it is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deployconv.cli import main
from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes import RUNTIMES, Runtime, get_backend
from deployconv.runtimes.isolated import IsolatedBackend
from tests.build import conv_transpose, integers

ROW = Runtime(
    "fake",
    "fake_library",
    "fake_library",
    "pip install fake-library",
    cost_table="not-fitted",
    runs_reference=False,
)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "fake", ROW)  # type: ignore[misc]
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "fake_library"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1] * 4), path)
    return path


def backend() -> IsolatedBackend:
    made = get_backend("fake")
    assert isinstance(made, IsolatedBackend)
    return made


def feeds(*shape: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def test_a_model_runs_and_is_timed_in_the_worker(model: Path) -> None:
    fake = backend()
    session = fake.prepare(model)
    given = feeds(1, 2, 5, 6)
    (expected,) = get_backend("ort").prepare(model).run(given).values()
    (found,) = session.run(given).values()
    np.testing.assert_array_equal(found, expected)
    assert session.timed_run(given) > 0
    assert (fake.runtime, session.provider) == ("fake 1.0", "fake CPU")


def test_a_model_in_memory_runs_too(model: Path) -> None:
    session = backend().prepare(model.read_bytes(), threads=1)
    assert session.run(feeds(1, 2, 5, 6))["y"].shape == (1, 3, 10, 12)


def test_a_dynamic_model_is_loaded_for_the_sizes_of_each_run() -> None:
    dynamic = conv_transpose(integers(2, 3, 4, 4), ("h", "w"), strides=[2, 2], pads=[1] * 4)
    session = backend().prepare(dynamic.SerializeToString())
    assert session.run(feeds(1, 2, 5, 6))["y"].shape == (1, 3, 10, 12)
    assert session.run(feeds(1, 2, 7, 3))["y"].shape == (1, 3, 14, 6)


def test_sessions_that_are_gone_are_forgotten(model: Path) -> None:
    fake = backend()
    fake.prepare(model)
    assert fake.released == [0]
    kept = fake.prepare(model)
    assert fake.released == []
    assert kept.run(feeds(1, 2, 5, 6))


@pytest.mark.parametrize("threads", [0, 3])
def test_threads_that_it_cannot_use_are_refused(model: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"--threads {threads}"):
        backend().prepare(model, threads=threads)


def test_an_absent_library_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Runtime("absent", "fake_library", "no_such_library", "pip install it", "not-fitted")
    monkeypatch.setitem(RUNTIMES, "absent", absent)  # type: ignore[misc]
    with pytest.raises(BackendUnavailable, match=r"needs no_such_library, .*: pip install it$"):
        get_backend("absent")


def test_a_library_that_cannot_be_loaded_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_LIBRARY", "lack describe")
    with pytest.raises(BackendUnavailable, match=r"libfake\.so.*: pip install fake-library$"):
        get_backend("fake")


MISBEHAVIOURS = {
    "crash": "the fake worker was killed by SIGSEGV",
    "exit": "the fake worker ended with status 7 before it answered; it last said: no licence",
    "hang": "the fake worker gave no answer within 1 s and was stopped",
    "flood": "the fake worker wrote more than 1 MiB of messages and was stopped",
    "refuse": "failed: ValueError: unknown operator Mystery",
}


@pytest.mark.parametrize(
    ("action", "moment"),
    [*((action, "open") for action in MISBEHAVIOURS), ("crash", "run"), ("refuse", "run")],
)
def test_whatever_a_library_does_is_one_error_and_leaves_all_files_as_they_were(
    action: str,
    moment: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_LIBRARY", f"{action} {moment}")
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    output = model.with_name("out.onnx")
    output.write_bytes(b"an earlier result")
    arguments = ["rewrite", str(model), "-o", str(output), "--force", "--backend", "fake"]
    assert main(arguments) == 3
    assert MISBEHAVIOURS[action] in " ".join(capsys.readouterr().err.split())
    assert hashlib.sha256(model.read_bytes()).hexdigest() == before
    assert output.read_bytes() == b"an earlier result"
    assert {path.name for path in model.parent.iterdir()} == {"model.onnx", "out.onnx"}


@pytest.mark.parametrize("command", ["verify", "bench", "check"])
def test_other_commands_fail_with_the_same_status(
    command: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_LIBRARY", "exit open")
    models = [str(model)] * (1 + (command == "verify"))
    assert main([command, *models, "--backend", "fake"]) == 3
    printed = capsys.readouterr()
    assert "no licence" in " ".join((printed.out + printed.err).split())


def test_the_next_model_gets_a_new_worker(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = backend()
    session, given = fake.prepare(model), feeds(1, 2, 5, 6)
    session.run(given)
    worker: Any = fake.worker._worker
    worker._process.kill()
    with pytest.raises(BackendUnavailable, match="killed by SIGKILL"):
        session.run(given)
    assert session.run(given)["y"].shape == (1, 3, 10, 12)
    assert session.timed_run(given) > 0


def test_an_interrupted_request_does_not_answer_the_next(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = backend()
    session, given = fake.prepare(model), feeds(1, 2, 5, 6)
    session.run(given)
    worker: Any = fake.worker._worker

    def interrupted(deadline: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_next", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.timed_run(given)
    assert session.run(given)["y"].shape == (1, 3, 10, 12)
