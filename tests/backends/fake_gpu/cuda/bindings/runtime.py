"""The CUDA runtime over host memory; calls return (error code, results...) as the real ones do."""

from __future__ import annotations

import enum
import time
from itertools import count
from typing import Any

MEMORY: dict[int, bytearray] = {}
_addresses = count(0x7000, 0x100)


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


_OK = cudaError_t.cudaSuccess
_INVALID = cudaError_t.cudaErrorInvalidValue


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
    return _OK, 1e3 * (end[0] - start[0])


def cudaEventDestroy(event: list[float]) -> tuple[Any, ...]:
    event.clear()
    return (_OK,)
