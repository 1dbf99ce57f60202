"""Raise a model to a later opset where that provably changes nothing.

Only the version in the import changes. That is the same model if every node in it is read alike
at the later opset (`reading`); a function with an opset import of its own cannot follow.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from deployconv.model.reading import reads_alike
from deployconv.model.tensors import graph_attributes

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
    for node in _all_nodes(model):
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
    for entry in model.opset_import:
        if entry.domain in _ONNX:
            entry.version = max(entry.version, opset)


def _version(model: ModelProto) -> int | None:
    versions = (entry.version for entry in model.opset_import if entry.domain in _ONNX)
    return next(versions, None)


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Of the graph and of those that train it, at any depth: one import serves them all."""
    yield from _nodes(model.graph)
    for training in model.training_info:
        yield from _nodes(training.initialization)
        yield from _nodes(training.algorithm)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for _, body in graph_attributes(node):
            yield from _nodes(body)
