"""OpenVINO on the CPU, in float32 unless the model is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from ml_dtypes import bfloat16

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job


def version() -> str:
    """The library and its version."""
    return f"openvino {openvino.__version__.split('-')[0]}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        operations = compiled.get_runtime_model().get_ops()
        kinds = [operation.get_rt_info()["primitiveType"].astype(str) for operation in operations]
        self.notes = {"kernels": " ".join(kind for kind in kinds if not kind.startswith("unk"))}

    def run(self, feeds: Feeds) -> list[Any]:
        request = self._compiled.create_infer_request()
        request.infer([_tensor(array) for array in feeds.values()])
        return [_array(tensor) for tensor in request.output_tensors]


def _tensor(array: Any) -> Any:
    if array.dtype == bfloat16:  # which OpenVINO does not know as a type of NumPy
        raw = np.ascontiguousarray(array).view(np.uint16)
        return openvino.Tensor(raw, openvino.Shape(array.shape), openvino.Type.bf16)
    return openvino.Tensor(np.ascontiguousarray(array))


def _array(tensor: Any) -> Any:
    if tensor.element_type == openvino.Type.bf16:
        return tensor.data.view(bfloat16).astype(np.float32)
    return np.array(tensor.data)


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": job.threads}
    return Session(openvino.Core().compile_model(str(job.model), "CPU", settings))
