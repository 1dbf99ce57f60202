"""A deserialized engine on the GPU: inputs bound once, then run and timed. Worker only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from deployconv.backends.tensorrt.binding import Binding, Refused
from deployconv.backends.tensorrt.device import Device

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


@dataclass(frozen=True)
class Tensor:
    """An input or output by value: NumPy's name of its type, and its elements in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Execution:
    """One engine with its context, ready to run."""

    def __init__(self, binding: Binding, engine: Any, device: Device) -> None:
        self._binding = binding
        self._device = device
        # The engine refers to the runtime, the context to the engine.
        self._runtime, self._engine = binding.deserialize(engine)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise Refused(binding.log.errors() or "no execution context was given")
        self._addresses: dict[str, int] = {}
        self._outputs: dict[str, tuple[str, tuple[int, ...], int]] = {}

    def bind(self, inputs: Sequence[Tensor]) -> None:
        """Put ``inputs`` on the device and make room for the outputs of their shapes."""
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
        """Run once and wait for the end."""
        self._enqueue()
        self._device.synchronize()

    def milliseconds(self) -> float:
        """Run once, timed by events on the device."""
        start = self._device.record()
        self._enqueue()
        return self._device.milliseconds(start, self._device.record())

    def outputs(self) -> list[Tensor]:
        """What the last run computed."""
        return [
            Tensor(name, dtype, shape, self._device.download(self._addresses[name], size))
            for name, (dtype, shape, size) in self._outputs.items()
        ]

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise Refused(self._binding.log.errors() or "the engine did not run")

    def _bind_input(self, tensor: Tensor) -> None:
        dtype, _ = self._dtype(tensor.name)
        if tensor.dtype != dtype:
            raise Refused(f"input '{tensor.name}' is {tensor.dtype}, the engine takes {dtype}")
        if self._engine.get_tensor_location(tensor.name).name != "DEVICE":
            raise Refused(f"input '{tensor.name}' holds a shape, which is not supported here")
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
        for address in self._addresses.values():
            self._device.free(address)
        self._addresses.clear()
        self._outputs.clear()
