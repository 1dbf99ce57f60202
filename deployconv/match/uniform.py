"""Does a movement do the same at all sizes, or only at those that were tried?

Its nodes, and the arithmetic of its shapes and indices, must have a result on polynomials in
the sizes (`graph/symbolic`): then nothing in it has a threshold at any size. What is left
to show, that the polynomials are the right ones, a few sizes do show.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from deployconv.graph.shapes import Instance
from deployconv.graph.symbolic import Spread, Unproven
from deployconv.match.movement import Movement, is_fill

_ASSIGNED = ((1, 1, 1, 1), (3, 5, 7, 2), (7, 2, 5, 3), (11, 13, 4, 6))
"""Sizes given to the first, second, .. open one, beside those of `Shapes`."""
_LONGEST_PERIOD = 16
"""Of whole divisions, far below the sizes of `Shapes`."""


def other_instances(movement: Movement) -> Iterator[Instance]:
    """Shapes of everything that ``movement`` depends on, at sizes of all kinds.

    Raises Unproven where the movement may do something else at some size.
    """
    scope, known = movement.scope, movement.view.open_shapes
    skipped = {id(node) for segment in movement.pointwise for node in segment.nodes}
    for node in movement.nodes:
        if id(node) in skipped:
            continue
        if not known.is_proven(node, scope):
            raise Unproven
        for tensor in node.inputs:
            if tensor.name and is_fill(tensor, movement):
                _check_rule(tensor, movement)
    free = {
        tensor.name: known.of(tensor, scope).shape
        for tensor in (movement.source, *movement.outside())
    }
    symbols = sorted({name for shape in free.values() for size in shape for name in size.symbols})
    for sizes in _ASSIGNED:
        assigned = {name: sizes[at % len(sizes)] for at, name in enumerate(symbols)}
        instance = {
            name: tuple(int(size.at(assigned)) for size in shape) for name, shape in free.items()
        }
        if all(size > 0 for shape in instance.values() for size in shape):
            yield instance


def _check_rule(tensor: gs.Tensor, movement: Movement) -> None:
    """Indices, masks and shapes are known element by element, or follow one rule."""
    if movement.view.constants.of(tensor, movement.scope) is not None:
        return
    elements = movement.view.open_shapes.of(tensor, movement.scope).elements
    if elements is None:
        raise Unproven
    if isinstance(elements, Spread):
        if elements.period > _LONGEST_PERIOD:
            raise Unproven
    elif any(element is None for element in elements.ravel()):
        raise Unproven
