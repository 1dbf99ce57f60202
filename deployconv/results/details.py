"""What a report draws besides: changed nodes, phases, differences of outputs, time per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployconv.results.latency import Profile


@dataclass(frozen=True)
class DrawnNode:
    """A node in a picture of a graph; ``detail`` has its attributes and constants in words."""

    name: str
    operator: str
    detail: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class DrawnGraph:
    """Nodes in their order, and the shapes of the tensors between them, such as ``1x64xHxW``."""

    nodes: tuple[DrawnNode, ...]
    shapes: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """The nodes that were removed and those that took their place, for one or several sites."""

    sites: tuple[str, ...]
    before: DrawnGraph
    after: DrawnGraph


@dataclass(frozen=True)
class KernelPhases:
    """Which taps of a site's kernel each phase has, per spatial axis.

    ``axes[a][q][m]`` are the taps along axis ``a`` that stand at place ``m`` of the small kernel
    of phase ``q``: none where that kernel has a zero, several where they are added up.
    """

    site: str
    axes: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]


@dataclass(frozen=True)
class OutputMaps:
    """One plane of an output of both models, and their difference, as rows of numbers.

    ``plane`` says which, such as ``[0, 0, :, :]``. A large plane is made smaller: outputs by their
    means over blocks, the absolute difference by its largest values.
    """

    plane: str
    reference: tuple[tuple[float, ...], ...]
    candidate: tuple[tuple[float, ...], ...]
    difference: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OutputDetail:
    """How the differences of one output are spread.

    ``equal`` counts the elements without a difference. ``counts`` has the others, by the power of
    ten that their difference is at least: ``exponents``, the smallest first.
    """

    name: str
    equal: int
    exponents: tuple[int, ...]
    counts: tuple[int, ...]
    maps: OutputMaps | None = None


@dataclass(frozen=True)
class Details:
    """What is collected for a report only."""

    changes: tuple[Change, ...] = ()
    phases: tuple[KernelPhases, ...] = ()
    outputs: tuple[OutputDetail, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    """Peak memory of the original and of the rewritten model; empty if it was not measured."""
    profiles: tuple[Profile, ...] = ()
    """Time per layer of both models, as onnxruntime's profiler measures it."""
    missing: tuple[str, ...] = ()
    """What could not be collected, and why."""
