"""MNN on the CPU. The command ``mnnconvert`` is never run: it installs packages by itself."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import MNN
import numpy as np

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job


def version() -> str:
    """The library and its version."""
    return f"MNN {version_of('mnn')}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, interpreter: Any, session: Any, job: Job) -> None:
        self._interpreter = interpreter
        self._session = session
        self._outputs = job.outputs
        self.notes: dict[str, Any] = {}
        for name, array in job.feeds.items():
            interpreter.resizeTensor(interpreter.getSessionInput(session, name), array.shape)
        interpreter.resizeSession(session)

    def run(self, feeds: Feeds) -> list[Any]:
        kind = MNN.Tensor_DimensionType_Caffe
        for name, array in feeds.items():
            given = self._interpreter.getSessionInput(self._session, name)
            data = np.ascontiguousarray(array, np.float32)
            given.copyFrom(MNN.Tensor(data.shape, MNN.Halide_Type_Float, data, kind))
        code = self._interpreter.runSession(self._session)
        if code != 0:
            raise RuntimeError(f"runSession returned {code}")
        return [self._read(name) for name in self._outputs]

    def _read(self, name: str) -> Any:
        result = self._interpreter.getSessionOutput(self._session, name)
        shape = result.getShape()
        held = MNN.Tensor(
            shape,
            MNN.Halide_Type_Float,
            np.zeros(shape, np.float32),
            MNN.Tensor_DimensionType_Caffe,
        )
        result.copyToHostTensor(held)
        return np.array(held.getNumpyData(), np.float32).reshape(shape)


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    import _tools

    target = job.folder / "model.mnn"
    command = ["", "-f", "ONNX", "--modelFile", str(job.model)]
    command += ["--MNNModel", str(target), "--bizCode", "deployconv"]
    with job.output() as written:
        _tools.mnnconvert(command)
    if not target.exists():
        raise RuntimeError(f"mnnconvert wrote no model: {_last(written.text)}")
    interpreter = MNN.Interpreter(str(target))
    settings = {"backend": "CPU", "precision": "high", "numThread": job.threads}
    return Session(interpreter, interpreter.createSession(settings), job)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line or "not" in line]
    return (errors or lines or ["no message"])[-1]
