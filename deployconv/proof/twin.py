"""A model's float32 twin: the same graph where a runtime lacks the model's own element type.

onnxruntime's CPU provider has no bfloat16 Conv and neither a bfloat16 nor a float64
ConvTranspose; the structure of such a model can still be proved there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, helper

from deployconv.errors import ModelError
from deployconv.graph.float32_twin import TWINNED, float32_twin, has_element_types
from deployconv.graph.tensors import all_tensors, byte_size, is_external
from deployconv.runtimes.base import ModelSource

_LARGEST = 1 << 30
"""Bytes of model and external data; a bfloat16 model of this size is a 2 GiB twin, the most
that a serialized model may have."""


@dataclass(frozen=True)
class Twin:
    """A serialized float32 twin and the dtypes that the original's inputs had."""

    model: bytes
    input_dtypes: dict[str, np.dtype[Any]]


def twin_of(source: ModelSource) -> Twin | None:
    """The float32 twin of a model file or serialized model.

    None where there is nothing to convert, or the model cannot be read or is over 1 GiB.
    """
    try:
        model = read_whole(source)
        if model is None or not has_element_types(model):
            return None
        serialized = float32_twin(model).SerializeToString()
    except (OSError, ValueError, DecodeError, ModelError, onnx.checker.ValidationError):
        return None
    dtypes = {
        value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
        if value.type.tensor_type.elem_type in TWINNED
    }
    return Twin(serialized, dtypes)


def read_whole(source: ModelSource) -> ModelProto | None:
    """A model with all its tensors inside; None where it is over 1 GiB."""
    if isinstance(source, bytes):
        return onnx.load_model_from_string(source)
    size = source.stat().st_size
    if size > _LARGEST:
        return None
    skeleton = onnx.load(source, load_external_data=False)
    size += sum(byte_size(tensor) or 0 for tensor in all_tensors(skeleton) if is_external(tensor))
    return onnx.load(source) if size <= _LARGEST else None
