"""The coarsest type that an output is computed in, whatever type it is given out in.

    x float32 -> Cast float16 -> ... -> Cast float32 -> y       carries the rounding of float16

Converters to float16 keep the inputs and outputs of a model in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from deployconv.graph.tensors import graph_attributes
from deployconv.runtimes.base import ModelSource

_COARSE = {TensorProto.BFLOAT16: "bfloat16", TensorProto.FLOAT16: "float16"}
"""Coarsest first."""


def coarse_types(source: ModelSource) -> dict[str, str]:
    """For each output that bfloat16 or float16 stands behind: the coarser of these, by name.

    A type stands behind an output if a node on the way to it casts to it, or reads a weight of
    it; the body of an If, Loop or Scan and a local function count as a whole.
    """
    try:
        model = (
            onnx.load_model_from_string(source)
            if isinstance(source, bytes)
            else onnx.load(source, load_external_data=False)
        )
    except (OSError, DecodeError):
        return {}
    found = {}
    for output in model.graph.output:
        kinds = set(_kinds_behind(output.name, model))
        coarsest = next((name for kind, name in _COARSE.items() if kind in kinds), None)
        if coarsest is not None:
            found[output.name] = coarsest
    return found


def _kinds_behind(output: str, model: ModelProto) -> Iterator[int]:
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    inputs = {given.name: given.type.tensor_type.elem_type for given in model.graph.input}
    producers = {name: node for node in model.graph.node for name in node.output}
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
            yield from _own_kinds(inner)
        if node.op_type in functions:
            yield from (kind for one in functions[node.op_type].node for kind in _own_kinds(one))
        waiting += [name for name in read if name and name not in seen]
        seen.update(read)


def _with_bodies(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for _, body in graph_attributes(node):
        yield from _nodes(body)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield from _with_bodies(node)


def _own_kinds(node: NodeProto) -> Iterator[int]:
    """What a node casts to or holds; the weights of its bodies."""
    for attribute in node.attribute:
        if attribute.name == "to":
            yield attribute.i
        yield attribute.t.data_type
    for _, body in graph_attributes(node):
        yield from (tensor.data_type for tensor in body.initializer)
