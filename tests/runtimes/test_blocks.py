"""Models compared in blocks, with simulated noise: no clock runs here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import exp, inf
from types import SimpleNamespace

import numpy as np
import pytest

from deployconv.runtimes import blocks as module
from deployconv.runtimes.base import Array, Feeds, Session, TensorSpec
from deployconv.runtimes.blocks import GROUP, Blocks, Interval, time_in_blocks

Noise = Iterator[float]
"""By how much each run of the machine takes longer, one run after the other."""


@dataclass
class Machine:
    """A machine with a clock and noise that all sessions share, and one for every session."""

    noise: Noise = field(default_factory=lambda: repeat(1.0))
    session_noise: Callable[[int], float] = lambda number: 1.0
    """By how much all runs of a session take longer, by the number of sessions before it."""
    now: float = 0.0
    loaded: int = 0
    load_seconds: float = 0.001
    runs: int = 0

    def prepare(self, milliseconds: float) -> Simulated:
        self.now += self.load_seconds
        self.loaded += 1
        return Simulated(self, milliseconds * self.session_noise(self.loaded - 1))


@dataclass
class Simulated:
    """A session whose runs take so many milliseconds, times the noise of the machine."""

    machine: Machine
    milliseconds: float
    provider = "simulated"
    threads = 1
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    def run(self, feeds: Feeds) -> dict[str, Array]:
        raise AssertionError("timing uses timed_run")

    def timed_run(self, feeds: Feeds) -> float:
        taken = self.milliseconds * next(self.machine.noise)
        self.machine.now += taken / 1e3
        self.machine.runs += 1
        return taken


def compared(
    machine: Machine,
    *milliseconds: float,
    seconds: float = 2.0,
    limit: float = 10.0,
    anew: bool = True,
    seed: int = 0,
    **options: int,
) -> Blocks:
    prepare = [lambda ms=ms: machine.prepare(ms) for ms in milliseconds]  # type: ignore[misc]
    sessions: list[Session] = [one() for one in prepare]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: machine.now))
        return time_in_blocks(
            sessions,
            prepare if anew else None,
            {},
            seconds=seconds,
            limit=limit,
            load_seconds=machine.load_seconds * len(milliseconds),
            chance=random.Random(seed),
            **options,
        )


def white(generator: np.random.Generator, spread: float = 0.05) -> Noise:
    """Each run varies by itself."""
    while True:
        yield exp(spread * generator.standard_normal())


def lasting(generator: np.random.Generator, spread: float = 0.3, stays: float = 0.99) -> Noise:
    """Autoregressive noise: what a run suffers, the next one suffers too."""
    level = spread * generator.standard_normal()
    while True:
        level = stays * level + spread * (1 - stays**2) ** 0.5 * generator.standard_normal()
        yield exp(level)


def bursts(generator: np.random.Generator) -> Noise:
    """A neighbour makes runs take twice as long, for about 40 runs at a time."""
    busy = False
    while True:
        busy = busy != (generator.random() < 0.025)
        yield (2.0 if busy else 1.0) * exp(0.02 * generator.standard_normal())


def placed(generator: np.random.Generator) -> Callable[[int], float]:
    """A session has its tensors at a good or a bad place in memory for as long as it lives."""
    return lambda number: exp(0.04 * generator.standard_normal())


def second_is_slower(generator: np.random.Generator) -> Callable[[int], float]:
    """The session that is loaded second is the slower one."""
    return lambda number: 1.0 + 0.05 * (number % 2)


def quiet(generator: np.random.Generator) -> Callable[[int], float]:
    return lambda number: 1.0


@pytest.mark.parametrize("noise", [white, lasting, bursts])
@pytest.mark.parametrize("session_noise", [quiet, placed, second_is_slower])
def test_of_100_timings_of_a_model_with_itself_at_most_5_claim_a_difference(
    noise: Callable[[np.random.Generator], Noise],
    session_noise: Callable[[np.random.Generator], Callable[[int], float]],
) -> None:
    claims = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        machine = Machine(noise(generator), session_noise(generator))
        found = compared(machine, 40.0, 40.0, limit=4.0, seed=seed).interval(1)
        claims += found.faster or found.slower
    assert claims <= 5


@pytest.mark.parametrize("noise", [white, lasting, bursts])
def test_a_gain_of_a_fifth_is_found_all_the_same(
    noise: Callable[[np.random.Generator], Noise],
) -> None:
    found = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        machine = Machine(noise(generator), placed(generator))
        interval = compared(machine, 48.0, 40.0, limit=10.0, seed=seed).interval(1)
        found += interval.faster and interval.low < 1.2 < interval.high
    assert found >= 16


def test_runs_of_one_block_are_no_independent_witnesses() -> None:
    """All runs of one session are slower, which an interval made of single runs would claim."""
    generator = np.random.default_rng(0)
    blocks = compared(Machine(white(generator, 0.01), placed(generator)), 4.0, 4.0)
    by_run = Interval.of(list(np.divide(blocks.times[0][0], blocks.times[0][1])))
    assert by_run.faster or by_run.slower
    assert blocks.interval(1).low < 1.0 < blocks.interval(1).high


def test_without_noise_one_group_of_blocks_is_enough() -> None:
    blocks = compared(Machine(), 40.0, 20.0)
    assert len(blocks.times) == GROUP
    assert blocks.interval(1) == Interval(2.0, 2.0, 2.0)
    assert set(blocks.of_model(0)) == {40.0}


def test_a_wide_interval_takes_longer_until_the_limit() -> None:
    machine = Machine(lasting(np.random.default_rng(0), 0.5, 0.8))
    blocks = compared(machine, 40.0, 40.0, limit=8.0)
    assert 7.0 < machine.now < 9.0
    assert len(blocks.times) > GROUP


def test_a_clear_gain_needs_no_narrow_interval() -> None:
    blocks = compared(Machine(white(np.random.default_rng(0), 0.1)), 80.0, 20.0)
    assert len(blocks.times) == GROUP
    assert blocks.interval(1).low > 2.0


def test_each_model_comes_first_equally_often() -> None:
    machine = Machine(session_noise=lambda number: 1.0 + 0.5 * (number % 2))
    ratios = compared(machine, 40.0, 40.0).ratios(1)
    assert sorted({round(ratio, 3) for ratio in ratios[:GROUP]}) == [0.667, 1.5]
    assert sum(ratio > 1 for ratio in ratios[:GROUP]) == GROUP // 2


def test_three_models_are_compared_with_each_other() -> None:
    blocks = compared(Machine(), 40.0, 20.0, 10.0)
    assert [blocks.interval(model).ratio for model in (1, 2)] == [2.0, 4.0]
    assert blocks.interval(2, first=1).ratio == 2.0


@pytest.mark.parametrize(
    ("load_seconds", "anew", "loaded"),
    [(0.01, True, 2 + 2 * GROUP), (0.01, False, 2), (1.0, True, 2)],
    ids=["anew", "never anew", "loading takes too long"],
)
def test_each_block_loads_the_models_anew_if_that_does_not_take_too_long(
    load_seconds: float, anew: bool, loaded: int
) -> None:
    machine = Machine(load_seconds=load_seconds)
    compared(machine, 40.0, 20.0, anew=anew)
    assert machine.loaded == loaded


def test_what_sessions_may_differ_by_is_no_difference_between_models() -> None:
    """Loading anew would take too long, so the second session is the slower one all the time."""
    machine = Machine(session_noise=lambda number: 1.0 + 0.03 * number, load_seconds=2.0)
    interval = compared(machine, 40.0, 40.0).interval(1)
    assert interval.low < 1.0 < interval.high


def test_long_runs_are_as_few_as_an_interval_needs() -> None:
    machine = Machine()
    blocks = compared(machine, 5000.0, 4000.0, limit=10.0)
    # Before each of the six runs of a model is one that is not counted.
    assert machine.runs == 2 + 2 * 2 * 6
    assert blocks.interval(1).low > 1.2


def test_a_limit_may_be_strict() -> None:
    machine = Machine()
    blocks = compared(machine, 5000.0, 4000.0, limit=20.0, fewest=1)
    assert machine.now < 28.0
    assert blocks.interval(1) == Interval(1.25, 0.0, inf)


@pytest.mark.parametrize(("runs", "blocks"), [(1, 1), (5, 5), (8, 8), (21, 8)])
def test_a_number_of_runs(runs: int, blocks: int) -> None:
    found = compared(Machine(), 40.0, 20.0, runs=runs)
    assert len(found.times) == blocks
    assert len(found.of_model(0)) == len(found.of_model(1)) == runs
    assert (found.interval(1).high < inf) is (blocks >= 6)


@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (1, -1, 1, -1)], ids=["one side", "both"])
def test_timing_ends_by_how_far_ratios_are_from_1_and_not_by_their_side(
    signs: tuple[int, ...],
) -> None:
    """Otherwise it would end as soon as noise happens to look like a difference."""
    ratios = [exp(0.03 * sign * (1 + 0.05 * at)) for at, sign in enumerate(signs * 2)]
    blocks = Blocks(tuple(((ratio,), (1.0,)) for ratio in ratios))
    assert blocks.settled
