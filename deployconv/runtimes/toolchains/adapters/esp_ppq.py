"""ESP-PPQ: Espressif's quantizer for ESP-DL, with 8-bit weights and activations.

Its executor computes the quantized model. ``multiplications`` counts what its Convs do: it writes a
ConvTranspose as an insertion of zeros and a Conv over all of them.
"""

from __future__ import annotations

import math
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from esp_ppq.api import espdl_quantize_onnx
from esp_ppq.executor import TorchExecutor
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

_STEPS = 8
"""Batches of calibration; with fewer the observers see too little."""


def version() -> str:
    """The library and its version."""
    return f"esp-ppq {version_of('esp-ppq')}"


class Session:
    """A quantized model, ready to run."""

    def __init__(self, graph: Any, job: Job) -> None:
        self._executor = TorchExecutor(graph, device="cpu")
        self._job = job
        kinds = [operation.type for operation in graph.operations.values()]
        self.notes = {"multiplications": _multiplications(graph), "operators": " ".join(kinds)}

    def run(self, feeds: Feeds) -> list[Any]:
        """Compute the outputs."""
        with self._job.output():
            results = self._executor.forward(_tensors(feeds))
        return [result.detach().numpy() for result in results]


def prepare(job: Job) -> Session:
    """Quantize the model of ``job`` with its inputs."""
    torch.set_num_threads(job.threads)
    given = _tensors(job.feeds)
    several: Any = DataLoader([given] * _STEPS, batch_size=None)  # type: ignore[arg-type]
    with job.output():
        graph = espdl_quantize_onnx(
            str(job.model),
            str(job.folder / "model.espdl"),
            several,
            _STEPS,
            [list(one.shape) for one in given],
            target=job.platform,
            quant_type="w8a8",
            device="cpu",
            error_report=False,
        )
        return Session(graph, job)


def _tensors(feeds: Feeds) -> list[Any]:
    return [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in feeds.values()]


def _multiplications(graph: Any) -> int:
    count = 0
    for operation in graph.operations.values():
        if operation.type in ("Conv", "ConvTranspose"):
            weight = operation.inputs[1].shape
            place = operation.outputs if operation.type == "Conv" else operation.inputs
            sizes = place[0].shape
            count += sizes[0] * math.prod(sizes[2:]) * math.prod(weight)
        elif operation.type in ("MatMul", "Gemm"):
            count += math.prod(operation.outputs[0].shape) * operation.inputs[0].shape[-1]
    return count
