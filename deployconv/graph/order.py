"""Put nodes in an order in which they can run, as the ONNX specification demands.

Some tools append a node after those that read its output, as onnxruntime's float16 converter
does with a Cast of an input. onnxruntime sorts the nodes of every graph when it loads a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from deployconv.errors import ModelError
from deployconv.graph.tensors import all_graphs, graph_attributes


def sort_nodes(model: ModelProto, name: str) -> None:
    """Sort the nodes of every graph of ``model`` in place; a graph that is sorted does not change.

    A node moves only to stand before the first node that needs it.

    Raises ModelError, in which ``name`` names the model, if nodes need each other in a circle.
    """
    for owner in all_graphs(model):
        needs = _needs(owner)
        if all(other < position for position, others in enumerate(needs) for other in others):
            continue
        nodes = list(owner.node)
        order = _sorted(needs)
        if order is None:
            circle = ", ".join(_label(nodes[at]) for at in _circle(needs))
            raise ModelError(
                f"{name}: nodes read each other's outputs in a circle, so none can run first:"
                f" {circle}: export the model again"
            )
        del owner.node[:]
        owner.node.extend(nodes[at] for at in order)


def _needs(owner: GraphProto | FunctionProto) -> list[list[int]]:
    """For each node the positions of the nodes of the same graph whose outputs it reads."""
    given = set(_given(owner))
    makers: dict[str, int] = {}
    for position, node in enumerate(owner.node):
        for name in node.output:
            if name and name not in given:
                makers.setdefault(name, position)
    return [[makers[name] for name in _reads(node) if name in makers] for node in owner.node]


def _reads(node: NodeProto) -> Iterator[str]:
    """The names that a node reads, those that its bodies read from the graphs around included."""
    yield from node.input
    for _, body in graph_attributes(node):
        own = {*_given(body), *(name for inner in body.node for name in inner.output)}
        read = {name for inner in body.node for name in _reads(inner)}
        yield from sorted((read | {value.name for value in body.output}) - own)


def _given(owner: GraphProto | FunctionProto) -> Iterator[str]:
    """The names in a graph that no node of it makes."""
    if isinstance(owner, FunctionProto):
        yield from owner.input
        return
    yield from (value.name for value in owner.input)
    yield from (tensor.name for tensor in owner.initializer)
    yield from (sparse.values.name for sparse in owner.sparse_initializer)


def _sorted(needs: list[list[int]]) -> list[int] | None:
    """All positions, each after those that it needs; None if there is a circle."""
    order: list[int] = []
    entered: set[int] = set()
    done: set[int] = set()
    for start in range(len(needs)):
        waiting = [start]
        while waiting:
            at = waiting[-1]
            if at in done:
                waiting.pop()
            elif at not in entered:
                entered.add(at)
                missing = [other for other in needs[at] if other not in done]
                if not entered.isdisjoint(missing):
                    return None
                waiting += reversed(missing)
            else:
                waiting.pop()
                done.add(at)
                order.append(at)
    return order


def _circle(needs: list[list[int]]) -> Iterable[int]:
    """The positions of nodes that need each other in a circle, which must exist."""
    blocked = set(range(len(needs)))
    while free := {at for at in blocked if blocked.isdisjoint(needs[at])}:
        blocked -= free
    at, path = min(blocked), dict[int, None]()
    while at not in path:
        path[at] = None
        at = next(other for other in needs[at] if other in blocked)
    steps = list(path)
    return sorted(steps[steps.index(at) :])


def _label(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or node.output[0]}'"
