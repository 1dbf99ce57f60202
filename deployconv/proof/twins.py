"""Float32 twins and unrounded models, compared in place of models that cannot be.

A float32 twin is the same model with float32 in place of bfloat16 and float64. onnxruntime's CPU
provider has no bfloat16 Conv and neither a bfloat16 nor a float64 ConvTranspose; the structure
of a model with such layers can still be checked there.

An unrounded model is a quantized model whose activations are limited to the range of the
integers, as before, but no longer rounded to them; weights keep their integers:

    x -> QuantizeLinear -> DequantizeLinear -> y      x -> Clip(lowest, highest value) -> y

A sum close to halfway between two quantized values is rounded up by one correct implementation
and down by the next. After a few more layers this is a difference of many steps in some
elements. Without the rounding, two models that compute the same differ by float rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from deployconv.errors import ModelError
from deployconv.graph.float32_twin import TWINNED, float32_twin, has_element_types
from deployconv.graph.order import sort_nodes
from deployconv.graph.tensors import all_tensors, byte_size, graph_attributes, is_external
from deployconv.runtimes.base import Array, ModelSource, TensorSpec
from deployconv.runtimes.shapes import read_structure

_LARGEST = 1 << 30
"""Most bytes of a model and its external data that are read: a bfloat16 model of this size has a
float32 twin of 2 GiB, the most that a serialized model may have."""

_CLIP_BY_INPUT = 11
"""The first opset whose Clip takes its limits as inputs."""


@dataclass(frozen=True)
class Twin:
    """A serialized float32 twin, and by name the dtypes of the inputs that it has widened."""

    model: bytes
    input_dtypes: dict[str, np.dtype[Any]]


def twin_of(source: ModelSource) -> Twin | None:
    """The float32 twin of a model file or serialized model.

    None if there is nothing to convert, or the model cannot be read or is over 1 GiB.
    """
    model = _read_whole(source)
    if model is None or not has_element_types(model):
        return None
    try:
        serialized = float32_twin(model).SerializeToString()
    except (ValueError, ModelError):
        return None
    dtypes = {
        value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
        if value.type.tensor_type.elem_type in TWINNED
    }
    return Twin(serialized, dtypes)


def as_declared(
    specs: Sequence[TensorSpec], original_dtypes: Mapping[str, np.dtype[Any]]
) -> list[TensorSpec]:
    """The inputs of a twin as the original declares them."""
    return [replace(spec, dtype=original_dtypes.get(spec.name, spec.dtype)) for spec in specs]


def widened(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Arrays in the original's dtypes, converted to those of a twin, which takes ``specs``."""
    return {
        spec.name: arrays[spec.name]
        if spec.dtype.kind in "OU"
        else arrays[spec.name].astype(spec.dtype, copy=False)
        for spec in specs
    }


def without_rounding(source: ModelSource) -> bytes | None:
    """The unrounded model of a quantized model file or serialized model, serialized.

    Replaced are QuantizeLinear and DequantizeLinear of an activation in the main graph, with one
    scale and one zero point for all elements, the same in both and held by initializers.

    None if there is no such pair, or the model cannot be read or is over 1 GiB.
    """
    model = _read_whole(source)
    return model.SerializeToString() if model is not None and _remove_rounding(model) else None


def _read_whole(source: ModelSource) -> ModelProto | None:
    """A model with the values of all its tensors; None if over 1 GiB or unreadable."""
    try:
        if isinstance(source, bytes):
            model = onnx.load_model_from_string(source)
        else:
            size = source.stat().st_size
            if size > _LARGEST:
                return None
            tensors = all_tensors(read_structure(source))
            size += sum(byte_size(tensor) or 0 for tensor in tensors if is_external(tensor))
            if size > _LARGEST:
                return None
            model = onnx.load(source)
        sort_nodes(model, "the model")
        return model
    except (OSError, ValueError, DecodeError, ModelError, onnx.checker.ValidationError):
        return None


def _remove_rounding(model: ModelProto) -> bool:
    """Replace every pair of nodes that rounds an activation, in place; False if there is none."""
    graph = model.graph
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    computed = {value.name for value in graph.input} - constants.keys()
    readers = _readers(graph)
    replaced = set()
    for node in graph.node:
        if not computed.isdisjoint(node.input):
            computed.update(node.output)
        limits = _limits(node, constants) if node.op_type == "QuantizeLinear" else None
        if limits is None or node.input[0] not in computed:
            continue
        after = readers.get(node.output[0], [])
        inverses = [other for other in after if other and _inverts(other, node, constants)]
        if inverses and len(inverses) == len(after):
            replaced.add(node.output[0])
            for other in inverses:
                _become(other, "Identity", other.input[:1])
            _become_clip(graph, node, limits, opset)
    typed = [value for value in graph.value_info if value.name not in replaced]
    del graph.value_info[:]
    graph.value_info.extend(typed)
    return bool(replaced)


def _readers(graph: GraphProto) -> dict[str, list[NodeProto | None]]:
    """The nodes that read each tensor; None for an output of the graph and for bodies of nodes."""
    found: dict[str, list[NodeProto | None]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
        for name in _captured(node):
            found.setdefault(name, []).append(None)
    return found


def _captured(node: NodeProto) -> Iterator[str]:
    """The names that a node's bodies read, at any depth."""
    for _, body in graph_attributes(node):
        for inner in body.node:
            yield from inner.input
            yield from _captured(inner)
        yield from (value.name for value in body.output)


def _limits(quantize: NodeProto, constants: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """The real values of the lowest and the highest integer.

    None if these are not known or not the same for all elements.
    """
    scale, zero = (_constant(quantize, index, constants) for index in (1, 2))
    if scale is None or scale.size != 1 or zero is None or zero.size != 1:
        return None
    if zero.dtype.kind not in "iu":
        return None
    range_ = np.iinfo(zero.dtype)
    low, high = (
        np.asarray((end - int(zero.item())) * float(scale.item()), scale.dtype)
        for end in (range_.min, range_.max)
    )
    return low, high


def _constant(node: NodeProto, index: int, constants: Mapping[str, Array]) -> Array | None:
    """The scale (1) or zero point (2) that ``node`` reads; None if it is not an initializer."""
    if len(node.input) > index and node.input[index]:
        return constants.get(node.input[index])
    return np.zeros((), np.uint8) if index == 2 else None


def _inverts(other: NodeProto, quantize: NodeProto, constants: Mapping[str, Array]) -> bool:
    """Whether ``other`` dequantizes with the scale and zero point of ``quantize``."""
    if other.op_type != "DequantizeLinear":
        return False
    for index in (1, 2):
        theirs, ours = (_constant(node, index, constants) for node in (other, quantize))
        if theirs is None or ours is None or theirs.size != 1 or theirs.item() != ours.item():
            return False
    return True


def _become_clip(
    graph: GraphProto, node: NodeProto, limits: tuple[Array, Array], opset: int
) -> None:
    """Turn ``node`` into a Clip to ``limits``, which become initializers if its opset allows."""
    if opset < _CLIP_BY_INPUT:
        low, high = (float(limit.item()) for limit in limits)
        _become(node, "Clip", node.input[:1], min=low, max=high)
        return
    names = [f"{node.output[0]}.{end}" for end in ("lowest", "highest")]
    graph.initializer.extend(map(numpy_helper.from_array, limits, names))
    _become(node, "Clip", [node.input[0], *names])


def _become(node: NodeProto, op: str, inputs: Sequence[str], **attributes: float) -> None:
    """Give ``node`` another operator, inputs and attributes; its outputs stay."""
    given = list(inputs)
    node.op_type = op
    del node.input[:], node.attribute[:]
    node.input.extend(given)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
