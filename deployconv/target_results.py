"""What a target has to say of single layers: why not there, and how long. Times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DlaCode = Literal[
    "channels",
    "dilation",
    "dtype",
    "group",
    "kernel",
    "operator",
    "padding",
    "rank",
    "size",
    "stride",
]


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a layer off the DLA: a stable ``code`` and one line of ``text``."""

    code: DlaCode
    text: str


@dataclass(frozen=True)
class DlaNote:
    """What is documented to keep a layer off the DLA; nothing in it means that nothing is."""

    exported: tuple[Obstacle, ...]
    rewritten: tuple[Obstacle, ...] | None = None
    """After `rewrite`; None where the layer would stay as it is."""


@dataclass(frozen=True)
class LayerTime:
    """One layer of a runtime's own: milliseconds of a run, and the ONNX nodes it computes."""

    name: str
    ms: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class SiteTime:
    """Layers that compute the same ``sites``, by id; none for all that belongs to no site.

    ``ms`` is their sum. A layer that several sites were fused into is counted once, for them
    together.
    """

    sites: tuple[str, ...]
    ms: float
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes; means over ``runs``, taken apart from the latency.

    Each layer is timed by itself, so the sum is more than the latency.
    """

    runs: int
    sites: tuple[SiteTime, ...]
