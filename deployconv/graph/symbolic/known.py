"""What is known of a tensor at all sizes at once: its shape, and its elements if it has few.

A tensor whose number of elements is open, e.g. a Range, is known by one rule for all of its
elements (`Spread`). Nothing is known of an element that is computed differently at some sizes,
e.g. of a Max with a constant, or of a comparison. A `Call` is a node with what is known of its
inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.graph.symbolic.size import Size

Array = NDArray[Any]

FEW = 4096
"""Tensors of up to this many elements are known element by element."""
_ONE = Size.of(1)


class Unproven(Exception):
    """Nothing is known that holds at all sizes."""


@dataclass(frozen=True)
class Spread:
    """The rule that all elements follow: they are sums and products of sizes and of positions.

    Attributes:
        fill: the element, if all are the same.
        nonnegative: True if none is below 0.
        period: after how many positions whole divisions by constants repeat their pattern.
        sized: True if an element depends on a size, False if it depends on its position alone.
        cyclic: True if the elements themselves repeat after ``period``, or are all one constant.
    """

    fill: Size | None = None
    nonnegative: bool = False
    period: int = 1
    sized: bool = False
    cyclic: bool = False

    @classmethod
    def of(cls, fill: Size) -> Spread | None:
        """The rule of a tensor of one element; None if that grows faster than the sizes."""
        if fill.degree > 1:
            return None
        fixed, least = fill.constant is not None, fill.least
        nonnegative = least is not None and least >= 0
        return cls(fill, nonnegative, fill.denominator, not fixed, fixed)


Elements = Array | Spread | None
"""An array of `Size` or None for each element, or a `Spread`, or nothing known."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor. ``whole`` tells integers and booleans (0 and 1) from floats."""

    shape: tuple[Size, ...]
    elements: Elements = None
    whole: bool = True

    @classmethod
    def of(cls, values: Array) -> Known:
        """A constant."""
        shape = tuple(map(Size.of, values.shape))
        whole = values.dtype.kind in "iub"
        flat = values.astype(np.int64 if whole else np.float64)
        if not whole and not np.isfinite(flat).all():
            return cls(shape, None, whole)
        if values.size <= FEW:
            return cls(shape, np.asarray(np.frompyfunc(Size.of, 1, 1)(flat), object), whole)
        if not whole and (flat % 1).any():
            return cls(shape, None, whole)
        if (flat == flat.flat[0]).all():
            return cls(shape, Spread.of(Size.of(flat.flat[0].item())), whole)
        return cls(shape, Spread(nonnegative=bool((flat >= 0).all())), whole)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape as numbers; None if it depends on a size."""
        constants = [size.constant for size in self.shape]
        known = tuple(int(constant) for constant in constants if constant is not None)
        return known if len(known) == len(self.shape) else None

    @property
    def rule(self) -> Spread | None:
        """The rule for all elements; None if there is none."""
        return rule(self.elements) if isinstance(self.elements, np.ndarray) else self.elements

    def sizes(self) -> list[Size]:
        """The elements; Unproven if one is not known."""
        if not isinstance(self.elements, np.ndarray):
            raise Unproven
        found = [element for element in self.elements.ravel() if element is not None]
        if len(found) != self.elements.size:
            raise Unproven
        return found

    def ints(self) -> list[int]:
        """The elements as whole numbers; Unproven if one is no constant whole number."""
        constants = [size.constant for size in self.sizes()]
        whole = [int(number) for number in constants if number is not None and number % 1 == 0]
        if len(whole) != len(constants):
            raise Unproven
        return whole

    def moved(self, shape: Sequence[Size], move: Callable[[Array], Array]) -> Known:
        """The tensor after ``move``, which only moves or repeats elements."""
        moved = replace(self, shape=tuple(shape))
        if not isinstance(self.elements, np.ndarray):
            return moved
        static = moved.static
        if static is None or prod(static) > FEW:
            return replace(moved, elements=self.rule)
        return replace(moved, elements=move(self.elements).reshape(static))


def filled(shape: Sequence[Size], fill: Size, whole: bool) -> Known:
    """A tensor of ``fill`` alone."""
    one = np.full((1,) * len(shape), fill, object)
    known = Known((_ONE,) * len(shape), one, whole)
    return known.moved(shape, lambda array: np.broadcast_to(array, numbers(shape)))


def rule(elements: Array) -> Spread | None:
    """The rule for all elements; None if one is not known, or has a power of a size."""
    flat = list(elements.ravel())
    if not flat or any(element is None or element.degree > 1 for element in flat):
        return None
    if all(element == flat[0] for element in flat):
        return Spread.of(flat[0])
    leasts = [element.least for element in flat]
    return Spread(
        nonnegative=all(least is not None and least >= 0 for least in leasts),
        period=lcm(*(element.denominator for element in flat)),
        sized=any(element.constant is None for element in flat),
    )


def joined(*rules: Spread | None) -> Spread | None:
    """The rule for the elements of several tensors; None if one of them has no rule."""
    known = [one for one in rules if one is not None]
    if not known or len(known) < len(rules):
        return None
    if known[0].fill is not None and all(one.fill == known[0].fill for one in known):
        return known[0]
    return Spread(
        nonnegative=all(one.nonnegative for one in known),
        period=lcm(*(one.period for one in known)),
        sized=any(one.sized for one in known),
    )


def broadcast(*shapes: Sequence[Size]) -> tuple[Size, ...]:
    """The shape of a result of operands of ``shapes``."""
    rank = max(map(len, shapes))
    result = [_ONE] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if result[axis] == _ONE:
                result[axis] = size
            elif size not in (_ONE, result[axis]):
                raise Unproven
    return tuple(result)


@dataclass(frozen=True)
class Call:
    """A node's operator, inputs and attributes, and how many outputs it has."""

    op: str
    inputs: Sequence[Known | None]
    attributes: Mapping[str, Any]
    outputs: int = 1

    def given(self, position: int) -> Known:
        """The input at ``position``; Unproven if it is left out."""
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
        """Sizes that are an attribute in older opsets and an input in newer ones."""
        if name in self.attributes:
            return [Size.of(number) for number in self.attributes[name]]
        return self.given(position).sizes()

    def ints(self, name: str, position: int) -> list[int] | None:
        """Constant sizes, from an attribute or an input; None if they are left out."""
        if name in self.attributes:
            return [int(number) for number in self.attributes[name]]
        return self.given(position).ints() if self.has(position) else None


def extents(sizes: Sequence[Size], least: int) -> tuple[Size, ...]:
    """``sizes`` as a shape; Unproven if one could be below ``least``."""
    if any(size.least is None or size.least < least for size in sizes):
        raise Unproven
    return tuple(sizes)


def numbers(shape: Sequence[Size]) -> tuple[int, ...]:
    """Constant sizes as numbers. Raises Unproven if one of them is not constant."""
    return tuple(int(size.constant or 0) for size in shape)


def number(size: Size) -> int:
    """A constant as a number; Unproven if ``size`` is none."""
    if size.constant is None:
        raise Unproven
    return int(size.constant)
