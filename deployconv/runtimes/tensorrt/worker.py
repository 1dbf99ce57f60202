"""The program that loads TensorRT: ``python -m deployconv.runtimes.tensorrt.worker``."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployconv.runtimes.tensorrt.binding import (
    Binding,
    BuildSettings,
    CacheFile,
    logged_kernels,
    logged_memory,
)
from deployconv.runtimes.tensorrt.device import (
    Device,
    NoDevice,
    compute_capability,
    device_name,
    open_device,
)
from deployconv.runtimes.tensorrt.execution import Execution, Tensor
from deployconv.runtimes.worker_events import Request
from deployconv.runtimes.worker_main import Action, Answers, Send, StageFailed, serve


class TensorRtAnswers(Answers):
    """Answers the requests to one worker that has loaded TensorRT.

    Garbage is collected between requests only. TensorRT holds a lock while it calls its logger,
    which is Python code, and takes the same lock to free a builder. If Python's collector freed a
    builder of an earlier request during such a call, the worker would wait for itself for ever.
    """

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        gc.disable()
        self._device: Device | None = None
        self._sessions: list[Execution] = []

    def actions(self) -> Mapping[str, Action]:
        """Every action by the name that requests give."""
        return {
            "describe": self._describe,
            "compile": self._compile,
            "prepare": self._prepare,
            "bind": self._bind,
            "run": self._run,
            "time": self._time,
            "profile": self._profile,
        }

    def answer(self, request: Request) -> None:
        """Answer ``request``, also if it fails, after the garbage of earlier ones is collected."""
        gc.collect()
        super().answer(request)

    def _describe(self, request: Request) -> dict[str, Any]:
        binding = Binding(request["library"])
        return {
            "runtime": binding.runtime,
            "targets": binding.targets(),
            "fp16": binding.has_fp16_flag,
            "device": _device(),
        }

    def _compile(self, request: Request) -> dict[str, Any]:
        """Parse, build, write and load the engine; return what is known, also if a stage fails."""
        known: dict[str, Any] = {}
        try:
            binding, engine = self._build(request, known)
            if request["engine"] is not None:
                Path(request["engine"]).write_bytes(engine)
            self._load(binding, engine, request["settings"]["target"])
        except StageFailed:
            pass
        return known

    def _prepare(self, request: Request) -> dict[str, Any]:
        """Build for this machine's GPU and load; the value names the session in later requests."""
        binding, engine = self._build(request, {})
        with self.stage("deserialize"):
            if self._device is None:
                self._device = open_device()
            kernels = _cache(binding, request["settings"]["cache"], "kernels")
            self._sessions.append(Execution(binding, engine, self._device, kernels))
        return {"session": len(self._sessions) - 1, "provider": device_name()}

    def _bind(self, request: Request) -> dict[str, Any]:
        with self.stage("run"):
            tensors = [
                Tensor(
                    one["name"], one["dtype"], tuple(one["shape"]), Path(one["file"]).read_bytes()
                )
                for one in request["inputs"]
            ]
            self._sessions[request["session"]].bind(tensors)
        return {}

    def _run(self, request: Request) -> dict[str, Any]:
        outputs = []
        with self.stage("run"):
            session = self._sessions[request["session"]]
            session.run()
            for number, tensor in enumerate(session.outputs()):
                file = Path(request["folder"], f"output_{number}")
                file.write_bytes(tensor.data)
                outputs.append(
                    {
                        "name": tensor.name,
                        "dtype": tensor.dtype,
                        "shape": tensor.shape,
                        "file": str(file),
                    }
                )
        return {"outputs": outputs}

    def _time(self, request: Request) -> dict[str, Any]:
        with self.stage("run"):
            session = self._sessions[request["session"]]
            milliseconds = session.milliseconds(request["cuda_graph"])
        return {"milliseconds": milliseconds}

    def _profile(self, request: Request) -> dict[str, Any]:
        with self.stage("profile"):
            layers = self._sessions[request["session"]].profile(request["runs"])
        return {"layers": layers}

    def _build(self, request: Request, known: dict[str, Any]) -> tuple[Binding, Any]:
        """Build the engine of ``request``; add to ``known`` what each stage shows of it."""
        settings = BuildSettings(**request["settings"])
        binding = Binding(request["library"])
        if settings.target is None:
            compute_capability()  # NoDevice explains it better than the builder's error
        with self.stage("parse"):
            network = binding.parse(Path(request["model"]), settings.fp16)
            known["layers"] = binding.padded_layers(network)
        with self.stage("build"):
            timings = None if settings.target else _cache(binding, settings.cache, "timings")
            engine = binding.build(network, settings, timings)
            messages = binding.log.messages()
            known["engine_bytes"] = engine.nbytes
            known |= logged_memory(messages)
            known["kernels"] = logged_kernels(messages)
        return binding, engine

    def _load(self, binding: Binding, engine: Any, target: str | None) -> None:
        """Deserialize ``engine`` if this machine's GPU is its target."""
        try:
            here = compute_capability()
        except NoDevice as error:
            self.not_run("deserialize", str(error))
            return
        if target not in (None, here):
            self.not_run("deserialize", f"this machine's GPU is {here}")
            return
        with self.stage("deserialize"):
            binding.deserialize(engine)


def main() -> None:
    """Answer the requests on standard input, one per line."""
    serve(TensorRtAnswers)


def _cache(binding: Binding, folder: str | None, what: str) -> CacheFile | None:
    """Return the cache ``what`` of this library on this machine's GPU; None without a folder."""
    if folder is None:
        return None
    return CacheFile(Path(folder), binding.runtime, device_name(), compute_capability(), what)


def _device() -> str | None:
    try:
        return compute_capability()
    except NoDevice:
        return None


if __name__ == "__main__":
    main()
