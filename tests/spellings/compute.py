"""What onnxruntime computes of a graph of the corpus."""

from __future__ import annotations

import onnx
import onnxruntime as ort

from tests.spellings.corpus import Array, Run

_FATAL = 4
"""The exporters' redundant nodes and a refused graph are not worth a line each."""


def compute(model: onnx.ModelProto, run: Run) -> Array:
    """The output of ``model`` on the inputs of ``run``, on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output: Array = session.run(None, run.feeds(model))[0]
    return output
