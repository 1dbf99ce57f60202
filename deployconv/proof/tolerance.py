"""Quantization steps and low-precision types of outputs, which limit how exact they can be.

    ... -> QuantizeLinear (-> movement) -> y                          step: 1
    ... -> QuantizeLinear -> DequantizeLinear (-> movement) -> y      step: the scale
    x float32 -> Cast float16 -> ... -> Cast float32 -> y             precision: float16

Two correct implementations of a layer may add in different orders. A sum close to halfway between
two quantized values is then rounded to either of them, so that outputs may differ by one step.
Converters to float16 keep the inputs and outputs of a model in float32; such an output has the
rounding errors of float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto

from deployconv.errors import ModelError
from deployconv.graph.tensors import graph_attributes, nested, read_tensor
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.shapes import read_structure

_MOVEMENT = frozenset(
    [
        "DepthToSpace",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators that pass on elements of their first input unchanged."""

_LOW_PRECISION = {TensorProto.BFLOAT16: "bfloat16", TensorProto.FLOAT16: "float16"}
"""From the least precise on."""


def quantization_steps(source: ModelSource) -> dict[str, float]:
    """The quantization step of every quantized output, by output name.

    An output is quantized if it comes from QuantizeLinear or QLinearConv, perhaps followed by
    DequantizeLinear, and by nodes that only move elements.

    Args:
        source: a model file or a serialized model; nothing is found in one that cannot be read.
    """
    model = _read(source)
    if model is None:
        return {}
    producers = _producers(model)
    folder = None if isinstance(source, bytes) else Path(source).parent
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    steps = {}
    for output in model.graph.output:
        node = _before_movement(output.name, producers)
        step = None if node is None else _step(node, producers, constants, folder)
        if step is not None:
            steps[output.name] = step
    return steps


def low_precision_types(source: ModelSource) -> dict[str, str]:
    """By output name: the least precise type among bfloat16 and float16 used to compute it.

    A type counts if a node on the way to the output casts to it, or reads an input or a weight
    of it. The body of an If, Loop or Scan and a local function count as a whole. Outputs
    without either type are not listed.

    Args:
        source: a model file or a serialized model; nothing is found in one that cannot be read.
    """
    model = _read(source)
    if model is None:
        return {}
    found = {}
    for output in model.graph.output:
        types = set(_types_used_for(output.name, model))
        lowest = next((name for type_, name in _LOW_PRECISION.items() if type_ in types), None)
        if lowest is not None:
            found[output.name] = lowest
    return found


def _read(source: ModelSource) -> ModelProto | None:
    """The model without its external data; None if it cannot be read."""
    try:
        return read_structure(source)
    except (OSError, DecodeError):
        return None


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _before_movement(name: str, producers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The node that computes the values of a tensor, before any that only move them."""
    node = producers.get(name)
    while node is not None and node.domain in ("", "ai.onnx") and node.op_type in _MOVEMENT:
        node = producers.get(node.input[0])
    return node


def _step(
    node: NodeProto,
    producers: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    folder: Path | None,
) -> float | None:
    """The quantization step of what ``node`` computes; None if that is not quantized."""
    if node.op_type in ("QuantizeLinear", "QLinearConv"):
        return 1.0
    if node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return None
    quantizing = _before_movement(node.input[0], producers)
    if quantizing is None or quantizing.op_type not in ("QuantizeLinear", "QLinearConv"):
        return None
    try:
        scale = read_tensor(constants[node.input[1]], folder).astype(np.float64)
    except ModelError:
        return None
    step = float(np.max(np.abs(scale), initial=0.0))
    return step if np.isfinite(step) and step > 0 else None


def _types_used_for(output: str, model: ModelProto) -> Iterator[int]:
    """Element types on all ways from the inputs and weights to ``output``, with repetitions."""
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    inputs = {given.name: given.type.tensor_type.elem_type for given in model.graph.input}
    producers = _producers(model)
    functions = {function.name: function for function in model.functions}
    waiting, seen = [output], {output}
    while waiting:
        name = waiting.pop()
        yield weights.get(name, inputs.get(name, TensorProto.UNDEFINED))
        node = producers.get(name)
        if node is None:
            continue
        read = [*node.input]
        for inner in _with_bodies(node):
            read += inner.input
            yield from _types_of_node(inner)
        if node.op_type in functions:
            for inner in functions[node.op_type].node:
                yield from _types_of_node(inner)
        waiting += [name for name in read if name and name not in seen]
        seen.update(read)


def _with_bodies(node: NodeProto) -> Iterator[NodeProto]:
    """``node`` and the nodes of its bodies, at any depth."""
    yield node
    for _, body in graph_attributes(node):
        for graph in nested(body):
            yield from graph.node


def _types_of_node(node: NodeProto) -> Iterator[int]:
    """The types that a node casts to or holds as an attribute, and of its bodies' weights."""
    for attribute in node.attribute:
        if attribute.name == "to":
            yield attribute.i
        yield attribute.t.data_type
    for _, body in graph_attributes(node):
        yield from (tensor.data_type for tensor in body.initializer)
