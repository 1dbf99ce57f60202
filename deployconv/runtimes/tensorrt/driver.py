"""The CUDA driver, asked through its own C interface: no package is needed to know it is there."""

from __future__ import annotations

import ctypes

_LONGEST_NAME = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


class NoDevice(Exception):
    """There is no GPU that CUDA can use; the message says what is missing."""


def compute_capability() -> str:
    """Of the first GPU, e.g. ``sm89``. Raises NoDevice where there is none."""
    driver, device = _first_device()
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return f"sm{''.join(parts)}"


def device_name() -> str:
    """Of the first GPU, as its driver calls it. Raises NoDevice where there is none."""
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
