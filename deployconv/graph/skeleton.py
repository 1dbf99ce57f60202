"""Copy a model without its weights: small enough for shape inference and for graphsurgeon.

Shapes are inferred anew from the inputs. Declared intermediate shapes are left out: a stale
or wrong value_info must not decide what a rewrite bakes into a Reshape. Open sizes of the inputs
keep names only as far as these tell them apart (`declared_sizes`). Declared element types stay;
they are all that is known about the outputs of custom operators.
"""

from __future__ import annotations

from math import prod

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from deployconv.errors import ModelError
from deployconv.graph.inference import infer
from deployconv.graph.states import forget_changing_states
from deployconv.graph.tensors import declared_sizes, is_onnx

_SMALL = 1024
"""Tensors of up to this many elements keep their values: shapes are computed from them."""
_LEFT_OUT = frozenset(field.name for field in NodeProto.DESCRIPTOR.fields) - {
    "input",
    "output",
    "name",
    "op_type",
    "domain",
    "attribute",
}
"""Fields of a node that say nothing about shapes."""
_NUMBERS = frozenset(
    (AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.INT, AttributeProto.INTS)
)


def skeleton(model: ModelProto) -> ModelProto:
    """A copy of ``model`` without large tensors, declared intermediate shapes and metadata."""
    bare = ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    _copy_graph(model.graph, bare.graph)
    for value in bare.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, declared_sizes(value), strict=True):
            if size is None:
                dim.Clear()
            elif isinstance(size, str):
                dim.dim_param = size
    for function in model.functions:
        copy = bare.functions.add()
        for field in ("name", "domain", "overload"):
            if function.HasField(field):
                setattr(copy, field, getattr(function, field))
        for field in ("input", "output", "attribute", "attribute_proto", "opset_import"):
            getattr(copy, field).extend(getattr(function, field))
        _copy_nodes(function, copy)
    owners: list[ModelProto | FunctionProto] = [bare, *bare.functions]
    for owner in owners:
        for entry in owner.opset_import:
            entry.domain = _plain(entry.domain)
    forget_changing_states(bare)
    return bare


def _plain(domain: str) -> str:
    """``domain`` by the one name of ONNX's own that shape inference knows."""
    return "" if is_onnx(domain) else domain


def infer_shapes(bare: ModelProto, name: str) -> ModelProto:
    """Add inferred shapes to a skeleton; unchanged if inference cannot handle the model.

    Raises ModelError for a model that contradicts itself about element types.
    """
    try:
        return infer(bare, check_type=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        if "TypeInferenceError" in reason:
            raise ModelError(f"{name}: types do not fit together: {reason}") from error
        return bare
    except (RuntimeError, ValueError):
        return bare


def _copy_graph(graph: GraphProto, bare: GraphProto) -> None:
    bare.name = graph.name
    bare.input.extend(graph.input)
    # A value_info without a shape would hide that of the initializer with the same name.
    known = {tensor.name for tensor in graph.initializer}
    for source, target in ((graph.output, bare.output), (graph.value_info, bare.value_info)):
        for value in source:
            if source is graph.value_info and value.name in known:
                continue
            copy = target.add()
            copy.CopyFrom(value)
            if copy.type.HasField("tensor_type"):
                copy.type.tensor_type.ClearField("shape")
    for tensor in graph.initializer:
        _copy_tensor(tensor, bare.initializer.add())
    for sparse in graph.sparse_initializer:
        bare.sparse_initializer.add().CopyFrom(sparse)
    _copy_nodes(graph, bare)


def _copy_nodes(owner: GraphProto | FunctionProto, bare: GraphProto | FunctionProto) -> None:
    for node in owner.node:
        if all(map(_is_number, node.attribute)):
            copy = bare.node.add()
            copy.CopyFrom(node)
            copy.domain = _plain(node.domain)
            for field in _LEFT_OUT:
                copy.ClearField(field)
            continue
        copy = bare.node.add(op_type=node.op_type, domain=_plain(node.domain), name=node.name)
        copy.input.extend(node.input)
        copy.output.extend(node.output)
        for attribute in node.attribute:
            if _is_readable(attribute):
                _copy_attribute(attribute, copy)


def _is_number(attribute: AttributeProto) -> bool:
    """Whether the attribute holds numbers alone, so that there is nothing to leave out."""
    return attribute.type in _NUMBERS and not attribute.s and not attribute.strings


def _copy_attribute(attribute: AttributeProto, node: NodeProto) -> None:
    copy = node.attribute.add()
    if attribute.type == AttributeProto.GRAPH:
        copy.name, copy.type = attribute.name, attribute.type
        if attribute.ref_attr_name:  # one that is set, though empty, is a reference to the checker
            copy.ref_attr_name = attribute.ref_attr_name
        if attribute.HasField("g"):
            _copy_graph(attribute.g, copy.g)
    elif attribute.type == AttributeProto.TENSOR and attribute.HasField("t"):
        copy.name, copy.type = attribute.name, attribute.type
        _copy_tensor(attribute.t, copy.t)
    else:
        copy.CopyFrom(attribute)


def _is_readable(attribute: AttributeProto) -> bool:
    """Whether every string is UTF-8: graphsurgeon decodes them all and raises if it cannot."""
    try:
        for raw in (attribute.s, *attribute.strings):
            raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _copy_tensor(tensor: TensorProto, bare: TensorProto) -> None:
    if prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
        bare.CopyFrom(tensor)
        return
    bare.name, bare.data_type = tensor.name, tensor.data_type
    bare.dims.extend(tensor.dims)
    # Shape inference accepts a tensor without its data only if it is external.
    bare.data_location = TensorProto.EXTERNAL
    entry = bare.external_data.add()
    entry.key, entry.value = "location", "weights"
