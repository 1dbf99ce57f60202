"""The product of all pixels with a matrix that the model computes, as mask heads write it.

    features [N, C, h, w] -> Reshape [N, C, h * w] -> MatMul(matrix [N, T, C], .)
      -> Reshape [N, T, h, w]

It mixes channels as a 1x1 Conv does, with a matrix of its own for each image, so it does not see
the order of the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.neighbours import is_known, only_reader
from deployconv.rewrites.stand_ins import copy_of
from deployconv.rewrites.steps.base import Defaults, PhaseImage
from deployconv.rewrites.trial import Draws, constant_of

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Product(Defaults):
    """Reshape, MatMul, Reshape: all pixels times a matrix.

    Attributes:
        flatten: the first Reshape.
        product: the MatMul.
        unflatten: the second Reshape.
        channels_read: C, the columns of the matrix.
        channels: T, the rows of the matrix.
        constants: in a trial, the drawn matrix and the shapes.
    """

    flatten: gs.Node
    product: gs.Node
    unflatten: gs.Node
    channels_read: int
    channels: int
    constants: tuple[Constant, ...] = ()

    parity_only: tuple[gs.Node, ...] = ()

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.flatten, self.product, self.unflatten)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.flatten.inputs[0].name,)

    @property
    def output(self) -> str:
        return str(self.unflatten.outputs[0].name)

    @property
    def values(self) -> dict[str, Array]:
        return {known.name: known.read() for known in self.constants}

    @property
    def terms(self) -> tuple[int, ...]:
        return (self.channels_read,)

    @property
    def matrix(self) -> gs.Tensor:
        """``[T, C]``, or one such for each image."""
        return self.product.inputs[0]

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        return image.product(
            emitter, self.matrix, made[self.reads[0]], self.channels, self.channels_read
        )

    def on_integers(self, draws: Draws, image: Sequence[int]) -> Product:
        """The product with a drawn matrix; its shapes take any number of images."""
        flat, whole = (f"certificate/{shape}/{self.output}" for shape in ("flat", "whole"))
        constants = (
            constant_of(self.matrix.name, draws.of(self.matrix.name, self._matrix_shape)),
            constant_of(flat, np.array([0, 0, prod(image)])),
            constant_of(whole, np.array([0, self.channels, *image])),
        )
        features, result = self.flatten.inputs[0], self.product.outputs[0]
        return replace(
            self,
            flatten=copy_of(self.flatten, "Reshape", [features, gs.Variable(flat)], {}),
            product=copy_of(self.product, "MatMul", list(self.product.inputs), {}),
            unflatten=copy_of(self.unflatten, "Reshape", [result, gs.Variable(whole)], {}),
            constants=constants,
        )

    @property
    def _matrix_shape(self) -> tuple[int, int]:
        return self.channels, self.channels_read


def product_at(flatten: gs.Node, scope: Scope, view: View) -> Product | None:
    """The product that begins with the Reshape ``flatten``, if its spatial sizes are known."""
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
    """Whether ``reshape`` has a constant shape with at most one -1."""
    # Before opset 5 the shape is an attribute.
    shape = view.constants.fixed(reshape.inputs[1], scope) if len(reshape.inputs) > 1 else None
    if shape is None:
        return False
    return int(np.count_nonzero(np.ravel(shape.read()) < 0)) <= 1


def _rows_and_columns(
    features: Sequence[int], flat: Sequence[int], matrix: Sequence[int], result: Sequence[int]
) -> tuple[int, int] | None:
    """(T, C), if the shapes are those of such a product."""
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
