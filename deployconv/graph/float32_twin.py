"""A copy of a model with float32 in place of element types that a runtime lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    TensorProto,
    TypeProto,
    numpy_helper,
)

from deployconv.errors import ModelError
from deployconv.graph.tensors import all_graphs, all_tensors, is_external

TWINNED = (TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Element types that onnxruntime's CPU provider has no Conv or no ConvTranspose for."""

_DTYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_dtype", "output_datatype", "softmax_precision", "stash_type"}
)
"""INT attributes that hold a TensorProto.DataType: Cast, EyeLike, RandomNormal, ..."""


def float32_twin(model: ModelProto, dtypes: Collection[int] = TWINNED) -> ModelProto:
    """A copy of ``model`` in which every element type among ``dtypes`` is float32.

    Initializers, sparse ones too, tensors in attributes, the dtype attributes of Cast and its
    like, and every declared type are changed, in subgraphs and functions too. bfloat16
    becomes float32 without loss; float64 is rounded. The copy has no training graphs.

    Args:
        model: left untouched; its tensors in the file itself, none external.
        dtypes: ``TensorProto.DataType`` values.

    Raises:
        ModelError: a tensor to convert is external or has the wrong number of bytes.
    """
    twin = ModelProto()
    twin.CopyFrom(model)
    twin.ClearField("training_info")
    for tensor in all_tensors(twin):
        if tensor.data_type in dtypes:
            _convert(tensor)
    for declared in _tensor_types(twin):
        if declared.elem_type in dtypes:
            declared.elem_type = TensorProto.FLOAT
    for attribute in _dtype_attributes(twin):
        if attribute.i in dtypes:
            attribute.i = TensorProto.FLOAT
    return twin


def has_element_types(model: ModelProto, dtypes: Collection[int] = TWINNED) -> bool:
    """Whether a tensor, a declared type or a Cast of ``model`` is of ``dtypes``."""
    found = chain(
        (declared.elem_type for declared in _tensor_types(model)),
        (attribute.i for attribute in _dtype_attributes(model)),
        (tensor.data_type for tensor in all_tensors(model)),
    )
    return any(dtype in dtypes for dtype in found)


def _attributes(model: ModelProto) -> Iterator[AttributeProto]:
    """Every attribute of a node, and every default of a function's attribute."""
    for owner in all_graphs(model):
        if isinstance(owner, FunctionProto):
            yield from owner.attribute_proto
        for node in owner.node:
            yield from node.attribute


def _dtype_attributes(model: ModelProto) -> Iterator[AttributeProto]:
    """Every attribute that holds an element type."""
    for attribute in _attributes(model):
        if attribute.type == AttributeProto.INT and attribute.name in _DTYPE_ATTRIBUTES:
            yield attribute


def _tensor_types(model: ModelProto) -> Iterator[TypeProto.Tensor | TypeProto.SparseTensor]:
    """Every declared type of a tensor, within sequences, optionals and maps too."""
    for owner in all_graphs(model):
        values = [*owner.value_info]
        if not isinstance(owner, FunctionProto):
            values += [*owner.input, *owner.output]
        for value in values:
            yield from _tensor_types_in(value.type)
    for attribute in _attributes(model):
        if attribute.HasField("tp"):
            yield from _tensor_types_in(attribute.tp)
        for declared in attribute.type_protos:
            yield from _tensor_types_in(declared)


def _tensor_types_in(
    declared: TypeProto,
) -> Iterator[TypeProto.Tensor | TypeProto.SparseTensor]:
    kind = declared.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        yield getattr(declared, kind)
    elif kind in ("sequence_type", "optional_type"):
        yield from _tensor_types_in(getattr(declared, kind).elem_type)
    elif kind == "map_type":
        yield from _tensor_types_in(declared.map_type.value_type)


def _convert(tensor: TensorProto) -> None:
    """Make the values of ``tensor`` float32, in place."""
    if is_external(tensor):
        raise ModelError(
            f"tensor {tensor.name!r} is external: load the model with its external data"
        )
    try:
        values = numpy_helper.to_array(tensor)
    except ValueError as error:
        raise ModelError(
            f"tensor {tensor.name!r} cannot be read ({error}): export the model again"
        ) from error
    with np.errstate(over="ignore"):
        raw = np.asarray(values, np.float32).astype("<f4").tobytes()
    for field in ("float_data", "int32_data", "double_data", "raw_data"):
        tensor.ClearField(field)
    tensor.data_type = TensorProto.FLOAT
    tensor.raw_data = raw
