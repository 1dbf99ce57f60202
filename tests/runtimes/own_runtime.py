"""A runtime that is onnxruntime, but for what it misreads or refuses as a test tells it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deployconv.errors import BackendUnavailable
from deployconv.runtimes import RUNTIMES, Runtime, get_backend
from deployconv.runtimes.base import Array, Feeds, ModelSource, Session

ROW = Runtime(
    *("own", "own_module", "own", "pip install own", "not-fitted"),
    runs_reference=False,
    runs_any_size=True,
)


@dataclass
class OwnSession:
    """Adds ``wrong`` to every output of onnxruntime."""

    session: Session
    wrong: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        found = self.session.run(feeds)
        return {name: np.asarray(one + self.wrong, one.dtype) for name, one in found.items()}


@dataclass
class OwnBackend:
    """onnxruntime, but for models with an operator: ``always`` or only ``optimised`` off by some.

    ``wrong`` lists operator, when and by how much. Models with an operator in ``refused`` are not
    loaded.
    """

    wrong: tuple[tuple[str, str, float], ...] = ()
    refused: tuple[str, ...] = ()
    name: str = "own"
    runtime: str = "own 1.0"

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> OwnSession:
        content = model.read_bytes() if isinstance(model, Path) else model
        for operator in self.refused:
            if operator.encode() in content:
                raise BackendUnavailable(f"own 1.0 does not know {operator}")
        wrong = sum(
            amount
            for operator, when, amount in self.wrong
            if operator.encode() in content and (optimise or when == "always")
        )
        return OwnSession(get_backend("ort").prepare(model, threads=threads), wrong)


def install(monkeypatch: pytest.MonkeyPatch, backend: OwnBackend, **abilities: Any) -> None:
    """Make ``--backend own`` this backend; ``abilities`` are fields of its row."""
    module = ModuleType(ROW.module)
    module.load = lambda name: backend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, ROW.module, module)
    monkeypatch.setitem(RUNTIMES, ROW.name, replace(ROW, **abilities))  # type: ignore[arg-type]
