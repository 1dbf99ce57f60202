"""What all nodes of a graph have to do together, as onnxruntime would run them.

Some nodes cost nothing beside others: what is constant is computed once, an activation behind a
Conv is done on the way, a BatchNormalization there disappears in the weights. Others cost more:
between a Conv that works on blocks of channels and a layer that does not, the image is
reordered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from onnx import FunctionProto, GraphProto, NodeProto

from deployconv.graph.shapes import Instance
from deployconv.graph.tensors import graph_attributes
from deployconv.search.cost_integers import Integers, turns
from deployconv.search.cost_terms import (
    FOLDED,
    FUSED,
    Term,
    Work,
    far,
    integer_conv,
    is_blocked,
    reads_blocks,
    work_of,
)

_FOLLOWERS = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Concat", "GlobalAveragePool", "MaxPool"),
        *("Mul", "Resize", "Sum", "Upsample", *FUSED),
    )
)
"""What leaves channels in blocks where it finds all of its inputs so."""
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"})


@dataclass(frozen=True, eq=False)
class CostGraph:
    """One graph whose time is predicted.

    Attributes:
        nodes: in an order in which they can run.
        shapes: of its tensors, as far as they are known.
        constant: names of tensors that do not depend on its inputs.
        outputs: names of tensors that leave it, or that a subgraph reads.
        static: True where the sizes of its inputs never change, so that what is computed from
            sizes alone is constant.
        block: channels in a block, see `cost_terms`.
    """

    nodes: Sequence[NodeProto]
    shapes: Instance
    constant: Collection[str]
    outputs: Collection[str]
    static: bool
    block: int

    def own_work(self) -> Iterator[tuple[NodeProto, Work | None]]:
        """Every node that is run and its own work; None where that is not known."""
        state = _State(self)
        for node in self.live():
            if not state.passes(node):
                yield node, state.work(node)

    def work(self) -> tuple[Work, frozenset[str]]:
        """All work, and the outputs of nodes of which nothing is known."""
        state = _State(self)
        total: Work = {}
        unknown = set()
        for node in self.live():
            if state.passes(node):
                continue
            own = state.work(node)
            if own is None:
                unknown.add(node.output[0])
            add_work(total, own or {})
        state.finish()
        for name in state.turned & self.shapes.keys():
            add_work(total, {"turned": prod(self.shapes[name]) / 1e6, "launches": 1.0})
        for name in state.reordered & self.shapes.keys():
            amount = prod(self.shapes[name]) / 1e6
            full = self.shapes[name][1] % self.block == 0
            term: Term = "reordered" if full else "reordered_part"
            add_work(total, {term: amount, "launches": 1.0, "forks": 1.0, **far(amount)})
        return total, frozenset(unknown)

    def live(self) -> list[NodeProto]:
        """The nodes whose results are needed."""
        read = set(self.outputs)
        found = []
        for node in reversed(self.nodes):
            if read.intersection(node.output):
                read.update(node.input)
                found.append(node)
        return found[::-1]


def add_work(total: Work, more: Work) -> None:
    """Add ``more`` to ``total``."""
    for term, amount in more.items():
        total[term] = total.get(term, 0.0) + amount


def read_inside(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names that subgraphs of ``nodes`` read; their own are among them and do no harm."""
    for node in nodes:
        for _, body in graph_attributes(node):
            for inner in body.node:
                yield from inner.input
            yield from (value.name for value in body.output)
            yield from read_inside(body.node)


@dataclass(eq=False)
class _State:
    """What is known of the tensors so far, node by node."""

    graph: CostGraph
    constant: set[str] = field(default_factory=set)
    blocks: set[str] = field(default_factory=set)
    """Tensors with channels in blocks."""
    bare: set[str] = field(default_factory=set)
    """Results of a Conv that may take an activation in."""
    reordered: set[str] = field(default_factory=set)
    last: set[str] = field(default_factory=set)
    """Integer tensors with their channels last."""
    turned: set[str] = field(default_factory=set)
    readers: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.constant.update(self.graph.constant)
        for node in self.graph.live():
            self.readers.update(node.input)
        self.readers.update(self.graph.outputs)
        self.integers = Integers(self.graph.live(), self.graph.outputs)

    def passes(self, node: NodeProto) -> bool:
        """True for a node that costs nothing where it stands."""
        varying = [name for name in node.input if name and name not in self.constant]
        sized = node.op_type in ("Shape", "Size") and self.graph.static
        if (sized or not varying) and node.op_type not in _RANDOM:
            self.constant.update(node.output)
            return True
        if self.integers.vanishes(node):
            self._keep_layout(node)
            return True
        return self._turns_for_free(node) or self._joins_conv(node, varying)

    def _keep_layout(self, node: NodeProto) -> None:
        if node.input[0] in self.last:
            self.last.update(node.output)

    def _turns_for_free(self, node: NodeProto) -> bool:
        """A Transpose that says what the layout of integers is already, or is to be."""
        way = turns(node) if node.input and node.input[0] in self.integers.tensors else 0
        if way > 0 and node.input[0] in self.last:
            return True
        if way < 0 and node.input[0] not in self.last:
            self.last.update(node.output)
            return True
        return False

    def _joins_conv(self, node: NodeProto, varying: Sequence[str]) -> bool:
        if len(varying) != 1 or varying[0] not in self.bare or self.readers[varying[0]] != 1:
            return False
        if node.op_type not in FUSED | FOLDED:
            return False
        if node.op_type in FOLDED:
            self.bare.add(node.output[0])
        if varying[0] in self.blocks:
            self.blocks.add(node.output[0])
        return True

    def work(self, node: NodeProto) -> Work | None:
        """The work of a node that does not pass; its result's layout is known from then on."""
        shapes, block = self.graph.shapes, self.graph.block
        if node.input and node.input[0] in self.integers.tensors:
            return self._integer_work(node)
        own = work_of(node, shapes, block)
        varying = [name for name in node.input if name and name not in self.constant]
        if node.op_type == "Conv" and own is not None:
            self.bare.add(node.output[0])
            if is_blocked(node, shapes, block):
                self.blocks.add(node.output[0])
                wanted = reads_blocks(node, shapes, block)
                self._read(varying[:1], wanted)
                return own
        follows = node.op_type in _FOLLOWERS and self.blocks.issuperset(varying)
        if follows:
            self.blocks.add(node.output[0])
            if own is not None and "repeated" in own:
                own["repeated_blocks"] = own.pop("repeated")
        self._read(varying, follows)
        return own

    def _integer_work(self, node: NodeProto) -> Work | None:
        """Of a Conv on integers, or of what moves them about."""
        source = node.input[0]
        if node.op_type == "Slice":
            self._keep_layout(node)
        elif (source in self.last) != self.integers.layer(node):
            self.turned.add(source)
        if not self.integers.layer(node):
            return work_of(node, self.graph.shapes, self.graph.block)
        self.last.update(node.output)
        try:
            return integer_conv(node, self.graph.shapes)
        except KeyError:
            return None

    def _read(self, names: Iterable[str], in_blocks: bool) -> None:
        """Each tensor is reordered once, for however many read it so."""
        names = list(names)
        self.reordered.update(name for name in names if (name in self.blocks) != in_blocks)
        self.turned.update(self.last.intersection(names))

    def finish(self) -> None:
        """What leaves the graph is not in blocks."""
        ends = self.blocks | self.last
        self._read((name for name in self.graph.outputs if name in ends), False)


def graph_of(
    graph: GraphProto | FunctionProto,
    shapes: Instance,
    *,
    static: bool,
    block: int,
    outer: Iterable[str] = (),
) -> CostGraph:
    """The cost graph of a GraphProto or FunctionProto; ``outer`` are constants around it."""
    constant, outputs = set(outer), set(read_inside(graph.node))
    if isinstance(graph, GraphProto):
        constant.update(tensor.name for tensor in graph.initializer)
        constant.update(sparse.values.name for sparse in graph.sparse_initializer)
        outputs.update(value.name for value in graph.output)
    else:
        outputs.update(graph.output)
    return CostGraph(list(graph.node), shapes, constant, outputs, static, block)
