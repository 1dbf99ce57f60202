"""What two models do not have in common."""

from __future__ import annotations

from dataclasses import dataclass

from deployconv.results.model import ModelInfo


@dataclass(frozen=True)
class NodeLine:
    """A node that only one of two models has."""

    scope: str
    name: str
    """Its outputs, if it has no name."""
    operator: str


@dataclass(frozen=True)
class ChangedWeight:
    """A weight that two models have with other values.

    ``before`` and ``after`` are element types and shapes. ``max_abs`` is the largest difference;
    None if the types or shapes differ, or it holds no numbers.
    """

    name: str
    before: str
    after: str
    max_abs: float | None


@dataclass(frozen=True)
class ModelDifference:
    """What differs between two models."""

    before: ModelInfo
    after: ModelInfo
    interface: tuple[str, ...]
    """Inputs, outputs and versions, in words."""
    nodes_removed: tuple[NodeLine, ...]
    nodes_added: tuple[NodeLine, ...]
    weights_removed: tuple[str, ...]
    weights_added: tuple[str, ...]
    weights_changed: tuple[ChangedWeight, ...]

    @property
    def equal(self) -> bool:
        """Whether the models have the same nodes, weights and interface."""
        return not (
            self.interface
            or self.nodes_removed
            or self.nodes_added
            or self.weights_removed
            or self.weights_added
            or self.weights_changed
        )
