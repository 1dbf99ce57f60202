"""A backend whose timings are scripted: real sessions, but no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import ModelProto

from deployconv.runtimes import blocks, get_backend
from deployconv.runtimes.base import Array, Feeds, ModelSource, Session
from deployconv.runtimes.blocks import Blocks
from deployconv.search import alone, measure, workbench
from deployconv.search.measure import Timing

Cost = Callable[[ModelProto], float]
"""Milliseconds that a model takes."""


def free(model: ModelProto) -> float:
    """All models are as fast as each other."""
    return 1.0


@dataclass
class ScriptedBackend:
    """Replaces the backend, the timing of sessions, the clock and the measurement of memory.

    ``cost`` decides the comparisons of variants, ``final`` those with the original; confidence
    intervals are ``noise`` wide on either side.
    """

    cost: Cost = free
    final: Cost | None = None
    noise: Callable[[ModelProto], float] = lambda model: 0.0
    memory: Callable[[ModelProto], int | None] = lambda model: 100
    """Peak memory of a model."""
    name: str = "ort"
    runtime: str = "onnxruntime 1.32.0"
    now: float = 0.0
    """The time on the clock."""
    comparison_seconds: float = 0.0
    """Seconds that a comparison takes."""
    run_seconds: float = 0.0
    """Seconds that a run of any model takes."""
    load_seconds: float = 0.0
    """Seconds that loading any model takes."""
    memory_seconds: float = 0.0
    """Seconds that measuring the memory of a model takes."""
    comparisons: list[list[ModelProto]] = field(default_factory=list)
    """The models of each comparison of the forms of one site."""
    finals: list[list[ModelProto]] = field(default_factory=list)
    """The models of each comparison with the original, which is not listed."""
    measured: list[ModelProto] = field(default_factory=list)
    """The models whose memory was measured."""
    budgets: list[float] = field(default_factory=list)
    """Seconds that each comparison was given."""
    _models: dict[int, ModelProto] = field(default_factory=dict)
    _sessions: list[Session] = field(default_factory=list)

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> Session:
        self.now += self.load_seconds
        session = get_backend("ort").prepare(model, threads=1, optimise=optimise)
        proto = onnx.load(model) if isinstance(model, Path) else ModelProto.FromString(model)
        run = session.run

        def timed(feeds: Feeds) -> dict[str, Array]:
            self.now += self.run_seconds
            return run(feeds)

        def timed_run(feeds: Feeds) -> float:
            self.now += self.run_seconds
            return 1e3 * self.run_seconds * self.cost(proto)

        session.run = timed  # type: ignore[method-assign]
        session.timed_run = timed_run  # type: ignore[method-assign]
        self._sessions.append(session)  # kept, so that no other gets its id
        self._models[id(session)] = proto
        return session

    def compare(self, sessions: Sequence[Session], feeds: Feeds, seconds: float) -> list[Timing]:
        models = [self._models[id(session)] for session in sessions]
        self.now += self.comparison_seconds
        self.budgets.append(seconds)
        self.comparisons.append(models)
        return [self._timing(model, models[0], self.cost) for model in models]

    def compare_blocks(
        self, sessions: Sequence[Session], prepare: object, feeds: Feeds, **options: float
    ) -> Blocks:
        models = [self._models[id(session)] for session in sessions]
        self.now += self.comparison_seconds
        self.budgets.append(options["limit"])
        self.finals.append(models[1:])
        cost = self.final or self.cost
        # The ratio of every second block is too large, that of the others too small.
        spread = [1.0 + sign * max(map(self.noise, models)) for sign in (-1, 1)]
        return Blocks(
            tuple(
                tuple((cost(model) * (by if at == 0 else 1.0),) for at, model in enumerate(models))
                for by in spread * 4
            )
        )

    def peak_memory(
        self, path: Path, feeds: Feeds, threads: int, runtime: str, timeout: float
    ) -> int | None:
        self.now += min(self.memory_seconds, timeout)
        self.measured.append(onnx.load(path))
        return self.memory(self.measured[-1]) if self.memory_seconds <= timeout else None

    def _timing(self, model: ModelProto, first: ModelProto, cost: Cost) -> Timing:
        ratio, noise = cost(first) / cost(model), self.noise(model)
        return Timing(cost(model), ratio, ratio - noise, ratio + noise)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedBackend:
    made = ScriptedBackend()
    for module in (workbench, alone):
        monkeypatch.setattr(module, "get_backend", lambda name: made)
        monkeypatch.setattr(module, "time_against_first", made.compare)
    monkeypatch.setattr(workbench, "time_in_blocks", made.compare_blocks)
    monkeypatch.setattr(workbench, "peak_memory", made.peak_memory)
    for timed in (workbench, alone):
        monkeypatch.setattr(timed, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return made


@pytest.fixture
def clocked(scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> ScriptedBackend:
    """The scripted backend with real comparisons, in which each run takes ``run_seconds``."""
    clock = SimpleNamespace(monotonic=lambda: scripted.now)
    for module in (measure, blocks):
        monkeypatch.setattr(module, "time", clock)
    for user in (workbench, alone):
        monkeypatch.setattr(user, "time_against_first", measure.time_against_first)
    monkeypatch.setattr(workbench, "time_in_blocks", blocks.time_in_blocks)
    return scripted


def by_operator(**milliseconds: float) -> Cost:
    """A model takes one millisecond, and those of the operators of its nodes."""

    def cost(model: ModelProto) -> float:
        return 1.0 + sum(milliseconds.get(node.op_type, 0.0) for node in model.graph.node)

    return cost


def left(model: ModelProto) -> frozenset[str]:
    """The names of the ConvTranspose nodes that were not rewritten."""
    return frozenset(node.name for node in model.graph.node if node.op_type == "ConvTranspose")
