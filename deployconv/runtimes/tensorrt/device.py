"""The first GPU: its name and compute capability, device memory, one stream and events.

TensorRT itself offers none of these. The driver is asked through its C interface, which needs no
package. Memory, stream and events come from cuda-python or PyTorch, whichever is installed.
Runs in the worker only.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from deployconv.runtimes.tensorrt.binding import LibraryUnavailable
from deployconv.runtimes.worker_main import NotAvailable

_LONGEST_NAME = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_CUDA_MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""The module of cuda-python 12.6 and newer, and the one before."""


class NoDevice(NotAvailable):
    """There is no GPU that CUDA can use; the message says what is missing."""


def compute_capability() -> str:
    """Return the compute capability of the first GPU, e.g. ``sm89``. Raises NoDevice if none."""
    driver, device = _first_device()
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return f"sm{''.join(parts)}"


def device_name() -> str:
    """Return the driver's name of the first GPU. Raises NoDevice if there is none."""
    driver, device = _first_device()
    name = ctypes.create_string_buffer(_LONGEST_NAME)
    driver.cuDeviceGetName(name, _LONGEST_NAME, device)
    return name.value.decode(errors="replace")


def _first_device() -> tuple[ctypes.CDLL, ctypes.c_int]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoDevice("no CUDA driver (libcuda.so.1 is not installed)") from error
    status = driver.cuInit(0)
    if status:
        raise NoDevice(f"no usable CUDA driver (cuInit gives error {status})")
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise NoDevice("no CUDA device")
    driver.cuDeviceGet(ctypes.byref(device), 0)
    return driver, device


class Device(Protocol):
    """The first GPU. Sizes are in bytes; addresses are device addresses."""

    stream: int
    """Handle of the stream that everything runs on."""

    def allocate(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def upload(self, address: int, data: bytes) -> None: ...
    def download(self, address: int, size: int) -> bytes: ...
    def synchronize(self) -> None: ...
    def record(self) -> Any:
        """Put an event on the stream."""
        ...

    def milliseconds(self, start: Any, end: Any) -> float:
        """Wait for ``end`` and return the time between the two events."""
        ...

    def capture(self, work: Callable[[], None]) -> Any:
        """Make a CUDA graph of what ``work`` puts on the stream, without running it."""
        ...

    def launch(self, graph: Any) -> None: ...
    def release(self, graph: Any) -> None: ...


def open_device() -> Device:
    """Open the first GPU. Raises LibraryUnavailable if neither package can use it."""
    problems = []
    for name in _CUDA_MODULES:
        try:
            return CudaDevice(importlib.import_module(name))
        except ImportError:
            continue
        except RuntimeError as error:
            # A cuda-python made for a newer CUDA than the driver: the usual case on a Jetson.
            problems.append(f"{name}: {error}")
    try:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return TorchDevice(torch)
        problems.append("PyTorch: installed without CUDA")
    except ImportError:
        problems.append("PyTorch: not installed")
    raise LibraryUnavailable(
        f"device memory needs cuda-python or PyTorch ({'; '.join(problems)}): pip install the "
        "cuda-python of the driver's CUDA version, 'cuda-python<13' for CUDA 12"
    )


class CudaDevice:
    """A `Device` by cuda-python, whose calls return an error code and the results."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.stream = int(self._call("cudaStreamCreate"))

    def allocate(self, size: int) -> int:
        # cudaMalloc(0) gives a null pointer, which TensorRT reads as no address.
        return int(self._call("cudaMalloc", max(size, 1)))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def upload(self, address: int, data: bytes) -> None:
        to_device = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", address, data, len(data), to_device)

    def download(self, address: int, size: int) -> bytes:
        data = bytearray(size)
        to_host = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", data, address, size, to_host)
        return bytes(data)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def record(self) -> Any:
        event = self._call("cudaEventCreate")
        self._call("cudaEventRecord", event, self.stream)
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        self._call("cudaEventSynchronize", end)
        elapsed = float(self._call("cudaEventElapsedTime", start, end))
        self._call("cudaEventDestroy", start)
        self._call("cudaEventDestroy", end)
        return elapsed

    def capture(self, work: Callable[[], None]) -> Any:
        # Other threads of the library may make calls that a global capture forbids.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        except Exception:
            with suppress(RuntimeError):
                self._call("cudaStreamEndCapture", self.stream)
            raise
        graph = self._call("cudaStreamEndCapture", self.stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return executable

    def launch(self, graph: Any) -> None:
        self._call("cudaGraphLaunch", graph, self.stream)

    def release(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *results = getattr(self._cuda, name)(*arguments)
        if int(code):
            raise RuntimeError(f"{name} failed: {getattr(code, 'name', code)}")
        return results[0] if results else None


class TorchDevice:
    """A `Device` by PyTorch; tensors are kept for as long as their address is in use."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._tensors: dict[int, Any] = {}
        self._stream = torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)

    def allocate(self, size: int) -> int:
        tensor = self._torch.empty(max(size, 1), dtype=self._torch.uint8, device="cuda")
        self._tensors[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    def free(self, address: int) -> None:
        del self._tensors[address]

    def upload(self, address: int, data: bytes) -> None:
        if data:
            host = self._torch.frombuffer(bytearray(data), dtype=self._torch.uint8)
            self._tensors[address][: len(data)].copy_(host)
            self._torch.cuda.synchronize()

    def download(self, address: int, size: int) -> bytes:
        return bytes(self._tensors[address][:size].cpu().numpy().tobytes())

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self) -> Any:
        event = self._torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(start.elapsed_time(end))

    def capture(self, work: Callable[[], None]) -> Any:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            work()
        return graph

    def launch(self, graph: Any) -> None:
        with self._torch.cuda.stream(self._stream):
            graph.replay()

    def release(self, graph: Any) -> None:
        graph.reset()
