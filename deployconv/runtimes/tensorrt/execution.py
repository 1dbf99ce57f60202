"""Run, time and profile a deserialized engine on the GPU.

Runs in the worker only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from deployconv.runtimes.tensorrt.binding import (
    Binding,
    CacheFile,
    onnx_nodes,
)
from deployconv.runtimes.tensorrt.device import Device
from deployconv.runtimes.worker_main import Refused

_DTYPES = {
    "FLOAT": ("float32", 4),
    "HALF": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "INT8": ("int8", 1),
    "UINT8": ("uint8", 1),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "BOOL": ("bool", 1),
}
"""TensorRT's name of an element type -> NumPy's, and the bytes of an element."""
_MOVED = re.compile(r"^Reformatting CopyNode for \w+ Tensor \d+ to ")
_SEPARATORS = re.compile(r" \+ |, |[()\[\]{}]|\.\.\.")


@dataclass(frozen=True)
class Tensor:
    """The value of an input or output: NumPy's name of its type, and its elements in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Execution:
    """One engine with its context, ready to run."""

    def __init__(
        self, binding: Binding, engine: Any, device: Device, kernels: CacheFile | None = None
    ) -> None:
        """Load ``engine``; ``kernels`` keeps what TensorRT-RTX compiles on the GPU."""
        self._binding = binding
        self._device = device
        self._kernels = kernels
        # The engine refers to the runtime, the context to the engine.
        self._runtime, self._engine = binding.deserialize(engine)
        self._config = self._runtime_config()
        self._context = self._new_context()
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._outputs: dict[str, tuple[str, tuple[int, ...], int]] = {}
        self._graph: Any = None
        self._kept = False

    def bind(self, inputs: Sequence[Tensor]) -> None:
        """Put ``inputs`` on the device and allocate the outputs of their shapes."""
        self._free()
        given = {tensor.name: tensor for tensor in inputs}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = self._binding.trt.TensorIOMode
        expected = [name for name in names if self._engine.get_tensor_mode(name) == modes.INPUT]
        if set(expected) != set(given):
            raise Refused(f"the engine takes {', '.join(expected)}, given are {', '.join(given)}")
        for name in expected:
            self._bind_input(given[name])
        for name in names:
            if name not in given:
                self._bind_output(name)

    def run(self) -> None:
        """Run once and wait until it has ended."""
        self._enqueue(self._context)
        self._device.synchronize()
        self._keep_kernels()

    def milliseconds(self, cuda_graph: bool = False) -> float:
        """Time one run by events on the device; ``cuda_graph`` launches a captured run."""
        if cuda_graph and self._graph is None:
            # The first run compiles and allocates, which cannot be captured.
            self.run()
            self._graph = self._device.capture(lambda: self._enqueue(self._context))
        start = self._device.record()
        if cuda_graph:
            self._device.launch(self._graph)
        else:
            self._enqueue(self._context)
        elapsed = self._device.milliseconds(start, self._device.record())
        self._keep_kernels()
        return elapsed

    def profile(self, runs: int) -> list[dict[str, Any]]:
        """List the fields of `results.LayerTime` for each layer; means over ``runs``.

        The runs have a context of their own, as a profiler slows down the one it is attached to.
        """
        context = self._new_context()
        for name, shape in self._shapes.items():
            context.set_input_shape(name, shape)
        for name, address in self._addresses.items():
            context.set_tensor_address(name, address)
        self._enqueue(context)  # the first run compiles and allocates
        self._device.synchronize()
        profiler = make_profiler(self._binding.trt)
        context.profiler = profiler
        for _ in range(runs):
            self._enqueue(context)
            self._device.synchronize()
        nodes = layer_nodes(self._binding.trt, self._engine, context)
        return [
            {"name": name, "ms": total / runs, "nodes": nodes.get(name) or named_nodes(name)}
            for name, total in profiler.milliseconds.items()
        ]

    def outputs(self) -> list[Tensor]:
        """Copy what the last run computed from the device."""
        return [
            Tensor(name, dtype, shape, self._device.download(self._addresses[name], size))
            for name, (dtype, shape, size) in self._outputs.items()
        ]

    def _runtime_config(self) -> Any:
        """Configure how TensorRT-RTX runs the engine; None for any other library."""
        if self._binding.times_kernels or not hasattr(self._engine, "create_runtime_config"):
            return None
        config = self._engine.create_runtime_config()
        if hasattr(self._binding.trt, "DynamicShapesKernelSpecializationStrategy"):
            # Else kernels for these sizes are compiled during the runs that are timed.
            strategies = self._binding.trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if self._kernels is not None:
            cache = config.create_runtime_cache()
            kept = self._kernels.read()
            if kept and not cache.deserialize(kept):
                cache.reset()
            config.set_runtime_cache(cache)
        return config

    def _new_context(self) -> Any:
        given = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*given)
        if context is None:
            raise Refused(self._binding.log.errors() or "no execution context was given")
        return context

    def _keep_kernels(self) -> None:
        """Save compiled kernels after the first run, as the worker may be killed at any time."""
        if self._config is not None and self._kernels is not None and not self._kept:
            self._kept = True
            self._kernels.write(bytes(self._config.get_runtime_cache().serialize()))

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._device.stream):
            raise Refused(self._binding.log.errors() or "the engine did not run")

    def _bind_input(self, tensor: Tensor) -> None:
        dtype, _ = self._dtype(tensor.name)
        if tensor.dtype != dtype:
            raise Refused(f"input '{tensor.name}' is {tensor.dtype}, the engine takes {dtype}")
        if self._engine.get_tensor_location(tensor.name).name != "DEVICE":
            raise Refused(f"input '{tensor.name}' holds a shape, which is not supported here")
        self._shapes[tensor.name] = tensor.shape
        if not self._context.set_input_shape(tensor.name, tensor.shape):
            raise Refused(
                self._binding.log.errors() or f"input '{tensor.name}' cannot be {tensor.shape}"
            )
        self._device.upload(self._allocate(tensor.name, len(tensor.data)), tensor.data)

    def _bind_output(self, name: str) -> None:
        dtype, item = self._dtype(name)
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise Refused(f"output '{name}' has sizes that only a run tells, not supported here")
        self._outputs[name] = dtype, shape, item * prod(shape)
        self._allocate(name, item * prod(shape))

    def _allocate(self, name: str, size: int) -> int:
        address = self._addresses[name] = self._device.allocate(size)
        if not self._context.set_tensor_address(name, address):
            raise Refused(self._binding.log.errors() or f"tensor '{name}' cannot be bound")
        return address

    def _dtype(self, name: str) -> tuple[str, int]:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise Refused(f"tensor '{name}' is {kind}, which is not supported here")
        return _DTYPES[kind]

    def _free(self) -> None:
        if self._graph is not None:
            self._device.release(self._graph)
            self._graph = None
        self._kept = False
        self._shapes.clear()
        for address in self._addresses.values():
            self._device.free(address)
        self._addresses.clear()
        self._outputs.clear()


def make_profiler(trt: Any) -> Any:
    """Make a profiler that adds up the milliseconds of each layer, by its name."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()


def layer_nodes(trt: Any, engine: Any, context: Any) -> dict[str, list[str]]:
    """Map each layer to the ONNX nodes it was made of, as the engine inspector reports them.

    Empty if the report is in another format. The engine must have been built at verbosity
    DETAILED; any other names no nodes.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return {
            str(layer["Name"]): onnx_nodes(str(layer.get("Metadata", "")))
            for layer in json.loads(text)["Layers"]
            if isinstance(layer, dict) and "Name" in layer
        }
    except (ValueError, KeyError, TypeError):
        return {}


def named_nodes(layer: str) -> list[str]:
    """Find what may be names of ONNX nodes in the name of a layer without metadata.

    TensorRT 10 names a layer after the nodes that were fused: ``conv1 + relu1``, ``PWN(a, b)``.
    """
    parts = (part.strip() for part in _SEPARATORS.split(_MOVED.sub("", layer)))
    return [part for part in parts if part and part not in ("PWN", "ForeignNode")]
