"""Run models with OpenVINO on the CPU, in float32.

On processors with AMX or AVX512-BF16, OpenVINO computes float32 models in bfloat16 unless it is
told otherwise, which moves outputs by a hundredth of their magnitude and makes some layers several
times as fast as others. So the precision is set, and a session's ``provider`` says what the layers
run in, as OpenVINO reports it. Quantized layers run in int8 all the same.

``import openvino`` reports itself to its vendor's server, without asking, through the package
``openvino_telemetry``. That package is hidden from it here; OpenVINO has a stub in its place.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.base import Array, Feeds, ModelSource, TensorSpec, label_of
from deployconv.runtimes.machine import chosen_threads
from deployconv.runtimes.shapes import input_specs, output_specs, read_structure

_TELEMETRY = "openvino_telemetry"


def _import_openvino() -> Any:
    """Import the library without its telemetry, unless the caller has imported that."""
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]


ov = _import_openvino()

_DEVICE = "CPU"
_PRECISION = "f32"
_MULTIPLYING = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
"""The kinds of layers whose precision is reported, if a model has any."""
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_LONGEST_MESSAGE = 400
_WHERE = re.compile(r"(?:Exception from|Check '[^']*' failed at|Error:) ?\S*?(?:\.[chp]+:\d+:?)?\s")


def load(name: str) -> OpenVinoBackend:
    """Return the backend ``openvino``; the registry of runtimes calls this."""
    return OpenVinoBackend(name)


class OpenVinoBackend:
    """OpenVINO's CPU plugin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runtime = f"openvino {ov.__version__.partition('-')[0]}"

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> OpenVinoSession:
        """Compile ``model`` for the CPU, for inputs of any size that it declares.

        ``optimise`` makes no difference: OpenVINO does not run a graph unchanged.

        Raises:
            BackendUnavailable: OpenVINO cannot run the model.
            UsageError: ``threads`` is not positive.
        """
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISION,
            "INFERENCE_NUM_THREADS": chosen_threads(threads),
            "NUM_STREAMS": 1,
        }
        label = label_of(model)
        try:
            core = ov.Core()
            read = core.read_model(str(model) if isinstance(model, Path) else model)
            compiled = core.compile_model(read, _DEVICE, settings)
        except Exception as error:  # the classes say nothing about the cause
            raise self._failed(label, "load", error) from error
        return OpenVinoSession(self, compiled, read_structure(model), label)

    def _failed(self, label: str, step: str, error: Exception) -> BackendUnavailable:
        other = "" if step == "load" else " or another --shape"
        return BackendUnavailable(
            f"{label}: {self.runtime} cannot {step} the model: {clean_message(str(error))}: "
            f"try another --backend{other}"
        )


class OpenVinoSession:
    """A model compiled by OpenVINO; a `deployconv.runtimes.base.Session`."""

    def __init__(self, backend: OpenVinoBackend, compiled: Any, proto: Any, label: str) -> None:
        self.inputs: Sequence[TensorSpec] = input_specs(proto)
        self.outputs: Sequence[TensorSpec] = output_specs(proto)
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self.provider = f"{_DEVICE} in {' and '.join(executed_types(compiled))}"
        self._backend = backend
        self._label = label
        self._request = compiled.create_infer_request()
        self._ports = {name: port for port in compiled.inputs for name in port.get_names()}
        self._results = {name: port for port in compiled.outputs for name in port.get_names()}
        self._bound: Feeds | None = None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return every output by name. Raises BackendUnavailable if it cannot."""
        try:
            self._run(feeds)
            return {spec.name: self._output(spec) for spec in self.outputs}
        except Exception as error:
            raise self._backend._failed(self._label, "run", error) from error

    def timed_run(self, feeds: Feeds) -> None:
        """Run once; inputs and outputs stay where they are."""
        try:
            self._run(feeds)
        except Exception as error:
            raise self._backend._failed(self._label, "run", error) from error

    def _run(self, feeds: Feeds) -> None:
        if self._bound is not feeds:
            for name, array in feeds.items():
                self._request.set_tensor(self._ports[name], _tensor(array))
            self._bound = feeds
        self._request.infer(share_outputs=True)

    def _output(self, spec: TensorSpec) -> Array:
        tensor = self._request.get_tensor(self._results[spec.name])
        if spec.dtype == _BFLOAT16:
            return np.array(tensor.data).view(_BFLOAT16)
        return np.array(tensor.data)


def executed_types(compiled: Any) -> list[str]:
    """The element types that the layers of a compiled model run in, as OpenVINO reports them.

    Those of convolutions and matrix products, if there are any.
    """
    types: dict[bool, set[str]] = {True: set(), False: set()}
    for layer in compiled.get_runtime_model().get_ops():
        info = {
            key: layer.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision")
        }
        if info["layerType"] not in ("Const", "Input", "Output"):
            types[info["layerType"] in _MULTIPLYING].add(info["runtimePrecision"])
    return sorted(types[True] or types[False]) or [_PRECISION]


def _tensor(array: Array) -> Any:
    array = np.asarray(array, order="C")
    if array.dtype == _BFLOAT16:
        return ov.Tensor(array.view(np.uint16), ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def clean_message(text: str) -> str:
    """Put ``text`` on one line, without the places in OpenVINO's source."""
    text = " ".join(_WHERE.sub("", " ".join(text.split()) + " ").split()).rstrip(".: ")
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 3] + "..."
