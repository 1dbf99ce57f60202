"""Find the nodes of a quantized graph that onnxruntime runs on integers.

    DequantizeLinear -> Conv -> QuantizeLinear                    is one QLinearConv
    DequantizeLinear -> Transpose, Reshape, .. -> QuantizeLinear  moves integers

The DequantizeLinear and QuantizeLinear around them disappear. A QLinearConv runs channels-last, and
between two of them nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Literal

from onnx import NodeProto

from deployconv.search.cost_terms import attributes

_MOVES = frozenset(
    ["Concat", "DepthToSpace", "Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"]
)
"""Operators that only move elements, and so can run on integers."""


class IntegerLayers:
    """The nodes of a graph that run on integers."""

    def __init__(self, nodes: Iterable[NodeProto], outputs: Collection[str]) -> None:
        """Take the ``nodes`` of a graph, in an order in which they can run."""
        self._nodes = tuple(nodes)
        self._outputs = outputs
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self._nodes:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The tensors that stay integers although the graph declares them as real numbers."""
        found: set[str] = set()
        for node in self._nodes:
            if node.op_type == "DequantizeLinear":
                if self._stays_integer(node.output[0]):
                    found.add(node.output[0])
            elif node.input and node.input[0] in found and node.op_type in (*_MOVES, "Conv"):
                found.update(node.output)
        return frozenset(found)

    def _stays_integer(self, name: str) -> bool:
        """Whether all nodes that read a tensor can run on integers."""
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
            return node.input[0] == name and self._can_be_integer(node)
        moves = node.op_type in _MOVES and node.input[0] == name
        return moves and self._stays_integer(node.output[0])

    def _can_be_integer(self, conv: NodeProto) -> bool:
        weight = self._makers.get(conv.input[1])
        readers = self._readers.get(conv.output[0], [])
        return (
            weight is not None
            and weight.op_type == "DequantizeLinear"
            and len(readers) == 1
            and readers[0].op_type == "QuantizeLinear"
            and conv.output[0] not in self._outputs
        )

    def is_conv(self, node: NodeProto) -> bool:
        """Whether a node is a Conv that runs on integers."""
        return node.op_type == "Conv" and node.input[0] in self.tensors

    def absorb(self, node: NodeProto) -> bool:
        """Whether a DequantizeLinear or QuantizeLinear is part of an integer layer."""
        if node.op_type == "DequantizeLinear":
            return node.output[0] in self.tensors
        return node.op_type == "QuantizeLinear" and node.input[0] in self.tensors


def channel_move(node: NodeProto) -> Literal["first", "last"] | None:
    """Whether a Transpose moves the channels of an image first or last; None if neither."""
    order = list(attributes(node).get("perm", ())) if node.op_type == "Transpose" else []
    rank = len(order)
    if rank < 4:  # with one spatial axis both are the same exchange of axes
        return None
    if order == [0, *range(2, rank), 1]:
        return "last"
    return "first" if order == [0, rank - 1, *range(1, rank - 1)] else None
