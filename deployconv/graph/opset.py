"""Raise a model to a later opset where that provably changes nothing.

The version in the import changes, and attributes that have become inputs become inputs. That is
the same model if every node in it is read alike at the later opset (`reading`); a function with
an opset import of its own cannot follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from deployconv.graph.reading import moved, reads_alike
from deployconv.graph.splice import Names
from deployconv.graph.tensors import all_graphs, used_names

_ONNX = ("", "ai.onnx")


def why_not_lifted(model: ModelProto, opset: int) -> str | None:
    """What keeps ``model`` from being raised to ``opset``; None where nothing does."""
    current = _version(model)
    if current is None:
        return "it imports no ONNX operators"
    if current >= opset:
        return None
    if any(entry.domain in _ONNX for f in model.functions for entry in f.opset_import):
        return "its functions import an opset of their own"
    for node in (node for graph in _graphs(model) for node in graph.node):
        if node.domain not in _ONNX:
            continue
        try:
            before = onnx.defs.get_schema(node.op_type, current)
            after = onnx.defs.get_schema(node.op_type, opset)
        except onnx.defs.SchemaError:
            return f"{node.op_type} is not known at both opsets"
        if not reads_alike(node, current, before, after):
            return f"{node.op_type} changed between opset {current} and {opset}"
    return None


def lift(model: ModelProto, opset: int) -> None:
    """Raise ``model`` to ``opset``, for which `why_not_lifted` has no objection."""
    current = _version(model)
    if current is None or current >= opset:
        return
    fresh = Names(used_names(model)).maker("opset")
    for graph in _graphs(model):
        for position in reversed(range(len(graph.node))):
            node = graph.node[position]
            if node.domain in _ONNX:
                after = onnx.defs.get_schema(node.op_type, opset)
                for constant in _with_inputs(node, moved(node, after), fresh):
                    graph.node.insert(position, constant)
    for entry in model.opset_import:
        if entry.domain in _ONNX:
            entry.version = opset


def _with_inputs(
    node: NodeProto, places: Mapping[str, int], fresh: Callable[[str], str]
) -> Iterator[NodeProto]:
    """Make inputs of attributes of ``node``, and the nodes that make these."""
    for name, place in places.items():
        (entry,) = (entry for entry in node.attribute if entry.name == name)
        made = fresh(name)
        yield helper.make_node("Constant", [], [made], name=made, value_ints=list(entry.ints))
        node.attribute.remove(entry)
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = made


def _version(model: ModelProto) -> int | None:
    versions = (entry.version for entry in model.opset_import if entry.domain in _ONNX)
    return next(versions, None)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The graph and those that train it, at any depth: one import serves them all."""
    return (owner for owner in all_graphs(model) if isinstance(owner, GraphProto))
