"""What an installed TensorRT library can do on this machine, and how to install one."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes.registry import get_runtime, names_with
from deployconv.runtimes.tensorrt.process import tensorrt_worker
from deployconv.runtimes.worker_process import RequirementMissing, WorkerFailed

_COMPILERS = tuple(reversed(names_with("compiles")))
"""The first of these that is installed compiles: TensorRT-RTX, which needs no GPU, comes first."""


@dataclass(frozen=True)
class Installation:
    """What an installed library can do on this machine.

    Attributes:
        backend: ``tensorrt-rtx`` or ``tensorrt``.
        runtime: library and version.
        targets: compute capabilities that it compiles for without their GPU.
        fp16: whether its builder has a float16 flag.
        device: compute capability of this machine's GPU, or None.
    """

    backend: str
    runtime: str
    targets: tuple[str, ...]
    fp16: bool
    device: str | None

    def require(self, target: str | None, fp16: bool = False) -> None:
        """Raise UsageError or BackendUnavailable if it cannot compile for ``target``."""
        if target is None and self.device is None:
            known = f"name one of {', '.join(self.targets)} with --target" if self.targets else ""
            raise BackendUnavailable(
                f"{self.runtime} finds no GPU on this machine to compile for: "
                f"{known or 'run it on the machine that the engine is for'}"
            )
        if target is not None and not self.targets:
            raise BackendUnavailable(
                f"--target {target}: {self.runtime} compiles for the GPU of its machine only: "
                "leave --target out, or install tensorrt-rtx"
            )
        if target is not None and target.lower() == "dla":
            raise UsageError(
                f"--target {target}: nothing is compiled for a DLA: deployconv inspect --target "
                "dla says what is documented to keep a layer off it"
            )
        if target is not None and target not in self.targets:
            raise UsageError(
                f"--target {target}: {self.runtime} compiles for {', '.join(self.targets)}"
            )
        if fp16 and not self.fp16:
            raise UsageError(
                f"--fp16: {self.runtime} takes the precision from the model's types: convert the "
                "model to float16 and leave --fp16 out"
            )


def find_installation(backend: str | None = None) -> Installation:
    """Ask the library of ``backend``, or the first that is installed, what it can do.

    Raises:
        UsageError: ``backend`` compiles nothing.
        BackendUnavailable: it is not installed or does not load.
    """
    if backend is not None and backend not in _COMPILERS:
        raise UsageError(
            f"--backend {backend}: compiles nothing: choose one of {', '.join(_COMPILERS)}"
        )
    if os.name != "posix":
        raise BackendUnavailable("TensorRT is driven on Linux only: run this there")
    problems = []
    for name in (backend,) if backend else _COMPILERS:
        try:
            return _installation(name, tuple(sys.path))
        except BackendUnavailable as missing:
            problems.append(f"backend '{name}': {missing}: {remedy(name)}")
    raise BackendUnavailable("; ".join(problems))


def cache_folder() -> str:
    """Return the folder for timing and runtime caches, in the user's own cache folder."""
    import platformdirs

    return str(platformdirs.user_cache_path("deployconv") / "tensorrt")


def remedy(backend: str) -> str:
    """Say what to install for ``backend`` on this machine."""
    here = platform.system(), platform.machine()
    install = get_runtime(backend).install
    if backend == "tensorrt-rtx":
        if here == ("Linux", "x86_64"):
            return install
        return "tensorrt-rtx is packaged for Linux on x86-64: run this there"
    if here == ("Linux", "aarch64"):
        return (
            "on a Jetson, JetPack brings it: make the virtual environment with "
            "python -m venv --system-site-packages"
        )
    return f"{install} on a machine with an NVIDIA GPU"


@cache
def _installation(backend: str, path: tuple[str, ...]) -> Installation:
    """Ask a library what it can do, once for each ``path``, the folders of imported libraries."""
    try:
        with tensorrt_worker() as worker:
            found = worker.ask({"action": "describe", "library": get_runtime(backend).package})
    except (WorkerFailed, RequirementMissing) as failure:
        raise BackendUnavailable(str(failure)) from failure
    return Installation(
        backend, found["runtime"], tuple(found["targets"]), found["fp16"], found["device"]
    )
