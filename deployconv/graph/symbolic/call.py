"""A node with what is known of its inputs, as the operators of this package read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployconv.graph.symbolic.known import Known, Unproven
from deployconv.graph.symbolic.size import Size

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Call:
    """A node's inputs and attributes, wherever its opset has them."""

    op: str
    inputs: Sequence[Known | None]
    attributes: Mapping[str, Any]

    def given(self, position: int) -> Known:
        """The input at ``position``; Unproven where it is left out."""
        known = self.inputs[position]
        if known is None:
            raise Unproven
        return known

    def all(self) -> list[Known]:
        """Every input."""
        return [self.given(position) for position in range(len(self.inputs))]

    def has(self, position: int) -> bool:
        """Whether there is an input at ``position``."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def sizes(self, name: str, position: int) -> list[Size]:
        """An attribute of older opsets, an input of newer ones."""
        if name in self.attributes:
            return [Size.of(number) for number in self.attributes[name]]
        return self.given(position).sizes()

    def ints(self, name: str, position: int) -> list[int] | None:
        """Likewise, constant; None where neither is there."""
        if name in self.attributes:
            return [int(number) for number in self.attributes[name]]
        return self.given(position).ints() if self.has(position) else None


def extents(sizes: Sequence[Size], least: int) -> Shape:
    """Sizes of a shape; Unproven where one could be below ``least``."""
    if any(size.least is None or size.least < least for size in sizes):
        raise Unproven
    return tuple(sizes)


def numbers(shape: Sequence[Size]) -> tuple[int, ...]:
    """A shape that is the same at all sizes."""
    return tuple(int(size.constant or 0) for size in shape)


def number(size: Size) -> int:
    """A size that is a constant; Unproven for others."""
    if size.constant is None:
        raise Unproven
    return int(size.constant)
