"""Count the work of a model: multiplications, and bytes that are read or written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from bench.subjects import Shapes

Types = dict[str, tuple[int, tuple[int, ...]]]
"""By the name of a tensor: bytes of an element, and the shape."""

_ALIASES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that give a tensor another shape and move nothing."""


@dataclass(frozen=True)
class Work:
    """The counted work of a model.

    Attributes:
        macs: multiplications of all Conv, ConvTranspose, Gemm and MatMul nodes, those with padding,
            inserted zeros and repeated pixels included; None if a shape is not known.
        needed: bytes of the model's inputs, outputs and weights, each once.
        moved: bytes that all nodes read and write, as if no node were fused with another and no
            cache held anything; None if a shape is not known.
    """

    macs: int | None
    needed: int
    moved: int | None


def work_of(model: ModelProto, shapes: Shapes) -> Work:
    """Count the work of ``model`` for inputs of these ``shapes``.

    Of the branches of an If the one with more work counts; the body of a loop counts once.
    """
    types = _types(model, shapes)
    weights = sum(_bytes_of(name, types) or 0 for name in _constants(model.graph))
    given = {tensor.name for tensor in model.graph.initializer}
    ends = [value.name for value in (*model.graph.input, *model.graph.output)]
    needed = weights + sum(_bytes_of(name, types) or 0 for name in ends if name not in given)
    try:
        macs, moved = _in_graph(model.graph, types)
    except KeyError:
        return Work(None, needed, None)
    return Work(macs, needed, moved)


def macs_of(model: ModelProto, shapes: Shapes, names: Collection[str]) -> int | None:
    """Multiplications of the nodes called ``names``, at any depth; None if one is not known."""
    types = _types(model, shapes)
    try:
        return sum(_macs(node, types) for node in all_nodes(model) if node.name in names)
    except KeyError:
        return None


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """The nodes of the main graph and of all its subgraphs."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield from graph.node
        waiting += [body for node in graph.node for body in _bodies(node)]


def _types(model: ModelProto, shapes: Shapes) -> Types:
    from onnx.shape_inference import infer_shapes

    from deployconv.graph.skeleton import skeleton

    bare = skeleton(model)
    for value in bare.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    return dict(_known(infer_shapes(bare, data_prop=True).graph))


def _known(graph: GraphProto) -> Iterator[tuple[str, tuple[int, tuple[int, ...]]]]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sizes = [dim.dim_value for dim in kind.shape.dim]
        if kind.HasField("shape") and all(sizes):
            yield value.name, (_itemsize(kind.elem_type), tuple(sizes))
    for tensor in graph.initializer:
        yield tensor.name, (_itemsize(tensor.data_type), tuple(tensor.dims))
    for node in graph.node:
        for body in _bodies(node):
            yield from _known(body)


def _itemsize(elem_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def _constants(graph: GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (node.output[0] for node in graph.node if node.op_type == "Constant")


def _bytes_of(name: str, types: Types) -> int | None:
    if name not in types:
        return None
    itemsize, shape = types[name]
    return itemsize * prod(shape)


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [entry.g for entry in node.attribute if entry.type == AttributeProto.GRAPH]


def _in_graph(graph: GraphProto, types: Types) -> tuple[int, int]:
    """Multiplications and bytes moved. Raises KeyError if a shape is not known."""
    macs = moved = 0
    for node in graph.node:
        bodies = [_in_graph(body, types) for body in _bodies(node)]
        if bodies:
            macs += max(inner for inner, _ in bodies)
            moved += max(inner for _, inner in bodies)
        elif node.op_type not in ("Constant", *_ALIASES):
            macs += _macs(node, types)
            names = [name for name in (*node.input, *node.output) if name]
            # Tensors of unknown shape are those of index arithmetic: small enough to leave out.
            moved += sum(_bytes_of(name, types) or 0 for name in names)
    return macs, moved


def _macs(node: NodeProto, types: Types) -> int:
    if node.op_type == "Conv":
        weight, made = types[node.input[1]][1], types[node.output[0]][1]
        return prod(weight[1:]) * prod(made)
    if node.op_type == "ConvTranspose":
        read, weight = types[node.input[0]][1], types[node.input[1]][1]
        return prod(read) * prod(weight[1:])
    if node.op_type == "MatMul":
        return types[node.input[0]][1][-1] * prod(types[node.output[0]][1])
    if node.op_type == "Gemm":
        rows = {entry.name: entry.i for entry in node.attribute}.get("transA", 0)
        return types[node.input[0]][1][0 if rows else 1] * prod(types[node.output[0]][1])
    return 0
