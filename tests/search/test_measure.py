"""Who is faster, by scripted durations: no clock runs here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest

from deployconv.runtimes.base import Array, Feeds, TensorSpec
from deployconv.search import measure as module
from deployconv.search.measure import Timing, race

LONG = 1e6
"""Seconds that no race here uses up."""


class Scripted:
    """A session whose runs take the milliseconds that were written down for it."""

    provider = "script"
    threads = 1
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    def __init__(self, milliseconds: Iterator[float], clock: Clock) -> None:
        self.milliseconds, self.clock, self.runs = milliseconds, clock, 0

    def run(self, feeds: Feeds) -> dict[str, Array]:
        raise AssertionError("a race uses timed_run")

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


def test_the_faster_wins_and_the_slower_loses(clock: Clock) -> None:
    same, faster, slower = race(start(clock, 4.0, 2.0, 5.0), {}, LONG)
    assert (same.median_ms, same.ratio, same.low, same.high) == (4.0, 1.0, 1.0, 1.0)
    assert (faster.median_ms, faster.ratio) == (2.0, 2.0)
    assert faster.faster
    assert not faster.slower
    assert slower.ratio == 0.8
    assert slower.slower
    assert not slower.faster


def test_who_equals_the_first_is_neither(clock: Clock) -> None:
    _, equal = race(start(clock, 4.0, 4.0), {}, LONG)
    assert (equal.ratio, equal.faster, equal.slower) == (1.0, False, False)


def test_noise_makes_no_equal_faster(clock: Clock) -> None:
    """Twenty races between equals whose runs vary by 5 %."""
    winners = 0
    for seed in range(20):
        sessions = start(clock, around(4.0, 2 * seed), around(4.0, 2 * seed + 1))
        winners += race(sessions, {}, seconds=2.0)[1].low > 1.01
    assert winners == 0


def test_a_gain_beyond_the_noise_is_found(clock: Clock) -> None:
    _, gain = race(start(clock, around(40.0, 0), around(36.0, 1)), {}, seconds=20.0)
    assert gain.faster
    assert gain.low < 40.0 / 36.0 < gain.high


def test_who_is_slower_drops_out(clock: Clock) -> None:
    """The other two go on: their figures are not narrow yet."""
    sessions = start(clock, around(4.0, 0), around(3.9, 1), 5.0)
    race(sessions, {}, seconds=2.0)
    first, close, slower = sessions
    assert slower.runs < 20 < close.runs == first.runs


def test_a_narrow_interval_ends_the_race(clock: Clock) -> None:
    sessions = start(clock, 40.0, 20.0, 30.0)
    race(sessions, {}, LONG)
    assert {session.runs for session in sessions} == {2 + 6 + 2}  # with two to warm up


def test_the_time_ends_a_race_that_noise_keeps_open(clock: Clock) -> None:
    sessions = start(clock, around(4.0, 0), around(4.0, 1))
    race(sessions, {}, seconds=3.0)
    assert 3.0 < clock.now < 3.1


@pytest.mark.parametrize(("slowness", "runs"), [(1.3, 3), (1.2, 10)], ids=["far", "less so"])
def test_where_runs_take_long_who_is_far_slower_goes_at_once(
    clock: Clock, slowness: float, runs: int
) -> None:
    """The first look takes a fifth of the time."""
    sessions = start(clock, 1000.0, 900.0, *[1000.0 * slowness] * 8)
    timings = race(sessions, {}, seconds=175.0)
    assert [session.runs for session in sessions] == [10, 10, *[runs] * 8]
    assert timings[1].faster
    assert all(timing.slower for timing in timings[2:])


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [(30.0, [10, 3, 10, 10, 3]), (100.0, [10] * 5)],
    ids=["short of time", "time enough"],
)
def test_where_time_is_short_the_better_half_has_the_rest(
    clock: Clock, seconds: float, runs: list[int]
) -> None:
    sessions = start(clock, 1000.0, 1020.0, 900.0, 980.0, 1010.0)
    timings = race(sessions, {}, seconds)
    slower = [position for position, count in enumerate(runs) if count == 3]
    assert [session.runs for session in sessions] == runs
    assert all(timings[position].slower for position in slower)
    assert timings[2].faster


def test_who_has_two_runs_only_is_hardly_known(clock: Clock) -> None:
    """Its two ratios are 1.25 and 1.3, but that is no proof: the better half has others."""
    unlucky = iter([800.0, 800.0, 1000.0 / 1.3])
    _, timing, *_ = race(start(clock, 1000.0, unlucky, 700.0), {}, seconds=10.0)
    assert timing.ratio == pytest.approx(1.275)
    assert timing.low < 1.0 < 1.6 < timing.high


def test_of_two_both_are_looked_at_after_six_rounds(clock: Clock) -> None:
    sessions = start(clock, 1000.0, 2000.0)
    race(sessions, {}, seconds=10.0)
    assert {session.runs for session in sessions} == {1 + 6}


@pytest.mark.parametrize(
    ("milliseconds", "until_decided", "lasts"),
    [(3.0, False, 5.0), (3.0, True, 1.0), (5.0, True, 1.0), (4.0, True, 5.0)],
    ids=["how much", "whether: yes", "whether: no", "whether, which the noise hides"],
)
def test_a_race_may_end_when_it_is_decided(
    clock: Clock, milliseconds: float, until_decided: bool, lasts: float
) -> None:
    """The ratio is known to within some percent only."""
    race(start(clock, around(4.0, 0), around(milliseconds, 1)), {}, 5.0, until_decided)
    assert lasts < clock.now < lasts + 0.1


def test_a_mood_of_the_machine_decides_nothing(clock: Clock) -> None:
    """For the first ten runs the rival is slower, for whatever reason."""
    rival = chain([5.0] * 10, repeat(3.0))
    _, timing = race(start(clock, 4.0, rival), {}, 5.0, until_decided=True)
    assert timing.worth


def test_where_runs_are_short_a_hiccup_costs_nobody_the_race(clock: Clock) -> None:
    hiccup = chain([40.0] * 3, repeat(2.0))
    _, timing = race(start(clock, 4.0, hiccup), {}, seconds=5.0)
    assert timing.ratio == 2.0
    assert timing.faster


def test_the_race_ends_when_nobody_is_left(clock: Clock) -> None:
    sessions = start(clock, 1000.0, 2000.0, 3000.0)
    timings = race(sessions, {}, seconds=10.0)
    assert [timing.slower for timing in timings] == [False, True, True]
    assert {session.runs for session in sessions} == {3}


def test_what_slows_the_machine_slows_both(clock: Clock) -> None:
    """It runs at half its speed for a while, and at a third later: the ratio does not move."""
    factors = [1.0] * 5 + [2.0] * 9 + [3.0] * 100
    sessions = start(clock, *(iter([took * by for by in factors]) for took in (4.0, 2.0)))
    _, timing = race(sessions, {}, LONG)
    assert (timing.low, timing.ratio, timing.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("runs", "low", "high"), [(5, 0, 4), (6, 0, 5), (14, 2, 11), (26, 7, 18), (100, 39, 60)]
)
def test_the_interval_goes_from_one_order_statistic_to_another(
    runs: int, low: int, high: int
) -> None:
    ratios = np.linspace(1.0, 2.0, runs)
    shuffled = np.random.default_rng(0).permutation(ratios)
    timing = Timing.of([1.0] * runs, list(shuffled))
    assert (timing.low, timing.high) == (ratios[low], ratios[high])
    assert timing.ratio == pytest.approx(1.5)


def interval(runs: int) -> tuple[int, int]:
    """The positions that `Timing.of` takes from the sorted ratios."""
    timing = Timing.of([1.0] * runs, [float(position) for position in range(runs)])
    return int(timing.low), int(timing.high)


def test_the_interval_holds_the_median_with_95_percent() -> None:
    """Each ratio is below the median with probability 1/2, so their number is binomial."""
    for runs in range(6, 200):
        low, high = interval(runs)
        inside = sum(comb(runs, below) for below in range(low + 1, high + 1))
        assert inside / 2**runs >= 0.95, runs
