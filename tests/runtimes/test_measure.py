"""Models timed in turns, their peak memory, and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deployconv.runtimes import measure
from deployconv.runtimes.base import Array, Feeds, TensorSpec
from deployconv.runtimes.measure import (
    busy_machine,
    granted_cpus,
    high_water,
    peak_memory,
    time_interleaved,
)
from tests.build import conv_transpose, integers


class Recorder:
    """A session that writes its name down and lets a fake clock advance."""

    provider = "fake"
    threads = 1
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    def __init__(self, name: str, log: list[str], milliseconds: float, clock: list[float]) -> None:
        self.name, self.log, self.seconds, self.clock = name, log, milliseconds / 1e3, clock

    def run(self, feeds: Feeds) -> dict[str, Array]:
        raise AssertionError("timing uses timed_run")

    def timed_run(self, feeds: Feeds) -> None:
        self.log.append(self.name)
        self.clock[0] += self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return now


def test_sessions_take_turns_and_every_other_round_is_reversed(clock: list[float]) -> None:
    log: list[str] = []
    sessions = [Recorder("A", log, 40.0, clock), Recorder("B", log, 20.0, clock)]
    times = time_interleaved(sessions, {}, runs=4, warmup=1)
    assert "".join(log) == "AB" + "ABBAABBA"
    assert times == [[pytest.approx(40.0)] * 4, [pytest.approx(20.0)] * 4]


@pytest.mark.parametrize(
    ("runs", "order"),
    [(1, "AABB"), (2, "AAABBB"), (3, "AAABBBBBAA"), (5, "AAABBBBBBAAAAABB")],
)
def test_a_brief_run_after_another_session_is_not_counted(
    clock: list[float], runs: int, order: str
) -> None:
    """It takes 5 ms more here, as what it needs is not in the caches."""
    log: list[str] = []
    sessions = [
        Recorder(name, log, milliseconds, clock) for name, milliseconds in (("A", 4.0), ("B", 2.0))
    ]
    for session in sessions:
        original = session.timed_run

        def cold(feeds: Feeds, original: Any = original, name: str = session.name) -> None:
            clock[0] += 5e-3 * (log[-1:] != [name])
            original(feeds)

        session.timed_run = cold  # type: ignore[method-assign]
    times = time_interleaved(sessions, {}, runs=runs, warmup=1)
    assert "".join(log) == "AB" + order
    assert times == [[pytest.approx(4.0)] * runs, [pytest.approx(2.0)] * runs]


@pytest.mark.parametrize(
    ("milliseconds", "runs"),
    [(1000.0, 5), (50.0, 20), (10.0, 67), (0.1, 200)],
    ids=["slow", "fits", "brief", "quick"],
)
def test_the_time_budget_sets_the_runs(milliseconds: float, runs: int, clock: list[float]) -> None:
    sessions = [Recorder(name, [], milliseconds, clock) for name in "AB"]
    assert [len(times) for times in time_interleaved(sessions, {}, seconds=2.0)] == [runs, runs]


def test_a_linear_drift_cancels(clock: list[float]) -> None:
    """A machine that slows down by 1 % a run favours neither of two equal models."""
    drifting = [Recorder(name, [], 1.0, clock) for name in "AB"]
    for session in drifting:
        original = session.timed_run

        def slower(feeds: Feeds, original: object = original) -> None:
            original(feeds)
            for other in drifting:
                other.seconds += 1e-5

        session.timed_run = slower
    before, after = time_interleaved(drifting, {}, runs=40, warmup=1)
    assert np.mean(before) == pytest.approx(np.mean(after))


MEGABYTE = 1 << 20


def saved(folder: Path, size: int) -> tuple[Path, dict[str, np.ndarray]]:
    """A layer that makes an image of 8 channels twice as large as its input."""
    path = folder / f"{size}.onnx"
    onnx.save(conv_transpose(integers(2, 8, 2, 2), (size, size), strides=[2, 2]), path)
    return path, {"x": integers(1, 2, size, size)}


def test_a_larger_image_takes_more(tmp_path: Path) -> None:
    """The image that is made, and the columns that it is made of, 8 MiB each."""
    small = peak_memory(*saved(tmp_path, 8), threads=1)
    large = peak_memory(*saved(tmp_path, 256), threads=1)
    assert small is not None
    assert large is not None
    assert 0 < small < large - 14 * MEGABYTE


def test_an_input_may_have_any_name(tmp_path: Path) -> None:
    proto = conv_transpose(integers(2, 8, 2, 2), (4, 4), strides=[2, 2])
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "file"
    onnx.save(proto, tmp_path / "model.onnx")
    assert peak_memory(tmp_path / "model.onnx", {"file": integers(1, 2, 4, 4)}, threads=1)


def test_what_does_not_run_has_none(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, 8)
    assert peak_memory(path, {"other": integers(1)}, threads=1) is None
    assert peak_memory(tmp_path / "missing.onnx", {"x": integers(1)}, threads=1) is None


def test_without_a_process_memory_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure.sys, "executable", str(tmp_path / "missing"))
    assert peak_memory(*saved(tmp_path, 8), threads=1) is None


def test_what_was_freed_counts() -> None:
    array = np.ones(32 * MEGABYTE)
    size = array.nbytes
    del array
    assert high_water() > size


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel name\t: Brand  X9 CPU @ 2.0GHz\n", "Brand X9 CPU @ 2.0GHz"),
        ("processor : 0\nmodel name :\n", None),
        ("", None),
    ],
)
def test_processor_name(cpuinfo: str, name: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert measure._processor_name(path) == name


def test_without_cpuinfo_the_platform_names_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.setattr(measure, "usable_cpus", lambda: 1)
    assert measure.describe_machine() == "arm, 1 CPU"


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [("150000 100000\n", 1.5), ("max 100000\n", 4.0), ("900000 100000\n", 4.0), (None, 4.0)],
    ids=["a control group", "no limit", "a limit above the processors", "no such file"],
)
def test_processors_that_may_be_used_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, cpus: float
) -> None:
    monkeypatch.setattr(measure, "usable_cpus", lambda: 4)
    path = tmp_path / "cpu.max"
    if limit is not None:
        path.write_text(limit)
    assert granted_cpus(path) == cpus


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (2.4, None),
        (3.0, "the machine is busy: a load of 3.0 on 2 processors"),
    ],
)
def test_a_load_above_the_processors_is_told(
    monkeypatch: pytest.MonkeyPatch, load: float, told: str | None
) -> None:
    monkeypatch.setattr(measure, "granted_cpus", lambda: 2.0)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0))
    assert busy_machine() == told


def test_a_system_that_does_not_tell_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.getloadavg")
    assert busy_machine() is None
