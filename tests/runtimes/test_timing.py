"""Sessions timed in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deployconv.runtimes import timing
from deployconv.runtimes.base import Array, Feeds, TensorSpec
from deployconv.runtimes.timing import time_interleaved


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
    sessions = [Recorder("A", log, 40.0, clock), Recorder("B", log, 20.0, clock)]
    times = time_interleaved(sessions, {}, runs=6, warmup=1)
    # The first run after another session's is not counted, here in small letters.
    assert "".join(log) == "AB" + "aAAbBBBBaAAAAbBB".upper()
    assert times == [[pytest.approx(40.0)] * 6, [pytest.approx(20.0)] * 6]


def test_a_session_that_waits_for_a_small_part_of_its_own_time_is_counted_at_once(
    clock: list[float],
) -> None:
    log: list[str] = []
    sessions = [Recorder("A", log, 1000.0, clock), Recorder("B", log, 40.0, clock)]
    time_interleaved(sessions, {}, runs=4, warmup=1)
    assert "".join(log) == "AB" + "aAAbBBBBAA".upper()


def test_one_session_alone_never_waits(clock: list[float]) -> None:
    log: list[str] = []
    time_interleaved([Recorder("A", log, 4.0, clock)], {}, runs=3, warmup=1)
    assert "".join(log) == "A" + "AAA"


@pytest.mark.parametrize(
    ("runs", "order"),
    [(1, "AABB"), (2, "AAABBB"), (3, "AAABBBBAA"), (5, "AAABBBBBAAAABB")],
)
def test_a_run_after_another_session_is_not_counted(
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
    [(1000.0, 5), (50.0, 16), (10.0, 80), (0.1, 200)],
    ids=["slow", "fits", "shorter", "quick"],
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
