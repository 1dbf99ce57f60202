"""The shape of every tensor at all sizes at once: polynomials in the sizes a model leaves open.

Shape inference gives names to open sizes, not what becomes of them behind a Conv or a Reshape.
Here each node is run on what is known of its inputs (`symbolic.run`); where that has no result,
each size that inference leaves open is one more unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_graphsurgeon as gs
from onnx import FunctionProto

from deployconv.graph import symbolic
from deployconv.graph.constants import Constants
from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import FEW, Known, Size, Unproven


class OpenShapes:
    """What is known of the tensors of a model at all sizes; each graph is run when asked for."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[int, dict[str, Known]] = {}
        self._proven: set[int] = set()
        self._unknowns = 0

    def of(self, tensor: gs.Tensor, scope: Scope) -> Known:
        """What is known of ``tensor``, as seen from ``scope``; Unproven where its rank is not."""
        constant = self._constants.of(tensor, scope)
        if constant is not None and prod(constant.shape) > FEW:
            return Known(tuple(map(Size.of, constant.shape)))
        if constant is not None:
            return Known.of(constant.read())
        for place in scope.ancestors():
            known = self._graph(place).get(tensor.name)
            if known is not None:
                return known
        raise Unproven

    def is_proven(self, node: gs.Node, scope: Scope) -> bool:
        """True where ``node`` does the same at all sizes."""
        self._graph(scope)
        return id(node) in self._proven

    def _graph(self, scope: Scope) -> dict[str, Known]:
        known = self._known.get(id(scope))
        if known is None:
            known = self._known[id(scope)] = dict(self._inputs(scope))
            for node in scope.nodes:
                self._run(node, scope, known)
        return known

    def _inputs(self, scope: Scope) -> Iterator[tuple[str, Known]]:
        if isinstance(scope.proto, FunctionProto):
            return  # called on tensors of any shape
        for value in scope.proto.input:
            kind = value.type.tensor_type
            if not kind.HasField("shape"):
                continue
            sizes: list[int | str | None] = []
            for dim in kind.shape.dim:
                # Equal names are equal sizes for a caller; a loop runs its body many times.
                name = dim.dim_param if scope.parent is None else None
                sizes.append(dim.dim_value if dim.HasField("dim_value") else name or None)
            yield value.name, Known(self._opened(sizes))

    def _run(self, node: gs.Node, scope: Scope, known: dict[str, Known]) -> None:
        if self._constants.of(node.outputs[0], scope) is not None:
            return
        try:
            inputs = [self.of(tensor, scope) if tensor.name else None for tensor in node.inputs]
            result = symbolic.run(scope.proto.node[scope.index(node)], inputs)
        except Unproven:
            for tensor in node.outputs:
                if tensor.shape is not None:
                    sizes = [size if isinstance(size, int) else None for size in tensor.shape]
                    known[tensor.name] = Known(self._opened(sizes))
        else:
            self._proven.add(id(node))
            known[node.outputs[0].name] = result

    def _opened(self, sizes: Sequence[int | str | None]) -> tuple[Size, ...]:
        """A symbol for each size that is not a number; one of its own where it has no name."""
        shape = []
        for size in sizes:
            if isinstance(size, int):
                shape.append(Size.of(size))
            else:
                self._unknowns += 1
                shape.append(Size.symbol(size or f"?{self._unknowns}"))
        return tuple(shape)
