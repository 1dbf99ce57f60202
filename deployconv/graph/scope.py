"""One graph of a model, and how its nodes are addressed: by the scope and their position in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, SparseTensorProto, TensorProto


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
    """

    path: str
    nodes: tuple[gs.Node, ...]
    proto: GraphProto | FunctionProto
    opset: int
    parent: Scope | None
    outputs: frozenset[str]
    initializers: dict[str, TensorProto | SparseTensorProto]
    _index: dict[int, int] = field(repr=False)

    @property
    def is_function(self) -> bool:
        """Functions hold no initializers: constants are nodes there."""
        return isinstance(self.proto, FunctionProto)

    def index(self, node: gs.Node) -> int:
        """Position of ``node`` in ``proto.node``."""
        return self._index[id(node)]

    def holds(self, node: gs.Node) -> bool:
        """True where ``node`` stands in this very graph."""
        return id(node) in self._index

    def label(self, node: gs.Node) -> str:
        """The node's name, or operator and position where it has none."""
        return str(node.name) or f"{node.op}_{self.index(node)}"

    def ancestors(self) -> Iterator[Scope]:
        """This scope and those around it, inside out."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent
