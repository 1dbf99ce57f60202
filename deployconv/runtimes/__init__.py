"""Runtimes that can run a model. One file each; none is imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployconv.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from deployconv.runtimes.base import Backend

BACKEND_NAMES = ("ort", "ort:cuda", "ort:tensorrt", "tensorrt", "tensorrt-rtx")

LAYER_BACKENDS = ("tensorrt", "tensorrt-rtx")
"""Those whose sessions are `base.GpuSession`."""


def get_backend(name: str) -> Backend:
    """The backend called ``name``, one of `BACKEND_NAMES`.

    Raises:
        UsageError: no backend has this name.
        BackendUnavailable: its runtime is not installed, or this version cannot drive it.
    """
    if name not in BACKEND_NAMES:
        raise UsageError(f"unknown backend {name!r}: choose one of {', '.join(BACKEND_NAMES)}")
    if not name.startswith("ort"):
        from deployconv.runtimes.tensorrt.session import TensorRtBackend

        return TensorRtBackend(name)
    try:
        from deployconv.runtimes.ort import OrtBackend
    except ImportError as error:
        raise BackendUnavailable(
            f"backend {name!r} needs onnxruntime, which cannot be imported ({error}): "
            "pip install 'deployconv[cpu]', or 'deployconv[gpu]' for CUDA and TensorRT"
        ) from error
    return OrtBackend(name)
