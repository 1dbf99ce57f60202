"""Which nodes of a quantized graph onnxruntime runs on integers.

    DequantizeLinear -> Conv -> QuantizeLinear                    is one QLinearConv
    DequantizeLinear -> Transpose, Reshape, .. -> QuantizeLinear  moves integers

The DequantizeLinear and QuantizeLinear around them disappear. A QLinearConv has its channels last,
and between two of them nothing is turned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

from onnx import NodeProto

from deployconv.search.cost_terms import attributes

_MOVES = frozenset(
    ["Concat", "DepthToSpace", "Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"]
)


class Integers:
    """The integer part of a graph: ``nodes`` in an order in which they can run."""

    def __init__(self, nodes: Sequence[NodeProto], outputs: Collection[str]) -> None:
        self._nodes = nodes
        self._outputs = outputs
        self._makers = {name: node for node in nodes for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Tensors that are integers though their type is real: no one ever makes them real."""
        found: set[str] = set()
        for node in self._nodes:
            if node.op_type == "DequantizeLinear":
                if self._disappears(node.output[0]):
                    found.add(node.output[0])
            elif node.input and node.input[0] in found and node.op_type in (*_MOVES, "Conv"):
                found.update(node.output)
        return frozenset(found)

    def _disappears(self, name: str) -> bool:
        """True where all that is done with a tensor can be done on integers."""
        readers = self._readers.get(name, [])
        return (
            bool(readers)
            and name not in self._outputs
            and all(self._takes_integers(node, name) for node in readers)
        )

    def _takes_integers(self, node: NodeProto, name: str) -> bool:
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type == "Conv":
            return node.input[0] == name and self._is_integer_conv(node)
        moves = node.op_type in _MOVES and node.input[0] == name
        return moves and self._disappears(node.output[0])

    def _is_integer_conv(self, node: NodeProto) -> bool:
        weight = self._makers.get(node.input[1])
        readers = self._readers.get(node.output[0], [])
        return (
            weight is not None
            and weight.op_type == "DequantizeLinear"
            and len(readers) == 1
            and readers[0].op_type == "QuantizeLinear"
            and node.output[0] not in self._outputs
        )

    def layer(self, node: NodeProto) -> bool:
        """True for a Conv that runs on integers."""
        return node.op_type == "Conv" and node.input[0] in self.tensors

    def vanishes(self, node: NodeProto) -> bool:
        """True for a DequantizeLinear or QuantizeLinear that is part of an integer layer."""
        if node.op_type == "DequantizeLinear":
            return node.output[0] in self.tensors
        return node.op_type == "QuantizeLinear" and node.input[0] in self.tensors


def turns(node: NodeProto) -> int:
    """1 for a Transpose that puts the channels last, -1 for one that puts them in front, else 0."""
    if node.op_type != "Transpose":
        return 0
    order = list(attributes(node).get("perm", ()))
    rank = len(order)
    if rank < 3:
        return 0
    return (order == [0, *range(2, rank), 1]) - (order == [0, rank - 1, *range(1, rank - 1)])
