"""Remove the declared sizes of Loop states that do not follow from the inputs of the model.

The body of a Loop declares the shapes of its inputs. A size of a state holds in every iteration if
the Loop begins with it and if the body keeps it. Other sizes may be those of a former version of
the model: they are removed, and so are those of the inputs of all other bodies, which shape
inference finds by itself where they follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from deployconv.graph.inference import infer
from deployconv.graph.tensors import declared_sizes, graph_attributes, is_onnx, nested

Sizes = Sequence[int | None]
Shapes = Mapping[str, Sizes]


def forget_changing_states(bare: ModelProto) -> None:
    """Remove declared sizes of loop states that differ from one round to the next.

    ``bare`` is a model without declared shapes inside its graphs.
    """
    bodies = (body for owner in nested(bare.graph) for node in owner.node for body in _of(node))
    found = any(body.input for body in bodies)
    while found:
        try:
            inferred = infer(bare)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            inferred = bare
        # What was inferred from a size that is removed has to be inferred anew.
        found = False
        for body, kept in _bodies(bare.graph, inferred.graph, {}):
            found |= _forget(body, kept)


def _of(node: NodeProto) -> Iterator[GraphProto]:
    return (body for _, body in graph_attributes(node))


Body = tuple[GraphProto, list[Sizes]]


def _bodies(bare: GraphProto, inferred: GraphProto, outside: Shapes) -> Iterator[Body]:
    """Every body that has inputs, and the sizes that hold for these in every iteration."""
    shapes = {**outside, **dict(_shapes(inferred))}
    for node, known in zip(bare.node, inferred.node, strict=True):
        for body, made in zip(_of(node), _of(known), strict=True):
            if body.input:
                yield body, list(_kept(node, made, shapes))
            yield from _bodies(body, made, shapes)


def _kept(node: NodeProto, body: GraphProto, shapes: Shapes) -> Iterator[Sizes]:
    if node.op_type != "Loop" or not is_onnx(node.domain):
        return
    yield from ((), ())  # the number of the iteration, and the condition
    inside = dict(_shapes(body))
    for name, result in zip(node.input[2:], body.output[1:], strict=False):
        pair = shapes.get(name, ()), inside.get(result.name, ())
        yield [first if first == last else None for first, last in zip(*pair, strict=False)]


def _shapes(graph: GraphProto) -> Iterator[tuple[str, Sizes]]:
    """Name and sizes of every tensor of ``graph`` itself that has a shape."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            sizes = declared_sizes(value)
            yield value.name, [size if isinstance(size, int) else None for size in sizes]
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims)


def _forget(body: GraphProto, kept: Sequence[Sizes]) -> bool:
    """Remove each declared number that is not ``kept``; True if there was one."""
    found = False
    for number, value in enumerate(body.input):
        sizes = kept[number] if number < len(kept) else ()
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            agrees = at < len(sizes) and sizes[at] == dim.dim_value
            if dim.HasField("dim_value") and not agrees:
                dim.ClearField("dim_value")
                found = True
    return found
