"""A product of all pixels with a matrix: what mask heads make of their features.

    features [N, C, h, w] -> Reshape [N, C, h * w] -> MatMul(matrix [N, T, C], .)
      -> Reshape [N, T, h, w]

It mixes channels as a 1x1 Conv does, with a matrix that another part of the model makes for each
image, so it does not see the order of the pixels either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.rewrites.lowres.follow import is_known, only_reader


@dataclass(frozen=True, eq=False)
class Product:
    """The three nodes; ``channels`` is T, the rows of the matrix.

    ``constants`` is empty but for a certificate, which draws the matrix.
    """

    flatten: gs.Node
    product: gs.Node
    unflatten: gs.Node
    columns: int
    channels: int
    constants: Mapping[int, Constant] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """In graph order."""
        return (self.flatten, self.product, self.unflatten)

    @property
    def reads(self) -> tuple[str, ...]:
        """The name of the features."""
        return (self.flatten.inputs[0].name,)

    @property
    def output(self) -> str:
        """The name of the result."""
        return str(self.unflatten.outputs[0].name)

    @property
    def matrix(self) -> gs.Tensor:
        """``[T, C]``, or one such for each image."""
        return self.product.inputs[0]


def product_at(flatten: gs.Node, scope: Scope, view: View) -> Product | None:
    """The product that begins with the Reshape ``flatten``, of known spatial sizes; else None."""
    if flatten.op != "Reshape":
        return None
    product = only_reader(flatten.outputs[0], scope)
    if product is None or product.op != "MatMul" or product.inputs[1] is not flatten.outputs[0]:
        return None
    unflatten = only_reader(product.outputs[0], scope)
    if unflatten is None or unflatten.op != "Reshape" or not is_known(flatten, scope):
        return None
    if not all(is_constant(node, scope, view) for node in (flatten, unflatten)):
        return None
    features, matrix, result = flatten.inputs[0], product.inputs[0], unflatten.outputs[0]
    tensors = (features, flatten.outputs[0], matrix, result)
    found = {
        _rows_and_columns(*(shapes[tensor.name] for tensor in tensors))
        for shapes in view.instances(scope, *tensors)
    }
    if len(found) != 1 or None in found:
        return None
    ((rows, columns),) = (pair for pair in found if pair is not None)
    return Product(flatten, product, unflatten, columns, rows)


def is_constant(reshape: gs.Node, scope: Scope, view: View) -> bool:
    """Whether a Reshape to a fixed shape, all but the batch: so the shapes hold at any batch."""
    # Before opset 5 the shape is an attribute.
    shape = view.constants.fixed(reshape.inputs[1], scope) if len(reshape.inputs) > 1 else None
    if shape is None:
        return False
    return int(np.count_nonzero(np.ravel(shape.read()) < 0)) <= 1


def _rows_and_columns(
    features: Sequence[int], flat: Sequence[int], matrix: Sequence[int], result: Sequence[int]
) -> tuple[int, int] | None:
    """(T, C), where the shapes are those of such a product."""
    if len(features) < 4 or len(matrix) not in (2, 3):
        return None
    batch, columns, *sizes = features
    rows = matrix[-2]
    fits = (
        tuple(flat) == (batch, columns, prod(sizes))
        and matrix[-1] == columns
        and matrix[0] in ((batch, 1) if len(matrix) == 3 else (rows,))
        and tuple(result) == (batch, rows, *sizes)
    )
    return (rows, columns) if fits else None
