"""A scope is one graph of a model; a node is addressed by its scope and its position there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from deployconv.graph.tensors import graph_attributes


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph of the model: the main graph, the body of an If, Loop or Scan, a function.

    Attributes:
        path: ``main``, ``main/If_3.then_branch``, ``function:name``.
        nodes: graphsurgeon nodes, in the order of ``proto.node``.
        proto: the GraphProto or FunctionProto of the loaded model.
        opset: version of the ONNX operators here (a function has its own import).
        parent: the scope whose tensors are visible from here.
        outputs: names of the tensors that leave the graph.
        initializers: constant tensors of this graph by name, dense and sparse.
        position: which node of ``parent`` and which of its bodies this is; of a function, which
            function of the model; empty for the main graph.
    """

    path: str
    nodes: tuple[gs.Node, ...]
    proto: GraphProto | FunctionProto
    opset: int
    parent: Scope | None
    outputs: frozenset[str]
    initializers: dict[str, TensorProto | SparseTensorProto]
    position: tuple[int, ...]
    _index: dict[int, int] = field(repr=False)

    @property
    def is_function(self) -> bool:
        """True for a function: it has no initializers, its constants are nodes."""
        return isinstance(self.proto, FunctionProto)

    def in_copy(self, model: ModelProto) -> GraphProto | FunctionProto:
        """The graph or function of this scope in ``model``, a copy of the viewed model."""
        if self.parent is not None:
            node, body = self.position
            bodies = list(graph_attributes(self.parent.in_copy(model).node[node]))
            return bodies[body][1]
        return model.functions[self.position[0]] if self.position else model.graph

    def index(self, node: gs.Node) -> int:
        """Position of ``node`` in ``nodes``, and in ``proto.node`` of the model and its copies."""
        return self._index[id(node)]

    def proto_of(self, node: gs.Node) -> NodeProto:
        """The NodeProto of ``node`` in the loaded model, which nothing may edit."""
        proto: NodeProto = self.proto.node[self.index(node)]
        return proto

    def copy_of(self, node: gs.Node) -> NodeProto:
        """A copy of the NodeProto of ``node``."""
        copy = NodeProto()
        copy.CopyFrom(self.proto_of(node))
        return copy

    def holds(self, node: gs.Node) -> bool:
        """True if ``node`` is in this graph itself, not in one around it or inside it."""
        return id(node) in self._index

    def home_of(self, node: gs.Node) -> Scope | None:
        """The graph that ``node`` is in, this one or one around it; None if it is in neither."""
        return next((scope for scope in self.ancestors() if scope.holds(node)), None)

    def label(self, node: gs.Node) -> str:
        """The node's name, or its operator and position if it has none."""
        return str(node.name) or f"{node.op}_{self.index(node)}"

    def ancestors(self) -> Iterator[Scope]:
        """This scope and those around it, from the inside to the outside."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent
