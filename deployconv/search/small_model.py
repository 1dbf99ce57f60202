"""A small model of one site: the layers that any of its forms replaces, without the rest.

The time of a layer that takes a few percent of a model drowns in the noise of the whole. By itself
it can be timed well, and in a fraction of the time. What it reads are inputs of the small model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import onnx_graphsurgeon as gs
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.splice import Names
from deployconv.graph.tensors import graph_attributes, is_external, read_inside
from deployconv.graph.view import View
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.emit import Emitter
from deployconv.runtimes.base import Array


@dataclass(frozen=True, eq=False)
class SmallModel:
    """Some nodes of the main graph of a model.

    Attributes:
        view: the model.
        places: positions of the nodes.
        inputs: the tensors that they read, but for constants.
        outputs: the tensors that they make for others.
    """

    view: View
    places: frozenset[int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def around(cls, view: View, rewrites: Sequence[Rewrite]) -> SmallModel | None:
        """All nodes that ``rewrites`` replace and those between them; None if it cannot be cut out.

        Nothing is cut out of a subgraph or a function, or if a node has a subgraph.
        """
        main = view.scopes[0]
        if any(rewrite.scope is not main for rewrite in rewrites):
            return None
        nodes = main.proto.node
        makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
        reads = [{makers[name] for name in node.input if name in makers} for node in nodes]
        readers: list[set[int]] = [set() for _ in nodes]
        for place, before in enumerate(reads):
            for maker in before:
                readers[maker].add(place)
        inside = {main.index(node) for rewrite in rewrites for node in rewrite.nodes}
        inside |= _reached(inside, reads) & _reached(inside, readers)
        given = {info.name for info in main.proto.input} - main.initializers.keys()
        dynamic = _reached(
            (place for place, node in enumerate(nodes) if given & set(node.input)), readers
        )
        # Constants that nodes compute come along.
        inside |= {place for place in _reached(inside, reads) if place not in dynamic}
        if any(any(True for _ in graph_attributes(nodes[place])) for place in inside):
            return None
        made = {name for place in inside for name in nodes[place].output if name}
        known = made | main.initializers.keys() | {""}
        inputs = dict.fromkeys(
            name for place in sorted(inside) for name in nodes[place].input if name not in known
        )
        leaving = main.outputs | {
            name
            for place, node in enumerate(nodes)
            if place not in inside
            for name in (*node.input, *read_inside([node]))
        }
        outputs = [
            name for place in sorted(inside) for name in nodes[place].output if name in leaving
        ]
        return cls(view, frozenset(inside), tuple(inputs), tuple(outputs))

    def with_rewrite(
        self, rewrite: Rewrite | None, values: Mapping[str, Array]
    ) -> ModelProto | None:
        """The small model in one form; None leaves the site as it is.

        ``values`` has an array for each input. None if a weight is not in the model's file.
        """
        main, model = self.view.scopes[0], self.view.model.proto
        nodes: list[NodeProto] = []
        constants: dict[str, TensorProto] = {}
        last = None if rewrite is None else main.index(rewrite.nodes[-1])
        for place in sorted(self.places):
            if rewrite is None or place != last:
                nodes.append(main.proto.node[place])
                continue
            for node in self._emitted(rewrite):
                nodes.append(OnnxExporter.export_node(node))
                for tensor in node.inputs:
                    if isinstance(tensor, gs.Constant):
                        constants[tensor.name] = OnnxExporter.export_tensor_proto(tensor)
        nodes = _needed(nodes, self.outputs)
        for name in {name for node in nodes for name in node.input} & main.initializers.keys():
            tensor = main.initializers[name]
            if not isinstance(tensor, TensorProto) or is_external(tensor):
                return None
            constants[name] = tensor
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
            )
            for name in self.inputs
        ]
        outputs = [ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(nodes, "site", inputs, outputs, list(constants.values()))
        return helper.make_model(
            graph,
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
            functions=model.functions,
        )

    def _emitted(self, rewrite: Rewrite) -> list[gs.Node]:
        """The new nodes of a rewrite, with names that the model does not have."""
        number, name = count(), Names(self.view.names).maker("form")
        emitter = Emitter(rewrite.scope.opset, lambda suffix: name(f"{next(number)}/{suffix}"))
        rewrite.emit(emitter)
        return emitter.nodes


def _reached(start: Iterable[int], steps: Sequence[set[int]]) -> set[int]:
    """The places that can be reached from ``start``, itself included."""
    found: set[int] = set()
    waiting = list(start)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += steps[place]
    return found


def _needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that ``outputs`` follow from, in their order."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    reads = [{makers[name] for name in node.input if name in makers} for node in nodes]
    needed = _reached((makers[name] for name in outputs), reads)
    return [node for place, node in enumerate(nodes) if place in needed]
