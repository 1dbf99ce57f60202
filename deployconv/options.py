"""The options of each command as frozen dataclasses: the same names as the flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Policy = Literal["all", "cost", "fastest"]
_Lowering = Literal["crop", "pad", "split", "separable", "matrix"]
Form = Literal["auto", _Lowering]
"""The forms that a caller can ask for."""
FormName = Literal[_Lowering, "conv"]
"""The forms that a rewritten layer can have. ``conv`` is a Conv without a shuffle."""

ShuffleName = Literal["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
"""The ways to move the phases from channels into space."""
Shuffle = Literal["auto", ShuffleName]
"""The shuffles that a caller can ask for."""

Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> concrete shape, e.g. ``{"x": (1, 3, 64, 64)}``."""

ShapeRanges = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Input name -> smallest, optimal and largest shape that an engine is built for."""


@dataclass(frozen=True)
class FeedOptions:
    """What the models are run on: the user's own arrays, or seeded random ones."""

    shapes: Shapes = field(default_factory=dict)
    inputs: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class GpuOptions:
    """How a GPU is timed: by captured CUDA graphs, and layer by layer as well."""

    profile: bool = False
    cuda_graph: bool = False


@dataclass(frozen=True)
class RewriteOptions:
    """Which sites are rewritten, into which form."""

    policy: Policy = "all"
    form: Form = "auto"
    shuffle: Shuffle = "auto"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    freeze_initializers: bool = False
    allow_requantize: bool = False
    float_bias: bool = False
    """A bias of rewritten layers that is int32 becomes float: TensorRT parses no other."""
