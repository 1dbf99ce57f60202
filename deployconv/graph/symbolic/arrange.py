"""Run operators that make, move and repeat elements on polynomials in the open sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from math import lcm

import numpy as np
import onnx
from onnx import TensorProto

from deployconv.graph.symbolic.elementwise import cast
from deployconv.graph.symbolic.known import (
    FEW,
    Call,
    Known,
    Spread,
    Unproven,
    broadcast,
    extents,
    filled,
    joined,
    number,
    numbers,
)
from deployconv.graph.symbolic.size import Size, product

_ZERO, _ONE = Size.of(0), Size.of(1)
_UNBOUNDED = 2**31 - 1
"""A Slice to here or beyond goes to the end: no dimension is as long."""
_SIZE_TYPES = {
    TensorProto.BOOL: True,
    TensorProto.INT32: True,
    TensorProto.INT64: True,
    TensorProto.FLOAT: False,
    TensorProto.DOUBLE: False,
}
"""Element types that hold every size, and whether they hold whole numbers only."""


def _identity(call: Call) -> Known:
    return call.given(0)


def _shape(call: Call) -> Known:
    shape = call.given(0).shape
    start, end = call.attributes.get("start", 0), call.attributes.get("end", len(shape))
    return _vector(shape[start:end])


def _vector(sizes: Sequence[Size], whole: bool = True) -> Known:
    elements = np.empty(len(sizes), object)
    elements[:] = sizes
    return Known((Size.of(len(sizes)),), elements, whole)


def _cast(call: Call) -> Known:
    kind = call.attributes["to"]
    return cast(call.given(0), _SIZE_TYPES[kind], kind == TensorProto.BOOL)


def _constant_of_shape(call: Call) -> Known:
    value = call.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return filled(extents(call.given(0).sizes(), 0), Size.of(fill.item()), fill.dtype.kind != "f")


def _range(call: Call) -> Known:
    (start,), (limit,), (step,) = (known.sizes() for known in call.all())
    whole, pace = all(known.whole for known in call.all()), step.constant
    if not pace:
        raise Unproven
    # Rounded up.
    steps = ((start - limit) * Size.of(1 / pace)).floored()
    if steps is None or start.degree > 1:
        raise Unproven
    (length,) = extents([_ZERO - steps], 0)
    if length.constant is not None and length.constant <= FEW:
        return _vector([start + step * Size.of(at) for at in range(int(length.constant))], whole)
    rule = Spread(
        nonnegative=pace > 0 and start.least is not None and start.least >= 0,
        period=lcm(start.denominator, pace.denominator),
        sized=start.constant is None,
    )
    return Known((length,), rule, whole)


def _reshape(call: Call) -> Known:
    x, target = call.given(0), call.sizes("shape", 1)
    shape: list[Size] = []
    for axis, size in enumerate(target):
        if size.constant == 0 and not call.attributes.get("allowzero"):
            shape.append(x.shape[axis])
        elif size.constant == -1:
            shape.append(size)
        else:
            # A size that could be 0 or -1 would have another meaning in a Reshape.
            shape += extents([size], 1)
    if Size.of(-1) in shape:
        hole = shape.index(Size.of(-1))
        rest = product(*shape[:hole], *shape[hole + 1 :])
        left = product(*x.shape).divided(rest)
        if left is None or left.denominator != 1:
            raise Unproven
        shape[hole] = left
    return x.moved(shape, lambda elements: elements)


def _flatten(call: Call) -> Known:
    x, axis = call.given(0), call.attributes.get("axis", 1)
    shape = product(*x.shape[:axis]), product(*x.shape[axis:])
    return x.moved(shape, lambda elements: elements)


def _transpose(call: Call) -> Known:
    x = call.given(0)
    order = call.attributes.get("perm", list(reversed(range(len(x.shape)))))
    return x.moved([x.shape[axis] for axis in order], lambda array: array.transpose(order))


def _unsqueeze(call: Call) -> Known:
    x, axes = call.given(0), call.ints("axes", 1)
    rank = len(x.shape) + len(axes or ())
    added = {axis % rank for axis in axes or ()}
    if len(added) < len(axes or ()):
        raise Unproven  # an axis that is named twice is no valid one
    old = iter(x.shape)
    shape = [_ONE if axis in added else next(old) for axis in range(rank)]
    return x.moved(shape, lambda elements: elements)


def _squeeze(call: Call) -> Known:
    x, axes = call.given(0), call.ints("axes", 1)
    if axes is None and any(size.constant is None for size in x.shape):
        raise Unproven  # which axes are 1 depends on the sizes
    gone = [a for a, size in enumerate(x.shape) if size == _ONE] if axes is None else axes
    removed = {axis % len(x.shape) for axis in gone}
    shape = [size for axis, size in enumerate(x.shape) if axis not in removed]
    return x.moved(shape, lambda elements: elements)


def _expand(call: Call) -> Known:
    x = call.given(0)
    shape = broadcast(x.shape, extents(call.given(1).sizes(), 0))
    return x.moved(shape, lambda array: np.broadcast_to(array, numbers(shape)))


def _tile(call: Call) -> Known:
    x, repeats = call.given(0), extents(call.given(1).sizes(), 1)
    shape = [size * count for size, count in zip(x.shape, repeats, strict=True)]
    return x.moved(shape, lambda array: np.tile(array, numbers(repeats)))


def _concat(call: Call) -> Known:
    parts = call.all()
    axis = call.attributes["axis"] % len(parts[0].shape)
    shape = list(parts[0].shape)
    for part in parts[1:]:
        if any(part.shape[a] != size for a, size in enumerate(shape) if a != axis):
            raise Unproven
        shape[axis] = shape[axis] + part.shape[axis]
    whole = all(part.whole for part in parts)
    arrays = [part.elements for part in parts if isinstance(part.elements, np.ndarray)]
    if len(arrays) == len(parts):
        return Known(tuple(shape), np.concatenate(arrays, axis), whole)
    return Known(tuple(shape), joined(*(part.rule for part in parts)), whole)


def _gather(call: Call) -> Known:
    x, indices = call.given(0), call.given(1)
    axis = call.attributes.get("axis", 0) % len(x.shape)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if isinstance(x.elements, np.ndarray):
        at = np.array(indices.ints(), int).reshape(numbers(indices.shape))
        return Known(shape, np.asarray(np.take(x.elements, at, axis), object), x.whole)
    return Known(shape, _picked(x, indices), x.whole)


def _picked(x: Known, indices: Known) -> Spread | None:
    if x.rule is None or indices.rule is None:
        return None
    if x.rule.fill is not None:
        return x.rule
    return Spread(
        nonnegative=x.rule.nonnegative,
        period=x.rule.period * indices.rule.period,
        sized=x.rule.sized or indices.rule.sized,
    )


def _gather_nd(call: Call) -> Known:
    x, indices = call.given(0), call.given(1)
    width = indices.shape[-1].constant
    if width is None or call.attributes.get("batch_dims"):
        raise Unproven
    return Known((*indices.shape[:-1], *x.shape[int(width) :]), _picked(x, indices), x.whole)


def _scatter(call: Call) -> Known:
    x, indices, updates = (call.given(position) for position in range(3))
    placed = joined(x.rule, updates.rule) if indices.rule is not None else None
    return Known(x.shape, placed, x.whole)


def _slice(call: Call) -> Known:
    x = call.given(0)
    starts, ends = call.sizes("starts", 1), call.sizes("ends", 2)
    axes = call.ints("axes", 3) or list(range(len(starts)))
    steps = call.ints("steps", 4) or [1] * len(starts)
    if isinstance(x.elements, np.ndarray):
        kept = [slice(None)] * len(x.shape)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            # A Slice with a negative step may end before the first element.
            through = step < 0 and number(end) < -_UNBOUNDED
            kept[axis] = slice(number(start), None if through else number(end), step)
        elements = x.elements[tuple(kept)]
        return Known(tuple(map(Size.of, elements.shape)), elements, x.whole)
    shape = list(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        shape[axis] = _length(start, end, step, shape[axis])
    return Known(tuple(shape), x.elements, x.whole)


def _length(start: Size, end: Size, step: int, extent: Size) -> Size:
    if step < 1:
        raise Unproven
    backwards = (_position(start, extent) - _position(end, extent)) * Size.of(Fraction(1, step))
    rounded = backwards.floored()
    if rounded is None:
        raise Unproven
    (length,) = extents([_ZERO - rounded], 0)
    return length


def _position(bound: Size, extent: Size) -> Size:
    """The position of a bound of a Slice: counted from the end if negative, then clamped."""
    if bound.constant is not None and bound.constant >= _UNBOUNDED:
        return extent
    if bound.constant is not None and bound.constant < 0:
        bound = extent + bound
    if bound.least is None or bound.least < 0:
        raise Unproven
    beyond = extent.is_less(bound)
    if beyond is None:
        raise Unproven
    return extent if beyond else bound


def split(call: Call) -> tuple[Known, ...]:
    """The outputs of a Split, of stated sizes or all of one size."""
    x, sizes = call.given(0), call.ints("split", 1)
    axis = call.attributes.get("axis", 0) % len(x.shape)
    whole = number(x.shape[axis])
    if sizes is None:
        sizes = [whole // call.outputs] * call.outputs
    if sum(sizes) != whole or len(sizes) != call.outputs:
        raise Unproven
    ends = list(accumulate(sizes))
    parts = []
    for size, end in zip(sizes, ends, strict=True):
        shape = [*x.shape[:axis], Size.of(size), *x.shape[axis + 1 :]]
        if isinstance(x.elements, np.ndarray):
            part = x.elements.take(range(end - size, end), axis)
            parts.append(Known(tuple(shape), part, x.whole))
        else:
            parts.append(Known(tuple(shape), x.elements, x.whole))
    return tuple(parts)


OPERATORS: dict[str, Callable[[Call], Known]] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
