"""Check the nodes of a rewrite against the limits of a target, see `Restrictions`.

The nodes are really written for this check, so it sees exactly what the model would get.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.inference import infer
from deployconv.graph.tensors import qualified_name
from deployconv.restrictions import UNRESTRICTED, ChannelOrder, Restrictions
from deployconv.results import Reason
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.emit import Emitter

Sizes = tuple[int | None, ...]
"""The shape of a tensor; None for a size that is not known."""

_MOST_VALUES = 64
"""Integers of up to this many elements are sizes, positions or axes."""


def write(
    rewrite: Rewrite, emitter: Emitter, restrictions: Restrictions = UNRESTRICTED
) -> list[gs.Node]:
    """Return the new nodes of ``rewrite``, with sizes of Reshapes as ``restrictions`` ask."""
    rewrite.emit(emitter)
    if restrictions.reshape_zero and restrictions.reshape_minus_one:
        return emitter.nodes
    shapes = _shapes(rewrite, emitter.nodes)
    for node in emitter.nodes:
        _write_out(node, emitter, shapes, restrictions)
    return emitter.nodes


def broken_by(rewrite: Rewrite, restrictions: Restrictions) -> tuple[str, ...]:
    """Return what the nodes of ``rewrite`` need and ``restrictions`` do not allow, each once."""
    if restrictions == UNRESTRICTED:
        return ()
    number = count()
    emitter = Emitter(rewrite.scope.opset, lambda suffix: f"within/{suffix}_{next(number)}")
    nodes = write(rewrite, emitter, restrictions)
    shapes = _shapes(rewrite, nodes)
    found = [needed for node in nodes for needed in _broken(node, shapes, restrictions)]
    for node in nodes:  # the tensors of the model are not to know of nodes that are not kept
        node.inputs.clear()
        node.outputs.clear()
    return tuple(dict.fromkeys(found))


def broken_by_nodes(nodes: Sequence[gs.Node], restrictions: Restrictions) -> tuple[str, ...]:
    """Return what these nodes of the model need and ``restrictions`` do not allow, each once."""
    tensors = [tensor for node in nodes for tensor in (*node.inputs, *node.outputs)]
    shapes = {t.name: tuple(map(_number, t.shape)) for t in tensors if t.shape is not None}
    found = [needed for node in nodes for needed in _broken(node, shapes, restrictions)]
    return tuple(dict.fromkeys(found))


def first_within(plans: Iterable[Rewrite | Reason], restrictions: Restrictions) -> Rewrite | Reason:
    """The first of several ways to write a layer that ``restrictions`` allow.

    Args:
        plans: the rewrite of each way, or the reason why there is none.
        restrictions: what may be written.

    Returns:
        The rewrite; or a reason that names the way that needs the least besides what is allowed,
        and what that is.
    """
    nearest: tuple[Rewrite, tuple[str, ...]] | None = None
    refused: Reason | None = None
    for planned in plans:
        if isinstance(planned, Reason):
            refused = refused or planned
            continue
        broken = broken_by(planned, restrictions)
        if not broken:
            return planned
        if nearest is None or _distance(broken) < _distance(nearest[1]):
            nearest = planned, broken
    if nearest is None:
        assert refused is not None
        return refused
    closest, broken = nearest
    name = ", ".join(filter(None, (closest.summary.form, closest.summary.shuffle)))
    text = f"the target takes none of its forms: '{name}' comes closest and needs"
    return Reason("target-restrictions", f"{text} {listed(broken)}")


def _distance(broken: Sequence[str]) -> int:
    """How far a form is from what a target takes: few targets have Col2Im, so it counts double."""
    return len(broken) + ("Col2Im" in broken)


def listed(things: Sequence[str]) -> str:
    """Join things to a phrase: ``Reshape, Slice and Transpose``."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last


def _broken(
    node: gs.Node, shapes: Mapping[str, Sizes], restrictions: Restrictions
) -> Iterator[str]:
    """What one node needs and ``restrictions`` do not allow."""
    operator = qualified_name(node.domain, node.op)
    if restrictions.operators is not None and operator not in restrictions.operators:
        yield operator
    else:
        yield from _broken_by_operator(node, restrictions)
    if restrictions.max_rank is not None:
        for tensor in (*node.inputs, *node.outputs):
            rank = _rank(tensor, shapes)
            if tensor.name and (rank is None or rank > restrictions.max_rank):
                yield f"a tensor of {'unknown' if rank is None else rank} dimensions"


def _broken_by_operator(node: gs.Node, restrictions: Restrictions) -> Iterator[str]:
    """What a node of an operator that may be written needs besides."""
    blocks = restrictions.depth_to_space
    if node.op == "DepthToSpace" and blocks is not None:
        mode: ChannelOrder = "CRD" if node.attrs.get("mode") == "CRD" else "DCR"
        block = node.attrs["blocksize"]
        taken = blocks.get(mode, ())
        if taken is not None and block not in taken:
            yield f"DepthToSpace({block}) of mode {mode}"
    if node.op == "Slice" and not restrictions.crops and not _reads_sizes(node):
        yield "a Slice"
    if node.op == "Col2Im" and not restrictions.col2im:
        yield "a Col2Im"
    if node.op == "Pad" and node.attrs.get("mode") == "edge" and not restrictions.edge_pads:
        yield "a Pad of mode edge"
    first = node.inputs[0] if node.op == "MatMul" else None
    if isinstance(first, gs.Constant) and not restrictions.matrix_first:
        yield "a MatMul whose first input is a constant"
    padded = node.op == "ConvTranspose" and any(node.attrs.get("pads", ()))
    if padded and not restrictions.transposed_pads:
        yield "pads of a ConvTranspose"
    if node.op == "Reshape":
        yield from _broken_by_sizes(_target(node), restrictions)
    elif node.op == "Shape" and not restrictions.computed_shapes:
        yield "sizes that are computed as the model runs"


def _broken_by_sizes(target: Sequence[int] | None, restrictions: Restrictions) -> Iterator[str]:
    """What the sizes in a Reshape break."""
    if target is None:
        if not restrictions.computed_shapes:
            yield "sizes that are computed as the model runs"
        return
    if 0 in target and not restrictions.reshape_zero:
        yield "a Reshape with a size of 0 for a size that is not static"
    if -1 in target and not restrictions.reshape_minus_one:
        yield "a Reshape with a size of -1 for a size that is not static"


def _write_out(
    node: gs.Node, emitter: Emitter, shapes: Mapping[str, Sizes], restrictions: Restrictions
) -> None:
    """Put numbers in place of a 0 and a -1 that a Reshape may not have, where they are known."""
    target = _target(node) if node.op == "Reshape" else None
    made = shapes.get(node.outputs[0].name)
    if target is None or made is None:
        return
    refused = {0: not restrictions.reshape_zero, -1: not restrictions.reshape_minus_one}
    sizes = [
        size if refused.get(stated) and size is not None else stated
        for stated, size in zip(target, made, strict=True)
    ]
    if refused[0] and -1 not in sizes and sizes.count(0) == 1:
        sizes[sizes.index(0)] = -1
    if sizes == target:
        return
    if len(node.inputs) == 1:
        node.attrs["shape"] = sizes
    else:
        node.inputs[1] = emitter.ints("shape", sizes)


def _target(node: gs.Node) -> list[int] | None:
    """The sizes that a Reshape states; None if they are computed."""
    if len(node.inputs) == 1:  # before opset 5
        return list(node.attrs["shape"])
    given = node.inputs[1]
    if not isinstance(given, gs.Constant) and given.inputs and given.inputs[0].op == "Constant":
        given = given.inputs[0].attrs.get("value")
    return given.values.tolist() if isinstance(given, gs.Constant) else None


def _reads_sizes(node: gs.Node) -> bool:
    """Whether a Slice takes some of the sizes that a Shape has read."""
    made_by = node.inputs[0].inputs
    return bool(made_by) and made_by[0].op == "Shape"


def _rank(tensor: gs.Tensor, shapes: Mapping[str, Sizes]) -> int | None:
    if isinstance(tensor, gs.Constant):
        return len(tensor.shape)
    return len(shapes[tensor.name]) if tensor.name in shapes else None


def _shapes(rewrite: Rewrite, nodes: Sequence[gs.Node]) -> dict[str, Sizes]:
    """The shapes of all tensors that ``nodes`` read or make, as far as they can be inferred."""
    made = {tensor.name for node in nodes for tensor in node.outputs}
    read: dict[str, tuple[int, Sequence[object]]] = {}
    for node in nodes:
        if node.op == "Conv" and isinstance(node.inputs[1], gs.Constant):
            # In a function no shape is known, but a Conv reads what is like its weight.
            read[node.inputs[0].name] = TensorProto.FLOAT, (None,) * len(node.inputs[1].shape)
    constants = {t.name: t for node in nodes for t in node.inputs if isinstance(t, gs.Constant)}
    tensors = [t for node in rewrite.nodes for t in node.inputs if t.shape is not None]
    read |= {t.name: (_element_type(t), t.shape) for t in (*tensors, *constants.values())}
    inputs = [
        helper.make_tensor_value_info(name, dtype, list(map(_number, shape)))
        for name, (dtype, shape) in read.items()
        if name not in made
    ]
    values = [
        OnnxExporter.export_tensor_proto(t)
        for t in constants.values()
        if t.dtype == np.int64 and np.prod(t.shape) <= _MOST_VALUES
    ]
    protos = [OnnxExporter.export_node(node) for node in nodes]
    outputs = [onnx.ValueInfoProto(name=name) for name in protos[-1].output]
    graph = helper.make_graph(protos, "within", inputs, outputs, values)
    domains = {proto.domain for proto in protos} - {"", "ai.onnx"}
    opsets = [helper.make_opsetid("", rewrite.scope.opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=opsets)
    inferred = infer(model).graph
    return {
        value.name: tuple(_size(dim) for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


def _element_type(tensor: gs.Tensor) -> int:
    if tensor.dtype is None:
        return int(TensorProto.FLOAT)
    if isinstance(tensor.dtype, int):
        return tensor.dtype
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)))


def _number(size: object) -> int | None:
    return size if isinstance(size, int) else None


def _size(dim: Any) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") else None
