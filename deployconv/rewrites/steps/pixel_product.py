"""A 1x1 Conv that is written as a product of pixels with a matrix, channels last.

    image [N, C, h, w] -> Reshape [N, C, h * w] -> Transpose -> MatMul [C, T] -> Add [T]
      -> Transpose -> Reshape [N, T, h, w]

Vision transformers have such layers, as their pixels are tokens. Frameworks that store images
channels last write the same without the Reshapes.
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
from deployconv.match import Parameter
from deployconv.rewrites.neighbours import is_known, only_reader
from deployconv.rewrites.stand_ins import copy_of
from deployconv.rewrites.steps.base import Defaults
from deployconv.rewrites.steps.pixelwise import HasImages
from deployconv.rewrites.trial import Draws, constant_of

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PixelProduct(Defaults):
    """All pixels times a constant matrix.

    Attributes:
        nodes: in graph order.
        weight: the matrix, ``[C, T]``.
        bias: ``[T]`` or with more axes of one element; None if nothing is added.
        shapes: in a trial, the shapes of the Reshapes.
    """

    nodes: tuple[gs.Node, ...]
    weight: Parameter
    bias: Parameter | None
    shapes: tuple[Constant, ...] = ()

    parity_only: tuple[gs.Node, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return (str(self.nodes[0].inputs[0].name),)

    @property
    def output(self) -> str:
        return str(self.nodes[-1].outputs[0].name)

    @property
    def channels(self) -> int:
        """Number of channels of the result."""
        return self.weight.shape[1]

    @property
    def channels_read(self) -> int:
        """Number of channels that it reads."""
        return self.weight.shape[0]

    @property
    def values(self) -> Mapping[str, Array]:
        held = (self.weight, self.bias, *self.shapes)
        return {one.name: one.read() for one in held if one is not None}

    @property
    def terms(self) -> tuple[int, ...]:
        return (self.channels_read,)

    def on_integers(self, draws: Draws, image: Sequence[int]) -> PixelProduct:
        """The product with a drawn matrix of integers, for an image of these sizes."""
        weight, bias = draws.parameter(self.weight), draws.bias(self.bias)
        if self.nodes[0].op != "Reshape":
            return replace(self, weight=weight, bias=bias)
        targets = {0: [0, self.channels_read, prod(image)], -1: [0, self.channels, *image]}
        nodes, shapes = list(self.nodes), []
        for at, target in targets.items():
            shapes.append(constant_of(f"certificate/{self.output}/{at}", np.array(target)))
            inputs = [nodes[at].inputs[0], gs.Variable(shapes[-1].name)]
            nodes[at] = copy_of(nodes[at], "Reshape", inputs, {})
        return PixelProduct(tuple(nodes), weight, bias, tuple(shapes))


def pixel_product_at(
    first: gs.Node, place: HasImages, view: View, widths: Mapping[str, int]
) -> PixelProduct | None:
    """The product that begins with the Reshape or Transpose ``first``.

    None if its matrix is not for as many channels as the image has, by ``widths``.
    """
    scope = place.scope
    if first.op not in ("Reshape", "Transpose") or not is_known(first, scope):
        return None
    flat = first.op == "Reshape"
    nodes = [first]
    if flat and not _continue(nodes, scope, "Transpose"):
        return None
    rank = 1 if flat else place.rank
    if nodes[-1].attrs.get("perm") != [0, *range(2, rank + 2), 1]:
        return None
    if not _continue(nodes, scope, "MatMul") or nodes[-1].inputs[0] is not nodes[-2].outputs[0]:
        return None
    weight = view.constants.fixed(nodes[-1].inputs[1], scope)
    if weight is None or len(weight.shape) != 2:
        return None
    if widths.get(first.inputs[0].name) != weight.shape[0]:
        return None
    bias = None
    if _continue(nodes, scope, "Add"):
        others = [one for one in nodes[-1].inputs if one is not nodes[-2].outputs[0]]
        constants = [view.constants.fixed(one, scope) for one in others]
        bias = constants[0] if len(constants) == 1 else None
        if bias is None or not _is_row(bias.shape, weight.shape[1], rank + 2):
            return None
    if not _continue(nodes, scope, "Transpose"):
        return None
    if nodes[-1].attrs.get("perm") != [0, rank + 1, *range(1, rank + 1)]:
        return None
    if flat and (not _continue(nodes, scope, "Reshape") or not _keeps_pixels(nodes, scope, view)):
        return None
    held = None if bias is None else Parameter.of(bias)
    return PixelProduct(tuple(nodes), Parameter.of(weight), held)


def _is_row(shape: Sequence[int], width: int, rank: int) -> bool:
    """Whether a constant of this shape has one value for each channel, and these are last."""
    return bool(shape) and shape[-1] == prod(shape) == width and len(shape) <= rank


def _continue(nodes: list[gs.Node], scope: Scope, op: str) -> bool:
    """Append the only reader of the last node if it is such an operator."""
    node = only_reader(nodes[-1].outputs[0], scope)
    if node is None or node.op != op:
        return False
    nodes.append(node)
    return True


def _keeps_pixels(nodes: Sequence[gs.Node], scope: Scope, view: View) -> bool:
    """Whether the Reshapes only flatten the pixels and undo that."""
    first, last = nodes[0], nodes[-1]
    shapes = [tensor for node in (first, last) for tensor in node.inputs[1:]]
    if len(shapes) < 2 or not all(view.is_data_free(tensor, scope) for tensor in shapes):
        return False
    tensors = (first.inputs[0], first.outputs[0], last.inputs[0], last.outputs[0])
    found = view.instances(scope, *tensors)
    sizes = [[instance[tensor.name] for tensor in tensors] for instance in found]
    return bool(sizes) and all(
        len(image) > 2
        and flat == (*image[:2], prod(image[2:]))
        and made == (image[0], made[1], flat[2])
        and result == (*made[:2], *image[2:])
        for image, flat, made, result in sizes
    )
