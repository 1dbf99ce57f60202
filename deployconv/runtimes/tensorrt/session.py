"""The backends `tensorrt` and `tensorrt-rtx`: build, run and time engines on this machine's GPU.

Both models of a comparison run in one worker: the CUDA contexts of two would take turns.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import onnx

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.results import LayerTime, StageResult
from deployconv.runtimes.array_files import read_array, write_array
from deployconv.runtimes.base import (
    Array,
    Feeds,
    ModelSource,
    TensorSpec,
    label_of,
    model_file,
)
from deployconv.runtimes.registry import get_runtime
from deployconv.runtimes.shapes import (
    input_specs,
    output_specs,
    profile_of,
    read_structure,
    shape_ranges,
)
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.tensorrt.compile import compile_model, refuse_what_tensorrt_overlooks
from deployconv.runtimes.tensorrt.installation import cache_folder, find_installation
from deployconv.runtimes.tensorrt.process import tensorrt_worker
from deployconv.runtimes.worker_events import Request
from deployconv.runtimes.worker_process import RequirementMissing, WorkerFailed
from deployconv.temporary import temporary_folder

_PREFERRED_TARGET = "sm89"


def load(name: str) -> TensorRtBackend:
    """Return the backend called ``name``; the registry of runtimes calls this."""
    return TensorRtBackend(name)


class TensorRtBackend:
    """One of the two libraries; `prepare` needs a GPU.

    Attributes:
        runtime: library and version.
        worker: the process, which ends with the backend.

    Raises BackendUnavailable if the library is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._installation = find_installation(name)
        self.runtime = self._installation.runtime
        self.worker = tensorrt_worker()
        weakref.finalize(self, self.worker.close)

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> TensorRtSession:
        """Build ``model`` for this machine's GPU and load it.

        A model with dynamic inputs is built on its first run, for the shapes of that run. If
        there is no GPU, the error says whether the model would at least build.

        Raises:
            ModelError: the model is broken in a way that TensorRT does not notice.
            BackendUnavailable: no GPU, or TensorRT refuses the model.
            UsageError: ``threads`` is given, which means nothing on a GPU.
        """
        if threads is not None:
            raise UsageError(
                f"--threads {threads}: backend '{self.name}' runs on the GPU: leave it out"
            )
        settings = BuildSettings(tf32=False, optimise=optimise, cache=cache_folder())
        proto, label = read_structure(model), label_of(model)
        refuse_what_tensorrt_overlooks(proto, label)
        if self._installation.device is None:
            raise BackendUnavailable(self._without_gpu(model, proto, settings, label))
        return TensorRtSession(self, model, proto, settings, label)

    def ask(self, request: Request, label: str) -> dict[str, Any]:
        """Send ``request`` to the worker and return the value of its answer.

        Raises BackendUnavailable if a stage fails or no answer comes.
        """
        stages: list[StageResult] = []
        library = get_runtime(self.name).package
        try:
            value = self.worker.ask({**request, "library": library}, stages.append)
        except RequirementMissing as missing:
            raise BackendUnavailable(f"backend '{self.name}': {missing}") from missing
        except WorkerFailed as failure:
            raise BackendUnavailable(f"backend '{self.name}': {label}: {failure}") from failure
        for stage in stages:
            if stage.status != "ok":
                raise BackendUnavailable(self._refusal(label, stage))
        return value

    def _refusal(self, label: str, stage: StageResult) -> str:
        node = f" at node {stage.node} ({stage.operator})" if stage.node else ""
        status = "not run" if stage.status == "not-run" else stage.status
        return f"backend '{self.name}': {label}: {stage.name} {status}{node}: {stage.reason}"

    def _without_gpu(
        self, model: ModelSource, proto: onnx.ModelProto, settings: BuildSettings, label: str
    ) -> str:
        """Explain that there is no GPU, and whether the model would build for one."""
        start = f"backend '{self.name}': {label}"
        targets = self._installation.targets
        if not targets:
            return f"{start}: no GPU on this machine: run it on one that has a GPU"
        target = _PREFERRED_TARGET if _PREFERRED_TARGET in targets else targets[0]
        ranges, _ = shape_ranges(input_specs(proto), {})
        settings = replace(settings, target=target, profile=profile_of(ranges), cache=None)
        with model_file(model) as path:
            built = compile_model(path, self.name, settings)
        if built.failure is not None:
            return self._refusal(f"{label} (for {target})", built.failure)
        deserialize = built.stage("deserialize")
        return (
            f"{start}: builds for {target}, but {deserialize.name}: not run - "
            f"{deserialize.reason}: run it on a machine with a GPU, or compile it only, with "
            "deployconv build --target"
        )


class TensorRtSession:
    """One engine in the backend's worker; it is built again if that process was replaced."""

    threads = 1
    """On the host; the GPU decides what it runs in parallel."""

    cuda_graph = False
    """Whether `timed_run` captures one run in a CUDA graph and launches that."""

    def __init__(
        self,
        backend: TensorRtBackend,
        model: ModelSource,
        proto: onnx.ModelProto,
        settings: BuildSettings,
        label: str,
    ) -> None:
        self.inputs: Sequence[TensorSpec] = input_specs(proto)
        self.outputs: Sequence[TensorSpec] = output_specs(proto)
        self.provider = backend.runtime
        self._backend = backend
        self._model = model
        self._settings = settings
        self._label = label
        self._number: int | None = None
        self._failures = 0
        self._bound: Feeds | None = None
        self._built_for: dict[str, tuple[int, ...]] = {}
        if all(spec.is_static for spec in self.inputs):
            self._build({})

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return every output by name. Raises BackendUnavailable if it cannot."""
        self._bind(feeds)
        with temporary_folder() as folder:
            value = self._ask("run", folder=str(folder))
            return {one["name"]: read_array(one) for one in value["outputs"]}

    def timed_run(self, feeds: Feeds) -> float:
        """Milliseconds of one run on the GPU, inputs and outputs left there."""
        self._bind(feeds)
        return float(self._ask("time", cuda_graph=self.cuda_graph)["milliseconds"])

    def profile(self, feeds: Feeds, runs: int) -> tuple[LayerTime, ...]:
        """Return the time of each layer of the engine, as TensorRT's profiler measures it."""
        self._bind(feeds)
        layers = self._ask("profile", runs=runs)["layers"]
        return tuple(LayerTime(one["name"], one["ms"], tuple(one["nodes"])) for one in layers)

    def _ask(self, action: str, **content: Any) -> dict[str, Any]:
        request = {"action": action, "session": self._number, **content}
        return self._backend.ask(request, self._label)

    def _build(self, shapes: dict[str, tuple[int, ...]]) -> None:
        ranges, _ = shape_ranges(self.inputs, {name: (s, s, s) for name, s in shapes.items()})
        settings = replace(self._settings, profile=profile_of(ranges))
        with model_file(self._model) as path:
            value = self._ask("prepare", model=str(path.resolve()), settings=asdict(settings))
        self._number, self.provider = value["session"], value["provider"]
        self._built_for = shapes
        self._failures, self._bound = self._backend.worker.failures, None

    def _bind(self, feeds: Feeds) -> None:
        """Send ``feeds`` to the worker, and before that the model, if it does not have them."""
        known = self._number is not None and self._failures == self._backend.worker.failures
        if known and self._bound is feeds:
            return
        shapes = {name: array.shape for name, array in feeds.items()}
        fixed = {spec.name for spec in self.inputs if spec.is_static}
        wanted = {name: shape for name, shape in shapes.items() if name not in fixed}
        if not known or wanted != self._built_for:
            self._build(wanted)
        with temporary_folder() as folder:
            inputs = [
                write_array(folder / f"input_{number}", name, array)
                for number, (name, array) in enumerate(feeds.items())
            ]
            self._ask("bind", inputs=inputs)
        self._bound = feeds
