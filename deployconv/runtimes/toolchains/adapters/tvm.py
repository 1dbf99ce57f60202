"""TVM (Relax), compiled for this machine's CPU."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job


def version() -> str:
    """The library and its version."""
    return f"TVM {version_of('apache-tvm')}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self.notes: dict[str, Any] = {}

    def run(self, feeds: Feeds) -> list[Any]:
        given = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in feeds.values()]
        results = self._machine["main"](*given)
        several = [results] if hasattr(results, "numpy") else list(results)
        return [result.numpy() for result in several]


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    shapes = {name: list(array.shape) for name, array in job.feeds.items()}
    module = from_onnx(onnx.load(job.model), shape_dict=shapes, keep_params_in_input=False)
    executable = tvm.compile(module, target=tvm.target.Target("llvm"))
    return Session(relax.VirtualMachine(executable, tvm.cpu()))
