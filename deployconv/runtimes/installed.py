"""Which runtimes are installed here and work, and what to install for the others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from deployconv.errors import DeployconvError
from deployconv.runtimes.registry import RUNTIMES, Runtime

_SECONDS = 10
"""How long the driver of the GPUs may take to answer."""


@dataclass(frozen=True)
class RuntimeState:
    """Whether a runtime can be used here.

    ``found`` is its library and version, or why it cannot be used; ``install`` is what to do then.
    """

    name: str
    state: Literal["usable", "compiles only", "missing"]
    found: str
    install: str | None = None


def runtime_versions() -> Mapping[str, str]:
    """The installed version of each library of a runtime, by its name; nothing is imported."""
    found = {}
    for package in dict.fromkeys(runtime.package for runtime in RUNTIMES.values()):
        name = package.replace("_", "-")
        for distribution in (name, f"{name}-gpu"):
            try:
                found[distribution] = version(distribution)
            except PackageNotFoundError:
                continue
    return found


def runtime_states() -> tuple[RuntimeState, ...]:
    """Load a tiny model into every runtime, and say which of them can be used here."""
    return tuple(map(_state, RUNTIMES.values()))


def _state(runtime: Runtime) -> RuntimeState:
    try:
        backend = runtime.load()
    except DeployconvError as error:
        return RuntimeState(runtime.name, "missing", str(error), runtime.install)
    import numpy as np

    try:
        session = backend.prepare(_tiny_model())
        session.run({"x": np.ones((1, 1), np.float32)})
    except DeployconvError as error:
        if runtime.compiles:
            return RuntimeState(runtime.name, "compiles only", f"{backend.runtime}; {error}")
        return RuntimeState(runtime.name, "missing", str(error), runtime.install)
    return RuntimeState(runtime.name, "usable", backend.runtime)


def _tiny_model() -> bytes:
    """One Relu."""
    import onnx

    graph = onnx.parser.parse_graph("g (float[1, 1] x) => (float[1, 1] y) { y = Relu(x) }")
    opset = onnx.helper.make_opsetid("", 13)
    made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=7)
    return bytes(made.SerializeToString())


def gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs of this machine as their driver names them; none without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(done.stdout.splitlines()) if done.returncode == 0 else ()
