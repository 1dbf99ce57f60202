"""Run operators that compute each element by itself on polynomials in the open sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np

from deployconv.graph.symbolic.known import (
    Call,
    Known,
    Spread,
    Unproven,
    broadcast,
)
from deployconv.graph.symbolic.size import Size

Perhaps = Size | None
_ZERO, _ONE = Size.of(0), Size.of(1)
_LARGEST_WHOLE = 2**31
"""Constants below it fit 32 bits."""
_LARGEST_FACTOR = 2**17
"""A product of a factor below it and a size below 2**14 fits 32 bits."""
_FRACTION = 2**10
"""Floats that are sizes below 2**14 times whole multiples of a 1024th have 24 bits."""


def _elementwise(call: Call) -> Known:
    """The result of an operator; Unproven if the shapes do not fit together at all sizes."""
    op, inputs = call.op, call.all()
    if "broadcast" in call.attributes:  # before opset 7 operands were aligned in another way
        raise Unproven
    shape = broadcast(*(known.shape for known in inputs))
    whole = op in _LOGICAL or all(known.whole for known in inputs)
    arrays = [known.elements for known in inputs if isinstance(known.elements, np.ndarray)]
    if len(arrays) == len(inputs):
        integral = all(known.whole for known in inputs)
        compute = np.frompyfunc(lambda *sizes: _single(op, sizes, integral), len(inputs), 1)
        return Known(shape, np.asarray(compute(*arrays), object), whole)
    rules = [known.rule for known in inputs]
    return Known(shape, _spread(op, rules, all(known.whole for known in inputs)), whole)


def _single(op: str, sizes: Sequence[Perhaps], integral: bool) -> Perhaps:
    if op == "And" and _ZERO in sizes:
        return _ZERO
    if op == "Or" and _ONE in sizes:
        return _ONE
    if op == "Where":
        condition, first, second = sizes
        return None if condition is None else second if condition == _ZERO else first
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    result = _quotient(known[0], known[1], integral) if op == "Div" else _FUNCTIONS[op](*known)
    return result if result is None or _is_exact(result, integral) else None


def _is_exact(size: Size, integral: bool) -> bool:
    """Whether runtimes compute ``size`` exactly: no integer overflows and no float is rounded.

    A quotient of sizes that is a constant is rounded alike at all sizes.
    """
    constant = size.constant is not None
    for monomial, coefficient in size.terms:
        whole, part = abs(coefficient), coefficient.denominator
        if integral and whole >= (_LARGEST_FACTOR if monomial else _LARGEST_WHOLE):
            return False
        if not integral and (whole > _FRACTION or part > _FRACTION):
            return False
        if not integral and not constant and _FRACTION % part:
            return False
    return True


def _quotient(dividend: Size, divisor: Size, integral: bool) -> Perhaps:
    """``dividend / divisor``, of integers rounded towards 0."""
    quotient = dividend.divided(divisor)
    if quotient is None or not integral or quotient.denominator == 1:
        return quotient
    return _floor_of(quotient)


def _remainder(dividend: Size, divisor: Size) -> Perhaps:
    if not _is_positive_whole(divisor.constant):
        return None
    quotient = dividend.divided(divisor)
    whole = None if quotient is None else quotient.floored()
    return None if whole is None else dividend - whole * divisor


def _is_less(first: Size, second: Size) -> Perhaps:
    less = first.is_less(second)
    return None if less is None else Size.of(less)


def _is_equal(first: Size, second: Size) -> Perhaps:
    if first == second:
        return _ONE
    return _ZERO if first.is_less(second) or second.is_less(first) else None


def _inverted(size: Perhaps) -> Perhaps:
    return None if size is None else _ONE - size


def _greatest(*sizes: Size) -> Perhaps:
    best = sizes[0]
    for size in sizes[1:]:
        if best.is_less(size) is not False and size.is_less(best) is not False:
            return None
        best = best if best.is_less(size) is False else size
    return best


def _least(*sizes: Size) -> Perhaps:
    return _opposite(_greatest(*(_ZERO - size for size in sizes)))


_FUNCTIONS: dict[str, Callable[..., Perhaps]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _quotient,
    "Mod": _remainder,
    "Neg": lambda a: _ZERO - a,
    "Floor": lambda a: a.floored(),
    "Ceil": lambda a: _opposite((_ZERO - a).floored()),
    "Max": _greatest,
    "Min": _least,
    "Less": _is_less,
    "Greater": lambda a, b: _is_less(b, a),
    "LessOrEqual": lambda a, b: _inverted(_is_less(b, a)),
    "GreaterOrEqual": lambda a, b: _inverted(_is_less(a, b)),
    "Equal": _is_equal,
    "Not": _inverted,
    "And": lambda a, b: a * b,
    "Or": lambda a, b: _greatest(a, b),
    "Where": lambda condition, a, b: a if condition == _ONE else b,
}
"""Functions of sizes; the result is None if it is not one polynomial at all sizes."""

OPERATORS = dict.fromkeys(_FUNCTIONS, _elementwise)


def _opposite(size: Perhaps) -> Perhaps:
    return None if size is None else _ZERO - size


_LOGICAL = {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}


def _spread(op: str, rules: Sequence[Spread | None], integral: bool) -> Spread | None:
    """The rule for the elements of the result, from the ``rules`` of the operands."""
    fills = [None if rule is None else rule.fill for rule in rules]
    if op == "Where" and fills[0] is not None:
        return rules[2] if fills[0] == _ZERO else rules[1]
    filled = _single(op, fills, integral) if op != "Where" else None
    if filled is not None:
        return Spread.of(filled)
    known = [rule for rule in rules if rule is not None]
    if len(known) < len(rules):
        return None
    if all(rule.cyclic for rule in known):
        period = prod(rule.period for rule in known)
        return Spread(None, op in _LOGICAL, period, cyclic=True)
    if op in _RULES and len(known) == 2:
        return _RULES[op](known[0], known[1], integral)
    return None


def _added(a: Spread, b: Spread, integral: bool) -> Spread:
    nonnegative = a.nonnegative and b.nonnegative
    return Spread(None, nonnegative, a.period * b.period, a.sized or b.sized)


def _subtracted(a: Spread, b: Spread, integral: bool) -> Spread:
    if b.fill == _ZERO:
        return a
    return Spread(None, False, a.period * b.period, a.sized or b.sized)


def _divided(a: Spread, b: Spread, integral: bool) -> Spread | None:
    """The rule of ``a / b``; None for integers that are rounded at positions that sizes decide."""
    divisor = b.fill.constant if b.fill is not None else None
    if divisor is None or divisor <= 0 or (integral and (a.sized or not a.nonnegative)):
        return None
    return replace(a, fill=None, period=a.period * divisor.numerator * divisor.denominator)


def _wrapped(a: Spread, b: Spread, integral: bool) -> Spread | None:
    divisor = b.fill.constant if b.fill is not None else None
    if divisor is None or not _is_positive_whole(divisor) or not integral or a.sized:
        return None
    return Spread(None, True, a.period * divisor.numerator, cyclic=True)


def _compared(a: Spread, b: Spread, integral: bool) -> Spread | None:
    """The rule of ``a < b``: never true if ``b`` is at most 0 and ``a`` at least 0."""
    bound = None if b.fill is None else b.fill.constant
    never = bound is not None and bound <= 0 and a.nonnegative
    return Spread.of(_ZERO) if never else None


_RULES: dict[str, Callable[[Spread, Spread, bool], Spread | None]] = {
    "Add": _added,
    "Sub": _subtracted,
    "Mul": _added,
    "Div": _divided,
    "Mod": _wrapped,
    "Less": _compared,
}


def cast(known: Known, whole: bool, logical: bool) -> Known:
    """``known`` in another element type: of ``whole`` numbers or not, or ``logical``."""
    if not logical and (known.whole or not whole):
        return Known(known.shape, known.elements, whole)
    change: Callable[[Perhaps], Perhaps] = _truth if logical else _floor_of
    if isinstance(known.elements, np.ndarray):
        changed = np.frompyfunc(change, 1, 1)(known.elements)
        return Known(known.shape, np.asarray(changed, object), whole)
    rule = known.rule
    if rule is not None and rule.fill is not None:
        fill = change(rule.fill)
        return Known(known.shape, None if fill is None else Spread.of(fill), whole)
    # At 0 the truth of an element changes, and so does the direction of rounding.
    rounds = rule is not None and not logical and rule.nonnegative and not rule.sized
    kept = rule if rule is not None and (rule.cyclic or rounds) else None
    return Known(known.shape, kept, whole)


def _floor_of(size: Perhaps) -> Perhaps:
    """``size`` rounded towards 0; None if that is not one polynomial at all sizes."""
    if size is None or size.denominator == 1:
        return size
    constant = size.constant
    if constant is not None:
        return Size.of(int(constant))
    return size.floored() if size.least is not None and size.least >= 0 else None


def _truth(size: Perhaps) -> Perhaps:
    """1 if ``size`` is never 0, 0 if it always is; None if that depends on the sizes."""
    if size is None or size == _ZERO:
        return size
    return _ONE if size.is_less(_ZERO) or _ZERO.is_less(size) else None


def _is_positive_whole(number: Fraction | None) -> bool:
    """True for 1, 2, 3, ..."""
    return number is not None and number > 0 and number.denominator == 1
