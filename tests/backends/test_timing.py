from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deployconv.backends import timing
from deployconv.backends.base import Array, Feeds, TensorSpec
from deployconv.backends.timing import measure_latency, time_interleaved
from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from tests.backends.tiny import FLOAT, unary, upsampler


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
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_sessions_take_turns_and_every_other_round_is_reversed(clock: list[float]) -> None:
    log: list[str] = []
    sessions = [Recorder("A", log, 4.0, clock), Recorder("B", log, 2.0, clock)]
    times = time_interleaved(sessions, {}, runs=4, warmup=1)
    assert "".join(log) == "AB" + "ABBAABBA"
    assert times == [[pytest.approx(4.0)] * 4, [pytest.approx(2.0)] * 4]


@pytest.mark.parametrize(
    ("milliseconds", "runs"), [(1000.0, 5), (50.0, 20), (0.1, 200)], ids=["slow", "fits", "quick"]
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


def test_one_model() -> None:
    latency = measure_latency(upsampler().SerializeToString(), None, "ort", threads=1, runs=6)
    assert (latency.runs, latency.threads, latency.backend) == (6, 1, "ort")
    assert latency.provider == "CPUExecutionProvider"
    assert latency.runtime.startswith("onnxruntime ")
    assert latency.machine
    assert 0 < latency.before_ms.median <= latency.before_ms.p95
    assert latency.after_ms is None
    assert latency.ratio is None


def test_a_pair_with_a_given_shape() -> None:
    small = upsampler(shape=(1, 2, "h", "w")).SerializeToString()
    feed = FeedOptions(shapes={"x": (1, 2, 7, 9)})
    latency = measure_latency(small, small, "ort", feed, threads=1, runs=5)
    assert latency.after_ms is not None
    assert latency.ratio is not None
    assert latency.ratio > 0


def test_the_ratio_is_above_one_where_the_second_model_is_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One pair was disturbed: the median of the paired ratios forgets it."""
    monkeypatch.setattr(timing, "time_interleaved", lambda *_: [[4, 40, 4, 8], [2, 2, 2, 4]])
    blob = unary("Neg").SerializeToString()
    latency = measure_latency(blob, blob, "ort")
    assert latency.ratio == 2.0
    assert latency.after_ms is not None
    assert (latency.before_ms.median, latency.after_ms.median) == (6.0, 2.0)


@pytest.mark.parametrize("runs", [0, -3])
def test_runs_must_be_positive(runs: int) -> None:
    with pytest.raises(UsageError, match="--runs"):
        measure_latency(b"", None, "ort", runs=runs)


def test_models_of_different_interfaces_are_not_timed() -> None:
    one = unary("Neg", FLOAT, (1, 8)).SerializeToString()
    other = unary("Neg", FLOAT, (1, 9)).SerializeToString()
    with pytest.raises(UsageError, match="do not take the same input 'x'"):
        measure_latency(one, other, "ort")
