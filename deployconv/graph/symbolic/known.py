"""What is known of a tensor at all sizes at once: its shape, and its elements if it has few.

A tensor whose extent is open, such as a Range, is known by what holds of every element
(`Spread`). Elements of which nothing is known are those that would behave otherwise at some
size: of a Max with a constant, of a comparison. A `Call` is a node with what is known of its
inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.graph.symbolic.size import Size

Array = NDArray[Any]

FEW = 4096
"""Elements up to which each is known by itself."""
_ZERO, _ONE = Size.of(0), Size.of(1)


class Unproven(Exception):
    """Nothing is known that holds at all sizes."""


@dataclass(frozen=True)
class Spread:
    """Elements that follow one rule: sums and products of sizes and of positions.

    Attributes:
        fill: the element, where all are the same.
        nonnegative: True if none is below 0.
        period: whole divisions by constants repeat their pattern after as many positions.
        sized: False if an element depends on its position alone, not on any size.
        cyclic: True if the elements themselves repeat so, or are all one constant.
    """

    fill: Size | None = None
    nonnegative: bool = False
    period: int = 1
    sized: bool = False
    cyclic: bool = False

    @classmethod
    def of(cls, fill: Size) -> Spread | None:
        """The same element everywhere; None for one that grows faster than the sizes."""
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
            return cls(shape, _sizes(flat), whole)
        if not whole and (flat % 1).any():
            return cls(shape, None, whole)
        if (flat == flat.flat[0]).all():
            return cls(shape, Spread.of(Size.of(flat.flat[0].item())), whole)
        return cls(shape, Spread(nonnegative=bool((flat >= 0).all())), whole)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape where it is the same at all sizes."""
        constants = [size.constant for size in self.shape]
        known = tuple(int(constant) for constant in constants if constant is not None)
        return known if len(known) == len(self.shape) else None

    @property
    def rule(self) -> Spread | None:
        """What holds of every element."""
        return rule(self.elements) if isinstance(self.elements, np.ndarray) else self.elements

    def sizes(self) -> list[Size]:
        """The elements, each known."""
        if not isinstance(self.elements, np.ndarray):
            raise Unproven
        found = [element for element in self.elements.ravel() if element is not None]
        if len(found) != self.elements.size:
            raise Unproven
        return found

    def ints(self) -> list[int]:
        """The elements, each a constant whole number."""
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


def _sizes(values: Array) -> Array:
    elements = np.empty(values.shape, object)
    for index in np.ndindex(values.shape):
        elements[index] = Size.of(values[index].item())
    return elements


def filled(shape: Sequence[Size], fill: Size, whole: bool) -> Known:
    """A tensor of ``fill`` alone."""
    one = np.empty((1,) * len(shape), object)
    one[...] = fill
    known = Known((_ONE,) * len(shape), one, whole)
    return known.moved(shape, lambda array: np.broadcast_to(array, _static(shape)))


def _static(shape: Sequence[Size]) -> tuple[int, ...]:
    return tuple(int(size.constant or 0) for size in shape)


def rule(elements: Array) -> Spread | None:
    """What holds of every element; None if one is not known, or no plain sum of sizes."""
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
    """What holds of the elements of several tensors."""
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


def arange(start: Size, limit: Size, step: Size, whole: bool) -> Known:
    """A Range."""
    pace = step.constant
    if not pace:
        raise Unproven
    # Rounded up.
    steps = ((start - limit) * Size.of(1 / pace)).floored()
    if steps is None:
        raise Unproven
    length = _ZERO - steps
    if length.least is None or length.least < 0 or start.degree > 1:
        raise Unproven
    if length.constant is not None and length.constant <= FEW:
        elements = np.empty(int(length.constant), object)
        for index in range(len(elements)):
            elements[index] = start + step * Size.of(index)
        return Known((length,), elements, whole)
    nonnegative = pace > 0 and start.least is not None and start.least >= 0
    period = lcm(start.denominator, pace.denominator)
    sized = start.constant is None
    return Known((length,), Spread(None, nonnegative, period, sized), whole)


def floor_of(size: Size | None) -> Size | None:
    """Rounded towards 0; None if that is not one polynomial at all sizes."""
    if size is None or size.denominator == 1:
        return size
    constant = size.constant
    if constant is not None:
        return Size.of(int(constant))
    return size.floored() if size.least is not None and size.least >= 0 else None


def truth(size: Size | None) -> Size | None:
    """1 if it is never 0, 0 if always."""
    if size is None or size == _ZERO:
        return size
    return _ONE if size.is_less(_ZERO) or _ZERO.is_less(size) else None


def is_positive_whole(number: Fraction | None) -> bool:
    """True for 1, 2, 3, ..."""
    return number is not None and number > 0 and number.denominator == 1


Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Call:
    """A node's inputs and attributes, wherever its opset has them."""

    op: str
    inputs: Sequence[Known | None]
    attributes: Mapping[str, Any]

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
        """An attribute of older opsets, an input of newer ones."""
        if name in self.attributes:
            return [Size.of(number) for number in self.attributes[name]]
        return self.given(position).sizes()

    def ints(self, name: str, position: int) -> list[int] | None:
        """A constant: an attribute in older opsets, an input in newer ones; None if left out."""
        if name in self.attributes:
            return [int(number) for number in self.attributes[name]]
        return self.given(position).ints() if self.has(position) else None


def extents(sizes: Sequence[Size], least: int) -> Shape:
    """Sizes of a shape; Unproven if one could be below ``least``."""
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
