"""Add up the work of a whole graph, as onnxruntime would run it.

Some nodes cost nothing: constants are computed once, a Conv applies the activation after it, a
BatchNormalization after a Conv becomes part of its weights. Other work is added: between a Conv
that works on blocks of channels and a layer that does not, the image is reordered.

A graph in which one node is replaced shares all it can with the original: only nodes whose
inputs, readers or shapes have changed are evaluated again.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from onnx import FunctionProto, GraphProto, NodeProto

from deployconv.graph.shapes import Instance
from deployconv.graph.tensors import read_inside
from deployconv.search.cost_terms import (
    FOLDED,
    FUSED,
    Term,
    Work,
    integer_conv,
    is_blocked,
    reads_blocks,
    resizes_blocks,
    uncached,
    work_of,
)
from deployconv.search.integer_layers import IntegerLayers, channel_move

_KEEPS_BLOCKS = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Concat", "GlobalAveragePool", "MaxPool"),
        *("Mul", "Resize", "Sum", "Upsample", *FUSED),
    )
)
"""Operators whose result has its channels in blocks if all their inputs have."""
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"})

Position = tuple[int, int]
"""The position of a node: its index in the original graph, and that among its replacements."""


class _State(NamedTuple):
    """The properties of a tensor besides its shape."""

    constant: bool = False
    """Does not depend on the inputs of the graph."""
    blocked: bool = False
    """Its channels are stored in blocks."""
    open: bool = False
    """It is the result of a Conv that can still apply an activation."""
    channels_last: bool = False
    """It holds integers, stored channels-last."""


_PLAIN = _State()
_CONSTANT = _State(constant=True)
_CHANNELS_LAST = _State(channels_last=True)


_NO_WORK: Work = {}


class _Step(NamedTuple):
    """The work of one node, and the state of its result."""

    state: _State
    """The state of its first output."""
    work: Work | None = _NO_WORK
    """The work of the node by itself; None if a shape that it depends on is not known."""
    reordered: tuple[str, ...] = ()
    """The inputs that must be reordered, into blocks or out of them."""
    moved: tuple[str, ...] = ()
    """The integer inputs whose channels must be moved, first or last."""


@dataclass(eq=False)
class _Changes:
    """The nodes and tensors that an edit changes."""

    nodes: set[Position] = field(default_factory=set)
    tensors: set[str] = field(default_factory=set)
    """The nodes that make or read them are evaluated again."""


class CostGraph:
    """One graph whose time is predicted: `graph_of` makes it, `replaced` its variants."""

    def __init__(
        self,
        nodes: Iterable[NodeProto],
        shapes: Instance,
        constants: Iterable[str],
        outputs: Collection[str],
        static: bool,
        block: int,
    ) -> None:
        """Evaluate the graph, see `graph_of`; ``outputs`` are tensors that are read elsewhere."""
        self.shapes: dict[str, tuple[int, ...]] = dict(shapes)
        self._outputs = outputs
        self._static = static
        self._block = block
        self._nodes: list[Sequence[NodeProto]] = []
        self._steps: list[list[_Step | None]] = []
        """By position; None for a node whose results nothing needs."""
        self._states: dict[str, _State] = dict.fromkeys(constants, _CONSTANT)
        self._reads: dict[str, int] = {}
        """How often a tensor is read, by needed nodes and as an output."""
        self._makers: dict[str, Position] = {}
        self._readers: dict[str, tuple[Position, ...]] = {}
        self._integers = IntegerLayers((), ())
        self._quantized = False
        for node in nodes:
            self._add_node(node)
        changes = _Changes()
        self._count(outputs, 1, changes)
        self._evaluate(changes)

    def replaced(
        self, index: int, nodes: Sequence[NodeProto], shapes: Instance, constants: Iterable[str]
    ) -> CostGraph:
        """The graph with ``nodes`` in place of one node, and without what only that node read.

        Args:
            index: of the node that is replaced, in the original graph.
            nodes: the new nodes; the last one makes what the old node made.
            shapes: of the tensors that the new nodes make.
            constants: names of constant tensors that come with the new nodes.
        """
        made = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list):  # their elements are shared
                setattr(made, name, value.copy())
        new = [name for name in constants if self._state(name) != _CONSTANT]
        changes = _Changes(tensors=set(new))
        changes.tensors |= {x for x, shape in shapes.items() if self.shapes.get(x) != shape}
        made.shapes.update(shapes)
        made._states.update(dict.fromkeys(new, _CONSTANT))
        made._exchange(index, nodes, changes)
        made._evaluate(changes)
        return made

    def work(self) -> tuple[Work, frozenset[str]]:
        """The work of the graph, and the outputs of nodes whose work is not known."""
        total: Work = {}
        unknown = set()
        reordered: dict[str, None] = {}
        moved: dict[str, None] = {}
        for node, step in self._needed():
            if step.work is None:
                unknown.add(node.output[0])
            else:
                add_work(total, step.work)
            if step.reordered:
                reordered.update(dict.fromkeys(step.reordered))
            if step.moved:
                moved.update(dict.fromkeys(step.moved))
        for name in self._outputs:
            if self._state(name).blocked:
                reordered[name] = None
            if self._state(name).channels_last:
                moved[name] = None
        for name in filter(self.shapes.__contains__, moved):
            amount = prod(self.shapes[name]) / 1e6
            add_work(total, {"integer_layout": amount, "launches": 1.0})
        for name in filter(self.shapes.__contains__, reordered):
            amount = prod(self.shapes[name]) / 1e6
            full = self.shapes[name][1] % self._block == 0
            term: Term = "reordered" if full else "reordered_part"
            add_work(total, {term: amount, "launches": 1.0, "forks": 1.0, **uncached(amount)})
        return total, frozenset(unknown)

    def work_without(self, variant: CostGraph) -> dict[Position, Work]:
        """The work of each node that ``variant``, a graph made by `replaced`, does not have."""
        return {
            (index, inner): step.work or {}
            for index, (own, others) in enumerate(zip(self._steps, variant._steps, strict=True))
            if own is not others
            for inner, step in enumerate(own)
            if step is not None
            and (self._nodes[index] is not variant._nodes[index] or others[inner] is None)
        }

    # --- nodes

    def _needed(self) -> Iterator[tuple[NodeProto, _Step]]:
        """The nodes whose results are needed, in the order in which they run."""
        for nodes, steps in zip(self._nodes, self._steps, strict=True):
            for node, step in zip(nodes, steps, strict=True):
                if step is not None:
                    yield node, step

    def _node(self, at: Position) -> NodeProto:
        return self._nodes[at[0]][at[1]]

    def _is_needed(self, node: NodeProto) -> bool:
        return any(self._reads.get(name) for name in node.output if name)

    def _set_step(self, at: Position, step: _Step | None) -> None:
        # Lists of steps are shared with the graphs that this one is a variant of.
        steps = list(self._steps[at[0]])
        steps[at[1]] = step
        self._steps[at[0]] = steps

    def _add_node(self, node: NodeProto) -> None:
        self._nodes.append(())
        self._steps.append([])
        self._put(len(self._nodes) - 1, (node,))

    def _put(self, index: int, nodes: Sequence[NodeProto]) -> None:
        self._nodes[index], self._steps[index] = nodes, [None] * len(nodes)
        for inner, node in enumerate(nodes):
            self._quantized |= node.op_type == "DequantizeLinear"
            self._makers.update((name, (index, inner)) for name in node.output if name)
            for name in _inputs(node):
                self._readers[name] = (*self._readers.get(name, ()), (index, inner))

    def _exchange(self, index: int, nodes: Sequence[NodeProto], changes: _Changes) -> None:
        old, steps = self._nodes[index], self._steps[index]
        for node in old:
            for name in filter(None, node.output):
                self._makers.pop(name, None)
            for name in _inputs(node):
                self._readers[name] = tuple(at for at in self._readers[name] if at[0] != index)
        self._put(index, nodes)
        needed = [(index, i) for i, node in enumerate(nodes) if self._is_needed(node)]
        changes.nodes.update(needed)
        # New readers are counted first, so that no tensor is without a reader in between.
        self._count([name for at in needed for name in self._node(at).input], 1, changes)
        gone = [node for node, step in zip(old, steps, strict=True) if step is not None]
        self._count([name for node in gone for name in node.input], -1, changes)

    def _count(self, names: Iterable[str], by: int, changes: _Changes) -> None:
        """Count ``by`` more readers of each tensor.

        A node is needed while one of its outputs has a reader; what it reads counts as long.
        """
        waiting = [name for name in names if name]
        while waiting:
            name = waiting.pop()
            at = self._makers.get(name)
            was_needed = at is not None and self._is_needed(self._node(at))
            self._reads[name] = self._reads.get(name, 0) + by
            if self._state(name).open:
                changes.tensors.add(name)
            if at is None or self._is_needed(self._node(at)) == was_needed:
                continue
            if was_needed:
                self._set_step(at, None)
            else:
                changes.nodes.add(at)
            waiting += filter(None, self._node(at).input)

    # --- evaluation

    def _evaluate(self, changes: _Changes) -> None:
        """Evaluate the nodes of ``changes``, and those after them whose inputs change."""
        if self._quantized:
            before = self._integers.tensors
            every = (node for nodes in self._nodes for node in nodes)
            self._integers = IntegerLayers(filter(self._is_needed, every), self._outputs)
            changes.tensors |= before ^ self._integers.tensors
        heap = list(changes.nodes)
        for name in changes.tensors:
            heap += self._readers.get(name, ())
            heap += [self._makers[name]] if name in self._makers else []
        heapq.heapify(heap)
        done: Position | None = None
        while heap:
            at = heapq.heappop(heap)
            node = self._node(at)
            if at == done or not self._is_needed(node):
                continue
            done = at
            step = self._step(node)
            self._set_step(at, step)
            for number, name in enumerate(node.output):
                state = (
                    step.state if number == 0 else step.state._replace(blocked=False, open=False)
                )
                if name and self._state(name) != state:
                    self._states[name] = state
                    for reader in self._readers.get(name, ()):
                        heapq.heappush(heap, reader)

    def _state(self, name: str) -> _State:
        return self._states.get(name, _PLAIN)

    def _step(self, node: NodeProto) -> _Step:
        varying = [name for name in node.input if name and not self._state(name).constant]
        sized = node.op_type in ("Shape", "Size") and self._static
        if (sized or not varying) and node.op_type not in _RANDOM:
            return _Step(_CONSTANT)
        if self._integers.absorb(node):
            return _Step(_State(channels_last=self._state(node.input[0]).channels_last))
        if node.input and node.input[0] in self._integers.tensors:
            return self._integer_step(node)
        return self._fused(node, varying) or self._layer(node, varying)

    def _integer_step(self, node: NodeProto) -> _Step:
        """The step of a Conv on integers, or of a node that moves integers."""
        source, move = self._state(node.input[0]), channel_move(node)
        if move == "last" and source.channels_last:
            return _Step(_PLAIN)
        if move == "first" and not source.channels_last:
            return _Step(_CHANNELS_LAST)
        if node.op_type == "Slice":
            kept = _State(channels_last=source.channels_last)
            return _Step(kept, work_of(node, self.shapes, self._block))
        is_conv = self._integers.is_conv(node)
        moved = (node.input[0],) if source.channels_last != is_conv else ()
        if is_conv:
            return _Step(_CHANNELS_LAST, integer_conv(node, self.shapes), moved=moved)
        return _Step(_PLAIN, work_of(node, self.shapes, self._block), moved=moved)

    def _fused(self, node: NodeProto, varying: Sequence[str]) -> _Step | None:
        """The step of a node that the Conv before it applies; None if it applies none."""
        if len(varying) != 1 or node.op_type not in FUSED | FOLDED:
            return None
        source = self._state(varying[0])
        if not source.open or self._reads[varying[0]] != 1:
            return None
        return _Step(_State(blocked=source.blocked, open=node.op_type in FOLDED))

    def _layer(self, node: NodeProto, varying: Sequence[str]) -> _Step:
        own = work_of(node, self.shapes, self._block)
        is_conv = node.op_type == "Conv" and own is not None
        if is_conv and is_blocked(node, self.shapes, self._block):
            wanted = reads_blocks(node, self.shapes, self._block)
            return self._reading(varying[:1], wanted, _State(blocked=True, open=True), own)
        stays = node.op_type in _KEEPS_BLOCKS and all(self._state(x).blocked for x in varying)
        if stays and node.op_type in ("Resize", "Upsample"):
            stays = resizes_blocks(node, self.shapes)
            if stays and own is not None and "repeated" in own:
                own["repeated_blocks"] = own.pop("repeated")
            elif stays and own is not None and "linear" in own:
                own = {"launches": own["launches"], "linear_blocks": own["linear"]}
        return self._reading(varying, stays, _State(blocked=stays, open=is_conv), own)

    def _reading(
        self, names: Sequence[str], in_blocks: bool, state: _State, work: Work | None
    ) -> _Step:
        """A step that reads ``names``, in blocks or not; integers with their channels first."""
        return _Step(
            state,
            work,
            tuple(name for name in names if self._state(name).blocked != in_blocks),
            tuple(name for name in names if self._state(name).channels_last),
        )


def add_work(total: Work, more: Work) -> None:
    """Add ``more`` to ``total``."""
    for term, amount in more.items():
        total[term] = total.get(term, 0.0) + amount


def _inputs(node: NodeProto) -> Iterable[str]:
    """Names of the inputs, each once."""
    return dict.fromkeys(filter(None, node.input))


def graph_of(
    graph: GraphProto | FunctionProto,
    shapes: Instance,
    *,
    static: bool,
    block: int,
    outer: Iterable[str] = (),
) -> CostGraph:
    """The cost graph of a GraphProto or FunctionProto.

    Args:
        graph: its nodes are in an order in which they can run.
        shapes: of its tensors, as far as they are known.
        static: True if the sizes of its inputs never change, so that whatever is computed from
            sizes alone is constant.
        block: channels in a block, see `cost_terms`.
        outer: names of the constants of the graphs around it.
    """
    constant, outputs = set(outer), dict.fromkeys(read_inside(graph.node))
    if isinstance(graph, GraphProto):
        constant.update(tensor.name for tensor in graph.initializer)
        constant.update(sparse.values.name for sparse in graph.sparse_initializer)
        outputs.update((value.name, None) for value in graph.output)
    else:
        outputs.update(dict.fromkeys(graph.output))
    return CostGraph(graph.node, shapes, constant, outputs, static, block)
