"""Edit, don't re-export: put new nodes in the place of old ones in the loaded proto.

What is not replaced stays as it was, byte for byte. Besides the replaced nodes only what
fed them alone disappears: initializers and nodes that nothing else reads any more.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.scope import Scope
from deployconv.graph.tensors import graph_attributes
from deployconv.graph.view import View

_FIRST_IR_WITH_FREE_INITIALIZERS = 4
"""Before IR version 4 every initializer had to be a graph input as well."""
_INTEGER_CONSTANTS = 9
"""Constant nodes hold floating point only before opset 9 ..."""
_CASTS = 6
"""... and from opset 6 on runtimes have the Cast that makes integers of them."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """``new`` nodes take the place of the ``old`` ones, at the position of the last."""

    scope: Scope
    old: tuple[gs.Node, ...]
    new: Sequence[gs.Node]


@dataclass(frozen=True, eq=False)
class AttributeEdit:
    """New values for attributes of a node that stays; None removes one."""

    scope: Scope
    node: gs.Node
    attributes: dict[str, Any]


class Names:
    """Makes names that no tensor or node of the model has, in any of its graphs."""

    def __init__(self, model: ModelProto) -> None:
        self._taken: set[str] = set()
        for owner in _owners(model):
            self._taken.update(_names(owner))

    def __contains__(self, name: str) -> bool:
        """True for a name that the model had, or that was made for it."""
        return name in self._taken

    def maker(self, stem: str) -> Callable[[str], str]:
        """A function from a short suffix to a new name that starts with ``stem``."""

        def fresh(suffix: str) -> str:
            base = name = f"{stem}/{suffix}"
            number = 2
            while name in self._taken:
                name = f"{base}_{number}"
                number += 1
            self._taken.add(name)
            return name

        return fresh


def splice(view: View, edits: Iterable[Replacement | AttributeEdit]) -> frozenset[str]:
    """Apply ``edits`` to the proto of the view's model; the view is stale afterwards.

    Returns the names of the tensors that hold the new weights and constants.
    """
    model = view.model
    inserted: dict[Scope, dict[int, list[NodeProto]]] = {}
    removed: dict[Scope, set[int]] = {}
    shared = _SharedInitializers(model.proto)
    for edit in edits:
        if isinstance(edit, AttributeEdit):
            _set_attributes(edit)
            continue
        positions = [edit.scope.index(node) for node in edit.old]
        removed.setdefault(edit.scope, set()).update(positions)
        place = inserted.setdefault(edit.scope, {})
        place[max(positions)] = _export(edit, shared)
    orphans: list[str] = []
    for scope, places in inserted.items():
        nodes = scope.proto.node
        gone = removed[scope]
        for index in sorted(gone | places.keys(), reverse=True):
            if index in gone:
                orphans += nodes[index].input
                del nodes[index]
            for node in reversed(places.get(index, [])):
                nodes.insert(index, node)
    _sweep(model.proto.graph, orphans, _training_reads(model.proto))
    for function in model.proto.functions:
        _sweep(function, orphans)
    return frozenset(shared.added)


class _SharedInitializers:
    """Adds initializers, equal ones once: a weight may serve many nodes.

    Each goes to the graph whose nodes read it, as onnxruntime runs a Conv on blocks of channels
    only where its weight stands in the same graph; what several graphs read goes to the main one.
    """

    def __init__(self, model: ModelProto) -> None:
        self.possible = model.ir_version >= _FIRST_IR_WITH_FREE_INITIALIZERS
        self.names = Names(model)
        self._main = model.graph
        self.added: set[str] = set()
        self._by_content: dict[tuple[int, tuple[int, ...], bytes], tuple[str, GraphProto]] = {}

    def add(self, tensor: TensorProto, graph: GraphProto) -> str:
        """Make ``tensor`` an initializer that ``graph`` can read; the name that it has there."""
        digest = hashlib.sha256(tensor.raw_data).digest()
        key = (tensor.data_type, tuple(tensor.dims), digest)
        name, place = self._by_content.get(key, (tensor.name, None))
        if place is None:
            graph.initializer.append(tensor)
            self.added.add(name)
            self._by_content[key] = name, graph
        elif place is not graph and place is not self._main:
            _remove_initializer(place, name)
            tensor.name = name
            self._main.initializer.append(tensor)
            self._by_content[key] = name, self._main
        return name


def _export(edit: Replacement, shared: _SharedInitializers) -> list[NodeProto]:
    *_, root = edit.scope.ancestors()
    graph = None if root.is_function or not shared.possible else edit.scope.proto
    exported: list[NodeProto] = []
    for node in edit.new:
        proto = OnnxExporter.export_node(node)
        for position, tensor in enumerate(node.inputs):
            if not isinstance(tensor, gs.Constant) or tensor.name in shared.names:
                continue  # made by a node, or a constant that the model has already
            constant = OnnxExporter.export_tensor_proto(tensor)
            if isinstance(graph, GraphProto):
                proto.input[position] = shared.add(constant, graph)
            else:
                exported += _constant_nodes(constant, edit.scope.opset, shared.names)
                shared.added.add(constant.name)
        exported.append(proto)
    return exported


def _constant_nodes(tensor: TensorProto, opset: int, names: Names) -> list[NodeProto]:
    """Nodes that make ``tensor``, the last one under its name."""
    name = tensor.name
    if tensor.data_type != TensorProto.INT64 or not _CASTS <= opset < _INTEGER_CONSTANTS:
        return [onnx.helper.make_node("Constant", [], [name], name=name, value=tensor)]
    real = names.maker(name)("real")
    values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    value = onnx.numpy_helper.from_array(values, real)
    return [
        onnx.helper.make_node("Constant", [], [real], name=real, value=value),
        onnx.helper.make_node("Cast", [real], [name], name=name, to=TensorProto.INT64),
    ]


def _set_attributes(edit: AttributeEdit) -> None:
    proto = edit.scope.proto.node[edit.scope.index(edit.node)]
    for index in reversed(range(len(proto.attribute))):
        if proto.attribute[index].name in edit.attributes:
            del proto.attribute[index]
    for name, value in edit.attributes.items():
        if value is not None:
            proto.attribute.append(onnx.helper.make_attribute(name, value))


def _sweep(
    root: GraphProto | FunctionProto, names: Iterable[str], also_read: Iterable[str] = ()
) -> None:
    """Remove from ``root`` and its subgraphs what made only ``names`` and is not read now."""
    owners = list(_nested(root))
    uses = Counter(name for owner in owners for name in _reads(owner))
    uses.update(also_read)
    producers = {
        name: (owner, node) for owner in owners for node in owner.node for name in node.output
    }
    waiting = [name for name in names if name and not uses[name]]
    while waiting:
        name = waiting.pop()
        for owner in owners:
            if isinstance(owner, GraphProto):
                _remove_initializer(owner, name)
        if name not in producers or not _removable(producers[name][1], uses):
            continue
        owner, node = producers[name]
        inputs = [name for name in node.input if name]
        del owner.node[next(i for i, other in enumerate(owner.node) if other is node)]
        for output in node.output:
            producers.pop(output, None)
        uses.subtract(inputs)
        waiting += [name for name in dict.fromkeys(inputs) if not uses[name]]


def _removable(node: NodeProto, uses: Counter[str]) -> bool:
    """Operators of other domains may do more than compute; bodies may read anything."""
    return (
        node.domain in ("", "ai.onnx")
        and not any(graph_attributes(node))
        and not any(uses[output] for output in node.output if output)
    )


def _remove_initializer(graph: GraphProto, name: str) -> None:
    for index in reversed(range(len(graph.sparse_initializer))):
        if graph.sparse_initializer[index].values.name == name:
            del graph.sparse_initializer[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name == name:
            del graph.initializer[index]
            break
    else:
        return
    # Without its default the input would be one that every caller has to feed.
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name == name:
            del graph.input[index]


def _nested(owner: GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    yield owner
    for node in owner.node:
        for _, body in graph_attributes(node):
            yield from _nested(body)


def _owners(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    yield from _nested(model.graph)
    for function in model.functions:
        yield from _nested(function)
    for training in model.training_info:
        yield from _nested(training.initialization)
        yield from _nested(training.algorithm)


def _reads(owner: GraphProto | FunctionProto) -> Iterator[str]:
    for node in owner.node:
        yield from node.input
    if isinstance(owner, GraphProto):
        yield from (value.name for value in owner.output)
    else:
        yield from owner.output


def _training_reads(model: ModelProto) -> Iterator[str]:
    """Training graphs refer to the initializers of the main graph by name."""
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            for owner in _nested(graph):
                yield from _reads(owner)
        for binding in (*training.initialization_binding, *training.update_binding):
            yield from (binding.key, binding.value)


def _names(owner: GraphProto | FunctionProto) -> Iterator[str]:
    for node in owner.node:
        yield from (node.name, *node.input, *node.output)
    if isinstance(owner, GraphProto):
        for value in (*owner.input, *owner.output, *owner.value_info):
            yield value.name
        yield from (tensor.name for tensor in owner.initializer)
        for sparse in owner.sparse_initializer:
            yield sparse.values.name
    else:
        yield from (*owner.input, *owner.output)
