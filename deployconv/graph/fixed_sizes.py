"""Find sizes of the inputs that are declared dynamic and that a Reshape fixes.

    x [n, 2, 4, 3] -> Reshape to [1, 2, 4, 1, 3, 1]      runs with n = 1 only

An exporter that is told of dynamic axes, but follows a single image through the model, writes the
sizes of that image into Reshapes. If only one size of the reshaped tensor is open, it follows from
the number of elements. At every other size the model does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_graphsurgeon as gs
from onnx import ModelProto

from deployconv.graph.constants import Constants
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import OpenShapes
from deployconv.graph.symbolic import Size, Unproven
from deployconv.graph.symbolic.size import product
from deployconv.graph.tensors import graph_attributes, is_onnx, nested

Fixed = Mapping[tuple[str, int], int]
"""Name of an input and axis -> size."""


def fixed_sizes(main: Scope, constants: Constants, bare: ModelProto) -> Fixed:
    """The open sizes of the inputs of ``main``, the main graph, that are fixed all the same.

    ``bare`` is the skeleton of the model. Sizes of one name need not be equal: runtimes accept
    others.
    """
    reshapes = list(_reshapes(main, constants))
    if not reshapes:
        return {}
    unrelated = ModelProto()
    unrelated.CopyFrom(bare)
    places: dict[str, tuple[str, int]] = {}
    for value in unrelated.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = f"{value.name}:{axis}"
                places[dim.dim_param] = value.name, axis
    known, fixed = OpenShapes(constants, unrelated), dict[tuple[str, int], int]()
    for node, target in reshapes:
        for symbol, size in _solved(node, target, main, known).items():
            if symbol in places:
                fixed[places[symbol]] = size
    return fixed


def with_fixed_sizes(bare: ModelProto, fixed: Fixed) -> ModelProto:
    """A copy of the skeleton ``bare`` with the sizes ``fixed``."""
    model = ModelProto()
    model.CopyFrom(bare)
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in fixed:
                dim.dim_value = fixed[value.name, axis]
    return model


def _reshapes(main: Scope, constants: Constants) -> Iterator[tuple[gs.Node, list[int]]]:
    """The Reshapes that run in any case, to constant sizes without a -1; with these sizes."""
    needed = set(main.outputs)
    for node in reversed(main.nodes):
        if not any(tensor.name in needed for tensor in node.outputs):
            continue
        needed |= {tensor.name for tensor in node.inputs}
        for _, body in graph_attributes(main.proto_of(node)):
            needed |= {name for owner in nested(body) for n in owner.node for name in n.input}
        if node.op != "Reshape" or not is_onnx(node.domain) or len(node.inputs) < 2:
            continue
        target = constants.fixed(node.inputs[1], main)
        if target is not None and len(target.shape) == 1:
            sizes = [int(size) for size in target.read()]
            if min(sizes, default=-1) >= 0 and not node.attrs.get("allowzero"):
                yield node, sizes


def _solved(node: gs.Node, target: list[int], main: Scope, known: OpenShapes) -> dict[str, int]:
    """The symbol that the number of elements of a Reshape fixes, and its value."""
    try:
        shape = known.of(node.inputs[0], main).shape
    except Unproven:
        return {}
    if len(shape) < len(target) and 0 in target[len(shape) :]:
        return {}
    made = product(*(Size.of(size) if size else shape[at] for at, size in enumerate(target)))
    ratio = product(*shape).divided(made)
    if ratio is None or len(ratio.terms) != 1:
        return {}
    ((monomial, factor),) = ratio.terms
    value = 1 / factor
    if len(monomial) != 1 or value < 1 or value.denominator != 1:
        return {}
    return {monomial[0]: int(value)}
