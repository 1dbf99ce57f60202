"""Timing against the first session, with scripted durations: no clock runs here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest

from deployconv.runtimes.base import Array, Feeds, TensorSpec
from deployconv.search import measure as module
from deployconv.search.measure import Timing, time_against_first

LONG = 1e6
"""Seconds that no test here uses up."""


class Scripted:
    """A session whose runs take the milliseconds that were written down for it."""

    provider = "script"
    threads = 1
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    def __init__(self, milliseconds: Iterator[float], clock: Clock) -> None:
        self.milliseconds, self.clock, self.runs = milliseconds, clock, 0

    def run(self, feeds: Feeds) -> dict[str, Array]:
        raise AssertionError("timing uses timed_run")

    def timed_run(self, feeds: Feeds) -> float:
        taken = next(self.milliseconds)
        self.clock.now += taken / 1e3
        self.runs += 1
        return taken


class Clock:
    def __init__(self) -> None:
        self.now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    running = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: running.now))
    return running


def around(milliseconds: float, seed: int, spread: float = 0.05) -> Iterator[float]:
    """A run takes ``milliseconds``, more or less."""
    generator = np.random.default_rng(seed)
    while True:
        yield milliseconds * float(np.exp(spread * generator.standard_normal()))


def start(clock: Clock, *durations: float | Iterator[float]) -> list[Scripted]:
    return [
        Scripted(repeat(given) if isinstance(given, (int, float)) else given, clock)
        for given in durations
    ]


def test_a_faster_and_a_slower_session(clock: Clock) -> None:
    same, faster, slower = time_against_first(start(clock, 4.0, 2.0, 5.0), {}, LONG)
    assert (same.median_ms, same.ratio, same.low, same.high) == (4.0, 1.0, 1.0, 1.0)
    assert (faster.median_ms, faster.ratio) == (2.0, 2.0)
    assert faster.faster
    assert not faster.slower
    assert slower.ratio == 0.8
    assert slower.slower
    assert not slower.faster


def test_a_session_as_fast_as_the_first_is_neither(clock: Clock) -> None:
    _, equal = time_against_first(start(clock, 4.0, 4.0), {}, LONG)
    assert (equal.ratio, equal.faster, equal.slower) == (1.0, False, False)


def test_noise_does_not_make_an_equal_session_faster(clock: Clock) -> None:
    """Twenty timings of equal sessions whose runs vary by 5 %."""
    faster = 0
    for seed in range(20):
        sessions = start(clock, around(4.0, 2 * seed), around(4.0, 2 * seed + 1))
        faster += time_against_first(sessions, {}, seconds=2.0)[1].low > 1.01
    assert faster == 0


def test_a_gain_beyond_the_noise_is_found(clock: Clock) -> None:
    _, gain = time_against_first(start(clock, around(40.0, 0), around(36.0, 1)), {}, seconds=20.0)
    assert gain.faster
    assert gain.low < 40.0 / 36.0 < gain.high


def test_a_slower_session_is_dropped(clock: Clock) -> None:
    """The other two go on: their intervals are not narrow yet."""
    sessions = start(clock, around(4.0, 0), around(3.9, 1), 5.0)
    time_against_first(sessions, {}, seconds=2.0)
    first, close, slower = sessions
    assert slower.runs < 20 < close.runs
    assert abs(close.runs - first.runs) <= 1  # of those that do not count


def test_a_narrow_interval_ends_the_timing(clock: Clock) -> None:
    sessions = start(clock, 40.0, 20.0, 30.0)
    time_against_first(sessions, {}, LONG)
    # Two rounds and six; the first run after another session does not count.
    assert {session.runs for session in sessions} == {2 + 6 + 3, 2 + 6 + 4}


def test_the_time_limit_ends_a_timing_with_much_noise(clock: Clock) -> None:
    sessions = start(clock, around(4.0, 2), around(4.0, 3))
    time_against_first(sessions, {}, seconds=3.0)
    assert 2.9 < clock.now <= 3.0


@pytest.mark.parametrize(
    ("slowness", "dropped"), [(1.3, True), (1.2, False)], ids=["far", "less so"]
)
def test_if_runs_take_long_far_slower_sessions_are_dropped_at_once(
    clock: Clock, slowness: float, dropped: bool
) -> None:
    """The first evaluation takes a fifth of the time."""
    sessions = start(clock, 1000.0, 900.0, *[1000.0 * slowness] * 8)
    timings = time_against_first(sessions, {}, seconds=260.0)
    first, second, *others = (session.runs for session in sessions)
    assert min(first, second) >= 11
    assert all((runs == 3) == dropped for runs in others)
    assert timings[1].faster
    assert all(timing.slower for timing in timings[2:])


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [(30.0, [8, 3, 8, 7, 3]), (120.0, [11, 12, 12, 12, 11])],
    ids=["short of time", "time enough"],
)
def test_if_time_is_short_only_the_better_half_goes_on(
    clock: Clock, seconds: float, runs: list[int]
) -> None:
    sessions = start(clock, 1000.0, 1020.0, 900.0, 980.0, 1010.0)
    timings = time_against_first(sessions, {}, seconds)
    assert [session.runs for session in sessions] == runs
    assert [timing.slower for timing in timings] == [False, True, False, False, True]
    assert timings[2].faster
    assert clock.now <= seconds


def test_two_runs_give_a_wide_interval(clock: Clock) -> None:
    """The ratios of its two runs are 1.25 and 1.3; it is not in the better half all the same."""
    unlucky = iter([800.0, 800.0, 1000.0 / 1.3])
    _, timing, *_ = time_against_first(start(clock, 1000.0, unlucky, 700.0), {}, seconds=10.0)
    assert timing.ratio == pytest.approx(1.275)
    assert timing.low < 1.0 < 1.6 < timing.high


def test_without_time_two_rounds_are_timed(clock: Clock) -> None:
    sessions = start(clock, 1000.0, 900.0)
    _, timing = time_against_first(sessions, {}, seconds=-3.0)
    assert {session.runs for session in sessions} == {1 + 2}
    assert timing.ratio == pytest.approx(1 / 0.9)


def test_after_each_stage_the_worse_half_is_dropped(clock: Clock) -> None:
    """Eight sessions: two are left for the third of four stages, and one for the last."""
    sessions = start(clock, *(around(40.0, place, spread=0.3) for place in range(9)))
    time_against_first(sessions, {}, seconds=80.0)
    runs = sorted((session.runs for session in sessions[1:]), reverse=True)
    assert runs[0] == pytest.approx(sessions[0].runs, rel=0.2)
    assert runs[0] > 1.5 * runs[1]
    assert runs[1] > 1.5 * runs[2]
    assert runs[2] == pytest.approx(runs[3], rel=0.2)  # but for runs that do not count
    assert runs[3] > 1.5 * runs[4]
    assert clock.now == pytest.approx(80.0, abs=1.0)


def test_if_runs_are_short_a_few_slow_ones_do_not_matter(clock: Clock) -> None:
    slow_at_first = chain([40.0] * 3, repeat(2.0))
    _, timing = time_against_first(start(clock, 4.0, slow_at_first), {}, seconds=5.0)
    assert timing.ratio == 2.0
    assert timing.faster


def test_timing_ends_when_all_others_are_dropped(clock: Clock) -> None:
    sessions = start(clock, 1000.0, 2000.0, 3000.0)
    timings = time_against_first(sessions, {}, seconds=10.0)
    assert [timing.slower for timing in timings] == [False, True, True]
    assert {session.runs for session in sessions} == {3}


def test_a_slower_machine_does_not_move_the_ratio(clock: Clock) -> None:
    """It runs at half its speed for a while, and later at a third."""
    factors = [1.0] * 5 + [2.0] * 9 + [3.0] * 100
    sessions = start(clock, *(iter([took * by for by in factors]) for took in (4.0, 2.0)))
    _, timing = time_against_first(sessions, {}, LONG)
    assert (timing.low, timing.ratio, timing.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("runs", "low", "high"), [(6, 0, 5), (14, 2, 11), (23, 6, 16)])
def test_the_interval_is_between_two_order_statistics(runs: int, low: int, high: int) -> None:
    ratios = np.linspace(1.0, 2.0, runs)
    shuffled = np.random.default_rng(0).permutation(ratios)
    timing = Timing.of([1.0] * runs, list(shuffled))
    assert (timing.low, timing.high) == (ratios[low], ratios[high])
    assert timing.ratio == pytest.approx(1.5)


def test_many_ratios_are_taken_in_blocks() -> None:
    """A disturbance of 50 rounds is no 50 witnesses."""
    ratios = [1.0] * 25 + [1.2] * 50 + [1.0] * 45
    timing = Timing.of([1.0] * 120, ratios)
    assert (timing.low, timing.ratio, timing.high) == (1.0, 1.0, 1.2)


@pytest.mark.parametrize("runs", [2, 3, 4, 5])
def test_few_ratios_give_a_wide_interval(runs: int) -> None:
    timing = Timing.of([1.0] * runs, [1.1 + 0.1 * (place % 2) for place in range(runs)])
    assert timing.low < 1.1 < timing.ratio + 1e-9
    assert timing.high > 1.2


def interval(runs: int) -> tuple[int, int]:
    """The positions that `Timing.of` takes from the sorted ratios."""
    timing = Timing.of([1.0] * runs, [float(position) for position in range(runs)])
    return int(timing.low), int(timing.high)


def test_the_interval_contains_the_median_with_95_percent() -> None:
    """Each ratio is below the median with probability 1/2, so their number is binomial."""
    for runs in range(6, 24):
        low, high = interval(runs)
        inside = sum(comb(runs, below) for below in range(low + 1, high + 1))
        assert inside / 2**runs >= 0.95, runs
