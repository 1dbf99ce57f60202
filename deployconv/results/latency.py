"""How long models take, as a whole and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantiles:
    """Latency of one model in milliseconds."""

    median: float
    p95: float


@dataclass(frozen=True)
class LayerTime:
    """One layer of a runtime: milliseconds per run, and the ONNX nodes that it computes."""

    name: str
    ms: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class SiteTime:
    """The layers that compute the same ``sites``; no site for all layers that belong to none.

    ``ms`` is the sum of the layers. A layer that several sites were fused into is counted once,
    for these sites together.
    """

    sites: tuple[str, ...]
    ms: float
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes; means over ``runs``, measured apart from the latency.

    Each layer is timed by itself, so the sum is more than the latency.
    """

    runs: int
    sites: tuple[SiteTime, ...]


@dataclass(frozen=True)
class Latency:
    """Interleaved timing. ``ratio`` is before / after: above 1, the second model is faster."""

    backend: str
    provider: str
    threads: int
    runs: int
    machine: str
    runtime: str
    before_ms: Quantiles
    after_ms: Quantiles | None = None
    ratio: float | None = None
    cuda_graph: bool = False
    """Whether each run was the launch of a captured CUDA graph."""
    profiles: tuple[Profile, ...] = ()
    """One per model, if they were asked for."""
    low: float | None = None
    """Lower end of the 95 % confidence interval of ``ratio``; None if there were too few runs."""
    high: float | None = None
    """Upper end of that interval."""
    note: str | None = None
    """What the times suffered from: more was running than there are processors."""
    times_ms: tuple[tuple[float, ...], ...] = ()
    """Every counted run in milliseconds, one list per model. Equal positions ran together."""
