"""Run models with MNN on the CPU in float32, in a worker process.

A model is converted first, by the function in MNN's package: its command ``mnnconvert`` installs
another package over the network. The converter may end the process if it meets what it does not
know. By default MNN computes some Convs by Winograd's method, with errors of 5e-4 of an output's
magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from deployconv.runtimes.base import Array, Feeds
from deployconv.runtimes.isolated import IsolatedBackend
from deployconv.runtimes.worker_main import Refused

_NO_WINOGRAD = 3, 0
"""The hint ``WINOGRAD_MEMORY_LEVEL``: at level 0 no Conv is computed by Winograd's method."""
_NARROWED = {"float64": "float32", "float16": "float32", "bfloat16": "float32", "int64": "int32"}
"""The types that MNN computes others in."""


@cache
def load(name: str) -> IsolatedBackend:
    """The backend, as `deployconv.runtimes.registry` asks for it; one worker serves all models."""
    return IsolatedBackend(name)


def version() -> str:
    """Library and version; imports the library."""
    import MNN

    return f"MNN {MNN.version()}"


class _Executor:
    """A converted model in a session with inputs of given shapes."""

    provider = "CPU, precision high"

    def __init__(
        self,
        file: Path,
        threads: int,
        optimise: bool,
        shapes: Mapping[str, Sequence[int]],
        outputs: Sequence[str],
    ) -> None:
        import MNN

        self._mnn = MNN
        self._interpreter = MNN.Interpreter(str(file))
        if not optimise:
            self._interpreter.setSessionHint(*_NO_WINOGRAD)
        settings = {"numThread": threads, "precision": "high", "backend": "CPU"}
        self._session = self._interpreter.createSession(settings)
        self._inputs: dict[str, Any] = self._interpreter.getSessionInputAll(self._session)
        if self._inputs.keys() != shapes.keys():
            raise Refused(f"the converted model has the inputs {', '.join(self._inputs)}")
        for name, tensor in self._inputs.items():
            self._interpreter.resizeTensor(tensor, tuple(shapes[name]))
        self._interpreter.resizeSession(self._session)
        self._outputs = outputs
        self._copies: list[Any] = []

    def set_inputs(self, feeds: Feeds) -> None:
        """Copy the inputs: a run overwrites what it has read."""
        self._copies = []
        for name, tensor in self._inputs.items():
            copy = self._tensor(feeds[name])
            tensor.copyFrom(copy)
            self._copies.append(copy)

    def run(self) -> None:
        code = self._interpreter.runSession(self._session)
        if code != 0:
            raise Refused(f"the run ended with error code {code}")

    def outputs(self) -> list[Array]:
        found = self._interpreter.getSessionOutputAll(self._session)
        missing = [name for name in self._outputs if name not in found]
        if missing:
            raise Refused(f"the converted model has no output {', '.join(missing)}")
        return [self._array(found[name]) for name in self._outputs]

    def _tensor(self, array: Array) -> Any:
        dtype = np.dtype(_NARROWED.get(array.dtype.name, array.dtype.name))
        kinds = {
            "float32": self._mnn.Halide_Type_Float,
            "int32": self._mnn.Halide_Type_Int,
            "uint8": self._mnn.Halide_Type_Uint8,
        }
        if dtype.name not in kinds:
            raise Refused(f"an input of {array.dtype.name} cannot be given to it")
        values = np.asarray(array, dtype, order="C")
        layout = self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(values.shape, kinds[dtype.name], values, layout)

    def _array(self, tensor: Any) -> Array:
        """The values in the order of the model, whatever the layout of MNN's tensor."""
        values = np.asarray(tensor.getNumpyData())
        copy = self._tensor(np.zeros(tensor.getShape(), values.dtype))
        tensor.copyToHostTensor(copy)
        return np.array(copy.getNumpyData()).reshape(tensor.getShape())


def open_model(
    model: Path,
    *,
    threads: int,
    optimise: bool,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    outputs: Sequence[str],
    folder: Path,
) -> _Executor:
    """Convert ``model`` and load it, see `isolated.OpenModel`."""
    import _tools

    file = folder / "model.mnn"
    command = ["mnnconvert", "-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(file)]
    done = _tools.mnnconvert([*command, "--bizCode", "deployconv"])
    if not done or not file.exists():
        raise Refused("the converter failed")
    return _Executor(file, threads, optimise, shapes, outputs)
