"""The CUDA runtime over host memory; calls return (error code, results...) as the real ones do."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from itertools import count
from typing import Any

MEMORY: dict[int, bytearray] = {}
GRAPH_MILLISECONDS = 0.125
"""Milliseconds that a launch of a captured graph takes: a test can tell that there was one."""
_addresses = count(0x7000, 0x100)


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


_OK = cudaError_t.cudaSuccess
_INVALID = cudaError_t.cudaErrorInvalidValue


_capturing: list[list[Callable[[], None]]] = []
_launches: list[float] = []


def capturing() -> bool:
    return bool(_capturing)


def enqueue(work: Callable[[], None]) -> None:
    """What a library does with a stream: run now, or be captured."""
    if _capturing:
        _capturing[-1].append(work)
    else:
        work()


def cudaMalloc(size: int) -> tuple[Any, ...]:
    if size < 1:
        return _OK, 0
    address = next(_addresses)
    MEMORY[address] = bytearray(size)
    return _OK, address


def cudaFree(address: int) -> tuple[Any, ...]:
    return (_OK if MEMORY.pop(address, None) is not None else _INVALID,)


def cudaMemcpy(target: Any, source: Any, size: int, kind: cudaMemcpyKind) -> tuple[Any, ...]:
    up = kind is cudaMemcpyKind.cudaMemcpyHostToDevice
    memory = MEMORY.get(target if up else source)
    if memory is None or size > len(memory):
        return (_INVALID,)
    if up:
        memory[:size] = source[:size]
    else:
        target[:size] = memory[:size]
    return (_OK,)


def cudaStreamCreate() -> tuple[Any, ...]:
    return _OK, 0x51


def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
    return (_OK if stream == 0x51 else _INVALID,)


def cudaEventCreate() -> tuple[Any, ...]:
    return _OK, []


def cudaEventRecord(event: list[float], stream: int) -> tuple[Any, ...]:
    event.append(time.perf_counter())
    return (_OK,)


def cudaEventSynchronize(event: list[float]) -> tuple[Any, ...]:
    return (_OK if event else _INVALID,)


def cudaEventElapsedTime(start: list[float], end: list[float]) -> tuple[Any, ...]:
    if any(start[0] <= launch <= end[0] for launch in _launches):
        return _OK, GRAPH_MILLISECONDS
    return _OK, 1e3 * (end[0] - start[0])


def cudaEventDestroy(event: list[float]) -> tuple[Any, ...]:
    event.clear()
    return (_OK,)


def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
    if stream != 0x51 or mode is not cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
        return (_INVALID,)
    _capturing.append([])
    return (_OK,)


def cudaStreamEndCapture(stream: int) -> tuple[Any, ...]:
    return _OK, _capturing.pop()


def cudaGraphInstantiate(graph: Any, flags: int) -> tuple[Any, ...]:
    return (_OK, list(graph)) if graph and not flags else (_INVALID, None)


def cudaGraphDestroy(graph: Any) -> tuple[Any, ...]:
    graph.clear()
    return (_OK,)


def cudaGraphLaunch(executable: Any, stream: int) -> tuple[Any, ...]:
    if not executable:
        return (_INVALID,)
    for work in executable:
        work()
    _launches.append(time.perf_counter())
    return (_OK,)


def cudaGraphExecDestroy(executable: Any) -> tuple[Any, ...]:
    executable.clear()
    return (_OK,)
