"""The program that loads TensorRT: ``python -m deployconv.runtimes.tensorrt.worker``.

It takes requests from standard input until that closes, as it does when deployconv ends. Answers
go to the original standard output. Standard output itself is redirected to standard error, so that
nothing that a library prints can be read as an answer.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployconv.results import StageName, StageResult
from deployconv.runtimes.tensorrt.binding import (
    Binding,
    BuildSettings,
    CacheFile,
    LibraryUnavailable,
    Refused,
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
from deployconv.runtimes.tensorrt.process import (
    Done,
    Event,
    Request,
    Stage,
    Unavailable,
    encode,
)

Send = Callable[[Event], None]


class StageFailed(Exception):
    """A stage failed and was reported; the rest of the request is not run."""


class Answers:
    """Answers the requests to one worker, one after another."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._device: Device | None = None
        self._sessions: list[Execution] = []

    def answer(self, request: Request) -> None:
        """Answer ``request``, also if it fails."""
        actions = {
            "describe": self._describe,
            "compile": self._compile,
            "prepare": self._prepare,
            "bind": self._bind,
            "run": self._run,
            "time": self._time,
            "profile": self._profile,
        }
        try:
            self._send(Done(actions[request["action"]](request)))
        except (LibraryUnavailable, NoDevice) as error:
            self._send(Unavailable(_one_line(str(error))))
        except StageFailed:
            self._send(Done({}))

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
        with self._stage("deserialize"):
            if self._device is None:
                self._device = open_device()
            kernels = _cache(binding, request["settings"]["cache"], "kernels")
            self._sessions.append(Execution(binding, engine, self._device, kernels))
        return {"session": len(self._sessions) - 1, "provider": device_name()}

    def _bind(self, request: Request) -> dict[str, Any]:
        with self._stage("run"):
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
        with self._stage("run"):
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
        with self._stage("run"):
            session = self._sessions[request["session"]]
            milliseconds = session.milliseconds(request["cuda_graph"])
        return {"milliseconds": milliseconds}

    def _profile(self, request: Request) -> dict[str, Any]:
        with self._stage("profile"):
            layers = self._sessions[request["session"]].profile(request["runs"])
        return {"layers": layers}

    def _build(self, request: Request, known: dict[str, Any]) -> tuple[Binding, Any]:
        """Build the engine of ``request``; add to ``known`` what each stage shows of it."""
        settings = BuildSettings(**request["settings"])
        binding = Binding(request["library"])
        if settings.target is None:
            compute_capability()  # NoDevice explains it better than the builder's error
        with self._stage("parse"):
            network = binding.parse(Path(request["model"]), settings.fp16)
            known["layers"] = binding.padded_layers(network)
        with self._stage("build"):
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
            self._not_run("deserialize", str(error))
            return
        if target not in (None, here):
            self._not_run("deserialize", f"this machine's GPU is {here}")
            return
        with self._stage("deserialize"):
            binding.deserialize(engine)

    def _not_run(self, name: StageName, reason: str) -> None:
        self._send(Stage(StageResult(name, "not-run", reason=reason)))

    @contextmanager
    def _stage(self, name: StageName) -> Iterator[None]:
        """Report how the body ended; raises StageFailed if it failed."""
        start = time.perf_counter()
        try:
            yield
        except LibraryUnavailable:
            raise
        except Exception as error:
            seconds = time.perf_counter() - start
            refused = (
                error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}")
            )
            reason = _one_line(str(refused))
            result = StageResult(name, "failed", seconds, reason, refused.node, refused.operator)
            self._send(Stage(result))
            raise StageFailed from error
        self._send(Stage(StageResult(name, "ok", time.perf_counter() - start)))


def main() -> None:
    """Answer the requests on standard input, one per line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    worker = Answers(lambda event: _write(answers.fileno(), encode(event)))
    while True:
        worker.answer(json.loads(requests.get()))


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Queue each line of standard input; end the process as soon as that is closed."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _write(descriptor: int, line: bytes) -> None:
    """Write all of ``line``; a pipe may accept only part of it at a time."""
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


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


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
