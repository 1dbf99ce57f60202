"""A backend whose races are decided by script: real sessions, but no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import ModelProto

from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Array, Feeds, ModelSource, Session
from deployconv.search import workbench
from deployconv.search.measure import Timing

Cost = Callable[[ModelProto], float]
"""Milliseconds that a model takes."""


def free(model: ModelProto) -> float:
    """All models are as fast as each other."""
    return 1.0


@dataclass
class Track:
    """Stands for the backend, for the race and for what memory is measured.

    ``cost`` decides the races of the sites, ``final`` those with the original; each ratio is
    known to within ``noise``.
    """

    cost: Cost = free
    final: Cost | None = None
    noise: Callable[[ModelProto], float] = lambda model: 0.0
    memory: Callable[[ModelProto], int | None] = lambda model: 100
    """Peak memory of a model."""
    name: str = "ort"
    runtime: str = "onnxruntime 1.32.0"
    now: float = 0.0
    """What the tuner takes for the time."""
    lasts: float = 0.0
    """Seconds that a race takes."""
    takes: float = 0.0
    """Seconds that a run of any model takes."""
    races: list[list[ModelProto]] = field(default_factory=list)
    """The models of each race without the original: about a site, or several together."""
    finals: list[ModelProto] = field(default_factory=list)
    """The models that raced with the original."""
    weighed: list[ModelProto] = field(default_factory=list)
    """The models of which the memory was measured."""
    granted: list[float] = field(default_factory=list)
    """Seconds that each race was given."""
    folder: Path = Path()
    """Where the originals lie that are files."""
    _models: dict[int, ModelProto] = field(default_factory=dict)
    _originals: set[int] = field(default_factory=set)
    _sessions: list[Session] = field(default_factory=list)

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> Session:
        session = get_backend("ort").prepare(model, threads=1, optimise=optimise)
        proto = onnx.load(model) if isinstance(model, Path) else ModelProto.FromString(model)
        run = session.run

        def timed(feeds: Feeds) -> dict[str, Array]:
            self.now += self.takes
            return run(feeds)

        session.run = timed  # type: ignore[method-assign]
        self._sessions.append(session)  # kept, so that no other gets its id
        self._models[id(session)] = proto
        if not isinstance(model, Path) or model.parent == self.folder:
            self._originals.add(id(session))
        return session

    def race(
        self, sessions: Sequence[Session], feeds: Feeds, seconds: float, until_decided: bool
    ) -> list[Timing]:
        models = [self._models[id(session)] for session in sessions]
        self.now += self.lasts
        self.granted.append(seconds)
        cost = self.cost
        if id(sessions[0]) in self._originals:
            self.finals.append(models[1])
            cost = self.final or self.cost
        else:
            self.races.append(models)
        return [self._timing(model, models[0], cost) for model in models]

    def peak_memory(self, path: Path, feeds: Feeds, threads: int, runtime: str) -> int | None:
        self.weighed.append(onnx.load(path))
        return self.memory(self.weighed[-1])

    def _timing(self, model: ModelProto, first: ModelProto, cost: Cost) -> Timing:
        ratio, noise = cost(first) / cost(model), self.noise(model)
        return Timing(cost(model), ratio, ratio - noise, ratio + noise)


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Track:
    made = Track(folder=tmp_path)
    monkeypatch.setattr(workbench, "get_backend", lambda name: made)
    monkeypatch.setattr(workbench, "time_against_first", made.race)
    monkeypatch.setattr(workbench, "peak_memory", made.peak_memory)
    monkeypatch.setattr(workbench, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return made


def by_operator(**milliseconds: float) -> Cost:
    """A node takes what its operator takes."""

    def cost(model: ModelProto) -> float:
        return 1.0 + sum(milliseconds.get(node.op_type, 0.0) for node in model.graph.node)

    return cost


def left(model: ModelProto) -> frozenset[str]:
    """Names of the ConvTranspose nodes that are as they were."""
    return frozenset(node.name for node in model.graph.node if node.op_type == "ConvTranspose")
