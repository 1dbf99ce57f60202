"""Copy a model with new nodes in the place of old ones.

Everything else stays as it was, byte for byte: the model is edited, not exported again. Only
initializers and nodes that nothing reads any more are removed, together with the replaced nodes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableSequence,
    Sequence,
)
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.declared import forget_unconfirmed_sizes
from deployconv.graph.scope import Scope
from deployconv.graph.tensors import graph_attributes, is_onnx, nested
from deployconv.graph.view import View

_FIRST_IR_WITH_FREE_INITIALIZERS = 4
"""Before IR version 4 every initializer had to be a graph input as well."""
_INTEGER_CONSTANTS = 9
"""Constant nodes hold floating point only before opset 9 ..."""
_CASTS = 6
"""... and from opset 6 on runtimes have the Cast that turns it into integers."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """``new`` nodes in place of ``old`` nodes of ``scope``, at the position of the last of them."""

    scope: Scope
    old: Sequence[gs.Node]
    new: Sequence[gs.Node]


@dataclass(frozen=True, eq=False)
class AttributeEdit:
    """New values for attributes of the node at ``position``, which stays; None removes one."""

    scope: Scope
    position: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Spliced:
    """An edited copy of a model.

    Attributes:
        proto: the copy.
        added: names of the tensors in it that hold new weights and constants.
        changed: False if there was nothing to edit.
    """

    proto: ModelProto
    added: frozenset[str]
    changed: bool


class Names:
    """Makes names that are not among those ``taken``, e.g. by a model (`View.names`)."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        """True for a name that was taken, or that was made."""
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


def splice(view: View, edits: Iterable[Replacement | AttributeEdit]) -> Spliced:
    """A copy of the viewed model with ``edits``; the viewed model does not change."""
    edits = tuple(edits)
    proto = ModelProto()
    proto.CopyFrom(view.model.proto)
    added = (node for edit in edits if isinstance(edit, Replacement) for node in edit.new)
    if any(node.op == "Shape" for node in added):
        forget_unconfirmed_sizes(view, proto)
    # Positions are those of the viewed model: each graph is looked up before any has changed.
    graphs = {edit.scope: edit.scope.in_copy(proto) for edit in edits}
    inserted: dict[Scope, dict[int, list[NodeProto]]] = {}
    removed: dict[Scope, set[int]] = {}
    shared = _SharedInitializers(proto, view.names)
    for edit in edits:
        graph = graphs[edit.scope]
        if isinstance(edit, AttributeEdit):
            _set_attributes(graph.node[edit.position], edit.attributes)
            continue
        positions = [edit.scope.index(node) for node in edit.old]
        removed.setdefault(edit.scope, set()).update(positions)
        inserted.setdefault(edit.scope, {})[max(positions)] = _export(edit, graph, shared)
    orphans: list[str] = []
    for scope, new in inserted.items():
        nodes = graphs[scope].node
        gone = removed[scope]
        for index in sorted(gone | new.keys(), reverse=True):
            if index in gone:
                orphans += nodes[index].input
                del nodes[index]
            for node in reversed(new.get(index, [])):
                nodes.insert(index, node)
    if orphans:
        _sweep(proto.graph, orphans, _training_reads(proto))
        for function in proto.functions:
            _sweep(function, orphans)
    return Spliced(proto, frozenset(shared.added), bool(edits))


class _SharedInitializers:
    """Adds initializers, equal ones once: many nodes may read the same weight.

    Each goes to the graph whose nodes read it, as onnxruntime runs a Conv on blocks of channels
    only if its weight is in the same graph. If several graphs read it, it goes to the main one.
    """

    def __init__(self, model: ModelProto, names: Collection[str]) -> None:
        self.possible = model.ir_version >= _FIRST_IR_WITH_FREE_INITIALIZERS
        self.names = Names(names)
        self._main = model.graph
        self.added: set[str] = set()
        self._by_content: dict[tuple[int, tuple[int, ...], bytes], tuple[str, GraphProto]] = {}

    def add(self, tensor: TensorProto, graph: GraphProto) -> str:
        """Make ``tensor`` an initializer that ``graph`` can read; the name that it has there."""
        digest = hashlib.sha256(tensor.raw_data).digest()
        key = (tensor.data_type, tuple(tensor.dims), digest)
        name, holder = self._by_content.get(key, (tensor.name, None))
        if holder is None:
            graph.initializer.append(tensor)
            self.added.add(name)
            self._by_content[key] = name, graph
        elif holder is not graph and holder is not self._main:
            _remove_initializers(holder, {name})
            tensor.name = name
            self._main.initializer.append(tensor)
            self._by_content[key] = name, self._main
        return name


def _export(
    edit: Replacement, graph: GraphProto | FunctionProto, shared: _SharedInitializers
) -> list[NodeProto]:
    """The new nodes of ``edit`` for ``graph``, which gets their constants if it can hold any."""
    *_, root = edit.scope.ancestors()
    can_hold = shared.possible and not root.is_function
    exported: list[NodeProto] = []
    for node in edit.new:
        proto = OnnxExporter.export_node(node)
        for position, tensor in enumerate(node.inputs):
            if not isinstance(tensor, gs.Constant) or tensor.name in shared.names:
                continue  # made by a node, or a constant that the model has already
            constant = OnnxExporter.export_tensor_proto(tensor)
            if can_hold and isinstance(graph, GraphProto):
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


def _set_attributes(node: NodeProto, attributes: Mapping[str, Any]) -> None:
    for index in reversed(range(len(node.attribute))):
        if node.attribute[index].name in attributes:
            del node.attribute[index]
    for name, value in attributes.items():
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))


def _sweep(
    root: GraphProto | FunctionProto, names: Iterable[str], also_read: Iterable[str] = ()
) -> None:
    """Remove from ``root`` and its subgraphs what made only ``names`` and is not read now."""
    owners = list(nested(root))
    uses = Counter(also_read)
    for owner in owners:
        uses.update(_reads(owner))
    waiting = [name for name in names if name and not uses[name]]
    if not waiting:
        return
    producers = {
        name: (number, position)
        for number, owner in enumerate(owners)
        for position, node in enumerate(owner.node)
        for name in node.output
    }
    unread: set[str] = set()
    gone: list[set[int]] = [set() for _ in owners]
    while waiting:
        name = waiting.pop()
        unread.add(name)
        if name not in producers:
            continue
        number, position = producers[name]
        node = owners[number].node[position]
        if not _removable(node, uses):
            continue
        gone[number].add(position)
        for output in node.output:
            producers.pop(output, None)
        inputs = [name for name in node.input if name]
        uses.subtract(inputs)
        waiting += [name for name in dict.fromkeys(inputs) if not uses[name]]
    for owner, positions in zip(owners, gone, strict=True):
        for position in sorted(positions, reverse=True):
            del owner.node[position]
        if isinstance(owner, GraphProto):
            _remove_initializers(owner, unread)


def _removable(node: NodeProto, uses: Counter[str]) -> bool:
    """Whether nothing reads the outputs of ``node``, and it does nothing but compute them.

    Operators of other domains may do more; bodies may read any tensor.
    """
    return (
        is_onnx(node.domain)
        and not any(graph_attributes(node))
        and not any(uses[output] for output in node.output if output)
    )


def _remove_initializers(graph: GraphProto, names: Collection[str]) -> None:
    _delete(graph.sparse_initializer, lambda sparse: sparse.values.name in names)
    removed = {tensor.name for tensor in graph.initializer if tensor.name in names}
    _delete(graph.initializer, lambda tensor: tensor.name in removed)
    # Without its default an input would be one that every caller has to feed.
    _delete(graph.input, lambda value: value.name in removed)


def _delete(entries: MutableSequence[Any], is_gone: Callable[[Any], bool]) -> None:
    gone = [index for index, entry in enumerate(entries) if is_gone(entry)]
    for index in reversed(gone):
        del entries[index]


def _reads(owner: GraphProto | FunctionProto) -> Iterator[str]:
    for node in owner.node:
        yield from node.input
    if isinstance(owner, GraphProto):
        yield from (value.name for value in owner.output)
    else:
        yield from owner.output


def _training_reads(model: ModelProto) -> Iterator[str]:
    """The names that training graphs read: they refer to initializers of the main graph."""
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            for owner in nested(graph):
                yield from _reads(owner)
        for binding in (*training.initialization_binding, *training.update_binding):
            yield from (binding.key, binding.value)
