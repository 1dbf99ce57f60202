"""A model compiled ahead of time: stages, memory and kernels per target, without a GPU.

What this shows is compile evidence. A build that fails is certain; one that passes has not
run, and says nothing about speed.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.results import Kernel, PaddedLayer, StageResult, TargetBuild
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.tensorrt.process import Limits, Worker, WorkerFailed
from deployconv.runtimes.tensorrt.protocol import STAGES, Done, Request, Stage, Unavailable

LIBRARIES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
"""Backend name -> Python package; the first one is preferred for compiling ahead of time."""

_NOT_ASKED = "a build ends with the engine"
_DEFAULT_LIMITS = Limits()


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
        """Raise UsageError or BackendUnavailable where it cannot compile like this."""
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
    """Ask the library of ``backend``, or the first one that is there, what it can do.

    Raises:
        UsageError: ``backend`` is none of `LIBRARIES`.
        BackendUnavailable: it is not installed or does not load.
    """
    if backend is not None and backend not in LIBRARIES:
        raise UsageError(
            f"--backend {backend}: compiles nothing: choose one of {', '.join(LIBRARIES)}"
        )
    if os.name != "posix":
        raise BackendUnavailable("TensorRT is driven on Linux only: run this there")
    problems = []
    for name in (backend,) if backend else LIBRARIES:
        try:
            return _installation(name, tuple(sys.path))
        except BackendUnavailable as missing:
            problems.append(f"backend '{name}': {missing}: {_remedy(name)}")
    raise BackendUnavailable("; ".join(problems))


def compile_model(
    model: Path,
    backend: str,
    settings: BuildSettings,
    *,
    engine: Path | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    checked: StageResult | None = None,
) -> TargetBuild:
    """Compile the model at ``model`` in a worker of its own.

    Args:
        model: a model that `deployconv.graph.load.load` accepts, which TensorRT might not notice
            to be broken.
        backend: ``tensorrt-rtx`` or ``tensorrt``.
        settings: what is built, for which target.
        engine: where to write the engine; nothing is written where the build fails.
        limits: of the worker.
        checked: the stage ``check``, where the caller has timed it.

    Raises BackendUnavailable where the library or the GPU to build for is missing.
    """
    stages = {"check": checked or StageResult("check", "ok")}
    request = {
        "action": "compile",
        "library": LIBRARIES[backend],
        "model": str(model.resolve()),
        "settings": asdict(settings),
        "engine": None if engine is None else str(engine.resolve()),
    }
    value: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        with Worker(limits) as worker:
            for event in worker.ask(request):
                if isinstance(event, Unavailable):
                    raise BackendUnavailable(f"{event.reason}: {_remedy(backend)}")
                if isinstance(event, Stage):
                    stages[event.result.name] = event.result
                else:
                    value = event.value
    except WorkerFailed as failure:
        under_way = next(name for name in STAGES if name not in stages)
        seconds = time.perf_counter() - start
        stages[under_way] = StageResult(under_way, "failed", seconds, str(failure))
    return _target_build(settings.target, tuple(_complete(stages)), value)


def cache_folder() -> str:
    """Where timing and runtime caches are kept: in the user's own cache folder."""
    import platformdirs

    return str(platformdirs.user_cache_path("deployconv") / "tensorrt")


@contextmanager
def model_file(source: ModelSource) -> Iterator[Path]:
    """``source`` as a file that exists while the body runs."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="deployconv-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(source)
        yield path


@cache
def _installation(backend: str, path: tuple[str, ...]) -> Installation:
    """Asked once for each ``path``, the folders that libraries are imported from."""
    value = _ask({"action": "describe", "library": LIBRARIES[backend]})
    return Installation(
        backend, value["runtime"], tuple(value["targets"]), value["fp16"], value["device"]
    )


def _ask(request: Request) -> dict[str, Any]:
    try:
        with Worker() as worker:
            *_, last = worker.ask(request)
    except WorkerFailed as failure:
        raise BackendUnavailable(str(failure)) from failure
    if isinstance(last, Done):
        return last.value
    assert isinstance(last, Unavailable)
    raise BackendUnavailable(last.reason)


def _complete(stages: Mapping[str, StageResult]) -> Iterator[StageResult]:
    """Every stage in order, those that were not reached with the reason why."""
    reason = _NOT_ASKED
    for name in STAGES:
        stage = stages.get(name) or StageResult(name, "not-run", reason=reason)
        if stage.status == "failed":
            reason = f"{name} failed"
        yield stage


def _target_build(
    target: str | None, stages: tuple[StageResult, ...], value: dict[str, Any]
) -> TargetBuild:
    kernels = value.get("kernels")
    return TargetBuild(
        target,
        stages,
        engine_bytes=value.get("engine_bytes"),
        activation_bytes=value.get("activation_bytes"),
        weights_bytes=value.get("weights_bytes"),
        scratch_bytes=value.get("scratch_bytes"),
        kernels=None if kernels is None else tuple(Kernel(**_tuples(one)) for one in kernels),
        layers=tuple(PaddedLayer(**_tuples(one)) for one in value.get("layers", ())),
    )


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, which is how JSON spells tuples, as tuples."""
    return {key: tuple(one) if isinstance(one, list) else one for key, one in fields.items()}


def _remedy(backend: str) -> str:
    """What to install for ``backend`` on this machine."""
    here = platform.system(), platform.machine()
    if backend == "tensorrt-rtx":
        if here == ("Linux", "x86_64"):
            return "pip install 'deployconv[rtx]'"
        return "tensorrt-rtx is packaged for Linux on x86-64: run this there"
    if here == ("Linux", "aarch64"):
        return (
            "on a Jetson, JetPack brings it: make the virtual environment with "
            "python -m venv --system-site-packages"
        )
    return "pip install 'deployconv[gpu]' on a machine with an NVIDIA GPU"
