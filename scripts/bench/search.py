"""How often noise is taken for a difference, and how good and how quick the search is."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.process import on_one_line
from bench.subjects import Shapes, random_feeds
from deployconv.options import FeedOptions
from deployconv.proof.latency import measure_latency
from deployconv.runtimes import get_backend
from deployconv.runtimes.blocks import Interval, time_in_blocks
from deployconv.runtimes.machine import usable_cpus

ROOT = Path(__file__).resolve().parent.parent.parent

_NEIGHBOUR = "data = bytes(1 << 24)\nwhile True: bytearray(data)"
"""A program that keeps one processor and the memory busy."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast a model is, with its 95 % confidence interval."""

    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Interval) -> Ratio:
        """The same; without a confidence interval from 0 to a very large number."""
        return cls(found.ratio, found.low, min(found.high, 1e9))


@dataclass(frozen=True)
class Noise:
    """Timings of models with themselves: any difference that is claimed is wrong.

    Attributes:
        busy: whether a neighbour kept one processor busy.
        timings: how many there were.
        claims: how many claimed a difference.
        fixed: how many a limit of 2 % would have claimed, whatever the interval.
        lowest: the smallest ratio.
        highest: the largest ratio.
        width: the median of the widths of the intervals.
        seconds: the median of how long a timing took.
    """

    busy: bool
    timings: int
    claims: int
    fixed: int
    lowest: float
    highest: float
    width: float
    seconds: float


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Keep one processor busy meanwhile, if ``busy``."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def measure_noise(
    models: Sequence[tuple[Path, Shapes]], busy: bool, timings: int, budget: float, threads: int
) -> Noise:
    """Time models with themselves, one after the other, and count the differences claimed."""
    found: list[Ratio] = []
    seconds: list[float] = []
    with neighbour(busy):
        for number in range(timings):
            model, shapes = models[number % len(models)]
            start = time.monotonic()
            feed = FeedOptions(shapes)
            latency = measure_latency(model, model, "ort", feed, threads, budget=budget)
            seconds.append(time.monotonic() - start)
            interval = (latency.ratio, latency.low, latency.high)
            found.append(Ratio(*(0.0 if end is None else end for end in interval)))
    return Noise(
        busy=busy,
        timings=timings,
        claims=sum(one.low > 1 or one.high < 1 for one in found),
        fixed=sum(abs(one.ratio - 1) > 0.02 for one in found),
        lowest=min(one.ratio for one in found),
        highest=max(one.ratio for one in found),
        width=statistics.median(one.high - one.low for one in found),
        seconds=statistics.median(seconds),
    )


@dataclass(frozen=True)
class Call:
    """A rewrite of one model by the command line.

    Attributes:
        name: what the table calls it.
        options: of the command.
        budget: seconds that the call allows; None for a policy that measures nothing.
        checkout: the version of deployconv.
    """

    name: str
    options: tuple[str, ...]
    budget: float | None = None
    checkout: Path = ROOT


@dataclass(frozen=True)
class Outcome:
    """What one call gave: how long it took, and how fast the model is.

    Attributes:
        seconds: of the whole call, imports and the proof included.
        ratio: against the original.
        against: the ratio of ``fastest`` against this one; None for ``fastest`` itself.
    """

    seconds: float
    ratio: Ratio
    against: Ratio | None = None


@dataclass(frozen=True)
class Row:
    """One model with the outcome of each call; ``error`` says why there is none."""

    model: str
    original_ms: float = 0.0
    outcomes: Mapping[str, Outcome] | None = None
    overshoot: float | None = None
    """Seconds that the search took beyond what is allowed: 1.5 times its budget and one run."""
    error: str | None = None


def rewrite(model: Path, output: Path, shapes: Shapes, threads: int, call: Call) -> float:
    """Run the command line of ``call``; return how many seconds it took."""
    sizes = [
        part
        for name, shape in shapes.items()
        for part in ("--shape", f"{name}:{','.join(map(str, shape))}")
    ]
    command = [sys.executable, "-m", "deployconv", "rewrite", str(model), "-o", str(output)]
    command += [*call.options, *sizes, "--no-bench", "--force"]
    if threads != usable_cpus():  # the default, also of versions without that option
        command += ["--threads", str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(call.checkout)}
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=call.checkout, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{call.name}: {done.stderr.strip()}")
    return time.monotonic() - start


def compare(
    name: str,
    model: Path,
    shapes: Shapes,
    threads: int,
    calls: Sequence[Call],
    seconds: float,
    folder: Path,
) -> Row:
    """Rewrite one model by each of ``calls`` and time all results beside the original."""
    try:
        outputs = [folder / f"{name}.{call.name}.onnx" for call in calls]
        taken = [
            rewrite(model, output, shapes, threads, call)
            for output, call in zip(outputs, calls, strict=True)
        ]
        backend, paths = get_backend("ort"), [model, *outputs]
        start = time.monotonic()
        sessions = [backend.prepare(path, threads=threads) for path in paths]
        blocks = time_in_blocks(
            sessions,
            [partial(backend.prepare, path, threads=threads) for path in paths],
            random_feeds(model, shapes, threads),
            seconds=seconds / 2,
            limit=seconds,
            load_seconds=time.monotonic() - start,
        )
    except Exception as error:
        return Row(name, error=on_one_line(error))
    names = [call.name for call in calls]
    ours = names.index("fastest") + 1
    outcomes = {
        call.name: Outcome(
            seconds=taken[place - 1],
            ratio=Ratio.of(blocks.interval(place)),
            against=None if place == ours else Ratio.of(blocks.interval(ours, first=place)),
        )
        for place, call in enumerate(calls, 1)
    }
    run = statistics.median(blocks.of_model(0)) / 1e3
    allowed = 1.5 * (calls[ours - 1].budget or 0.0) + run
    # Imports, loading and the proof take as long under cost.
    beyond = taken[ours - 1] - taken[names.index("cost")] - allowed
    return Row(name, 1e3 * run, outcomes, beyond)
