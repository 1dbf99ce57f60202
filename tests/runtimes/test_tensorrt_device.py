"""Device memory by cuda-python and by PyTorch, without a GPU.

cuda-python is the stand-in of `fake_gpu`, loaded under a name of its own; PyTorch is the real
one on the CPU, with what needs a GPU replaced.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deployconv.runtimes.tensorrt.binding import LibraryUnavailable
from deployconv.runtimes.tensorrt.device import CudaDevice, Device, TorchDevice, open_device

RUNTIME = Path(__file__).with_name("fake_gpu") / "cuda" / "bindings" / "runtime.py"


def cuda_runtime() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stand_in_for_cuda", RUNTIME)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_with_a_gpu() -> Any:
    """PyTorch's tensors on the CPU, and its graphs and streams as far as they are used."""
    torch = pytest.importorskip("torch")

    @contextlib.contextmanager
    def graph(captured: Any, stream: Any) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def stream(_: Any) -> Iterator[None]:
        yield

    class Graph:
        launches = 0

        def replay(self) -> None:
            Graph.launches += 1

        def reset(self) -> None:
            Graph.launches = -1

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None: ...
        def synchronize(self) -> None: ...
        def elapsed_time(self, end: Any) -> float:
            return 1.5

    cuda = SimpleNamespace(
        Stream=lambda: SimpleNamespace(cuda_stream=0x51, synchronize=lambda: None),
        Event=Event,
        CUDAGraph=Graph,
        graph=graph,
        stream=stream,
        synchronize=lambda: None,
        is_available=lambda: True,
    )
    return SimpleNamespace(
        cuda=cuda,
        uint8=torch.uint8,
        frombuffer=torch.frombuffer,
        empty=lambda size, dtype, device: torch.empty(size, dtype=dtype),
    )


DEVICES: dict[str, Callable[[], Device]] = {
    "cuda-python": lambda: CudaDevice(cuda_runtime()),
    "torch": lambda: TorchDevice(torch_with_a_gpu()),
}


@pytest.mark.parametrize("make", DEVICES.values(), ids=DEVICES)
def test_memory_goes_and_comes_back(make: Callable[[], Device]) -> None:
    device = make()
    assert device.stream == 0x51
    data = bytes(range(200))
    address = device.allocate(len(data))
    device.upload(address, data)
    assert device.download(address, 200) == data
    assert device.download(address, 3) == data[:3]
    empty = device.allocate(0)
    assert empty != 0
    device.upload(empty, b"")
    assert device.download(empty, 0) == b""
    device.free(address)
    device.free(empty)
    device.synchronize()


@pytest.mark.parametrize("make", DEVICES.values(), ids=DEVICES)
def test_events_and_graphs(make: Callable[[], Device]) -> None:
    device = make()
    start = device.record()
    assert device.milliseconds(start, device.record()) >= 0
    assert list(inspect.signature(device.capture).parameters) == ["work"]


def test_a_graph_is_captured_and_launched() -> None:
    cuda = cuda_runtime()
    device, done = CudaDevice(cuda), []
    graph = device.capture(lambda: cuda.enqueue(lambda: done.append(1)))
    assert done == []
    device.launch(graph)
    device.launch(graph)
    assert done == [1, 1]
    device.release(graph)
    with pytest.raises(RuntimeError, match="cudaGraphLaunch failed: cudaErrorInvalidValue"):
        device.launch(graph)


def test_a_capture_that_fails_is_ended() -> None:
    cuda = cuda_runtime()
    device = CudaDevice(cuda)

    def fail() -> None:
        raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        device.capture(fail)
    assert not cuda.capturing()
    with pytest.raises(RuntimeError, match="cudaGraphInstantiate failed"):
        device.capture(lambda: None)  # a graph of nothing


def test_torch_graphs() -> None:
    torch = torch_with_a_gpu()
    device, done = TorchDevice(torch), []
    graph = device.capture(lambda: done.append(1))
    device.launch(graph)
    assert (done, torch.cuda.CUDAGraph.launches) == ([1], 1)
    device.release(graph)
    assert torch.cuda.CUDAGraph.launches == -1


def test_pytorch_has_what_is_used_of_it() -> None:
    torch = pytest.importorskip("torch")
    assert {"replay", "reset"} <= set(dir(torch.cuda.CUDAGraph))
    assert "stream" in inspect.signature(torch.cuda.graph.__init__).parameters
    assert "enable_timing" in inspect.signature(torch.cuda.Event.__new__).parameters
    assert "synchronize" in dir(torch.cuda.Stream)


class TooOld(ModuleType):
    """A cuda-python for a newer CUDA than the driver's."""

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        class Code(int):
            name = "cudaErrorInsufficientDriver"

        return Code(35), None


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({}, "(PyTorch: not installed): pip install"),
        ({"torch": SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))}, "without"),
        (
            {"cuda.bindings.runtime": TooOld("runtime")},
            "cuda.bindings.runtime: cudaStreamCreate failed: cudaErrorInsufficientDriver; ",
        ),
    ],
    ids=["nothing", "PyTorch for the CPU", "cuda-python of another version"],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any], words: str
) -> None:
    real = importlib.import_module

    def only(name: str) -> Any:
        if name in modules:
            return modules[name]
        if name.partition(".")[0] in ("cuda", "torch"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", only)
    with pytest.raises(LibraryUnavailable) as caught:
        open_device()
    assert words in str(caught.value)
    assert "cuda-python<13" in str(caught.value)


def test_the_first_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"cuda.bindings.runtime": cuda_runtime()}
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    assert isinstance(open_device(), CudaDevice)
    assert "stand_in_for_cuda" not in sys.modules
