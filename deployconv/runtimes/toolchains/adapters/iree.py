"""IREE, compiled for this machine's CPU."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iree import runtime

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job


def version() -> str:
    """The library and its version."""
    return f"IREE {version_of('iree-base-compiler')}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, module: Any, name: str) -> None:
        self._function = module[name]
        self.notes: dict[str, Any] = {}

    def run(self, feeds: Feeds) -> list[Any]:
        results = self._function(*feeds.values())
        several = results if isinstance(results, (tuple, list)) else [results]
        return [result.to_host() for result in several]


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    import onnx

    programs = Path(sys.executable).parent
    imported, compiled = job.folder / "model.mlir", job.folder / "model.vmfb"
    model = onnx.load(job.model)
    for value in model.graph.input:
        if value.name in job.feeds:
            sizes = value.type.tensor_type.shape.dim
            for size, length in zip(sizes, job.feeds[value.name].shape, strict=True):
                size.dim_value = length
    del model.graph.value_info[:]
    onnx.save(model, job.model)
    _run([str(programs / "iree-import-onnx"), str(job.model), "-o", str(imported)])
    _run(
        [
            *(str(programs / "iree-compile"), str(imported), "-o", str(compiled)),
            *("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"),
            "--iree-llvmcpu-target-cpu=host",
        ]
    )
    config = runtime.Config("local-task" if job.threads > 1 else "local-sync")
    flatbuffer = compiled.read_bytes()
    module = runtime.VmModule.copy_buffer(config.vm_instance, flatbuffer)
    return Session(runtime.load_vm_module(module, config), model.graph.name)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line] or lines[-1:] or ["no message"]
        raise RuntimeError(errors[0].split("error:")[-1].strip())
