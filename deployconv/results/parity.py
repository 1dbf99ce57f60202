"""Whether two models compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deployconv.results.shown import Displayed


@dataclass(frozen=True)
class OutputParity:
    """How far one output of the candidate is from that of the reference."""

    name: str
    max_abs: float
    max_rel: float
    tolerance: float
    passed: bool
    problem: str | None = None
    """What differs besides the values: shape, dtype, NaN pattern."""


@dataclass(frozen=True)
class SizeParity:
    """Outputs of two models with dynamic inputs at other sizes than the first ones.

    ``not-run`` if the original does not run at these sizes, which is no failure.
    """

    shapes: Mapping[str, tuple[int, ...]]
    """By input name."""
    status: Literal["passed", "failed", "not-run"]
    outputs: tuple[OutputParity, ...] = ()
    """Empty if one of the models did not run."""
    reason: str | None = None
    """Why a model did not run, or what had to be tolerated."""


@dataclass(frozen=True)
class Parity(Displayed):
    """Outputs of two models on the same inputs, as one backend computed them.

    ``outputs`` are those at the first sizes; ``passed`` counts the other sizes too.
    """

    backend: str
    passed: bool
    outputs: tuple[OutputParity, ...]
    note: str | None = None
    """For example that a bfloat16 model was compared as its float32 twin."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The first sizes, by input name."""
    other_sizes: tuple[SizeParity, ...] = ()
    """For a model with dynamic inputs, what was run besides."""
