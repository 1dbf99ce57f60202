"""A model that was read, and a file that was written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """The model that was read; ``path`` and ``sha256`` are None for one given in memory.

    ``opset`` is 0 for a model that imports the operators of other domains only.
    """

    path: str | None
    sha256: str | None
    opset: int
    ir_version: int


@dataclass(frozen=True)
class OutputFile:
    """A file that was written: a model or an engine."""

    path: str
    sha256: str
