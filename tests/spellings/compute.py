"""What onnxruntime computes of a graph of the corpus."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnxruntime as ort

from tests.spellings.corpus import Array, Run, Shape, example

_FATAL = 4
"""The exporters' redundant nodes and a refused graph are not worth a line each."""


def compute(model: onnx.ModelProto, run: Run) -> Array:
    """The output of ``model`` on the inputs of ``run``, on the CPU."""
    output: Array = _session(model).run(None, run.feeds(model))[0]
    return output


def outputs(model: onnx.ModelProto, shapes: Iterable[tuple[Shape, ...]]) -> list[Array | None]:
    """The output of ``model`` for inputs of each of ``shapes``, None where onnxruntime refuses."""
    session = _session(model)
    names = [given.name for given in session.get_inputs()]
    made: list[Array | None] = []
    for inputs in shapes:
        try:
            feeds = {name: example(shape) for name, shape in zip(names, inputs, strict=False)}
            made.append(session.run(None, feeds)[0])
        except Exception:
            made.append(None)
    return made


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
